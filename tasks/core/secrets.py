"""API keys and hub tokens, from the environment and the env file; no other module looks for them."""

from __future__ import annotations

import base64
import re
from fnmatch import fnmatchcase
from functools import lru_cache
from io import StringIO
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import httpx
from dotenv.parser import parse_stream
from pydantic import SecretStr

from tasks.core.config.load import ALLOWED_VARIABLES, read_text
from tasks.core.config.settings import provider_of
from tasks.core.config.values import PLACEHOLDER
from tasks.core.errors import ConfigError, Problem, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path
    from re import Match

    from dotenv.parser import Binding

    from tasks.core.config.settings import ModelConfig

LARGEST_ENV_FILE: Final = 1024 * 1024
"""Bytes that an env file may have."""

FORBIDDEN: Final = frozenset(
    {"PATH", "LD_PRELOAD", "LD_LIBRARY_PATH", "HOME", "USER", "SHELL", "TMPDIR", "TMP", "TEMP"}
)
FORBIDDEN_PREFIX: Final = "DYLD_"

_PROVIDER_VARIABLES: Final = {
    "openai": "OPENAI_API_KEY",
    "nvidia": "NVIDIA_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "together": "TOGETHER_API_KEY",
    "chutes": "CHUTES_API_KEY",
    "nahcrof": "NAHCROF_API_KEY",
}
_ANY_PROVIDER: Final = "API_KEY"
_SECRET_NAME: Final = re.compile(r"KEY|SECRET|TOKEN|PASS|CREDENTIAL|CONNECTION_STRING", re.IGNORECASE)
_SHORTEST_SECRET: Final = 4
"""Characters: what is shorter is no secret, and would be found in any word."""

_HUB_VARIABLES: Final = ("HUGGING_FACE_TOKEN", "HUGGINGFACE_TOKEN", "HF_TOKEN")

_KEY_NAME: Final = re.compile(r".*_(KEY|TOKEN)|TOKEN", re.IGNORECASE)
"""How the variables are named in which keys of models are kept: `…_API_KEY`, `…_KEY`, `…_TOKEN`."""
_OTHERS: Final = re.compile(
    # Clouds and their storage; the Hub; databases; what builds and runs programs.
    r"(AWS|AZURE|ARM|GOOGLE|GCP|GCLOUD|GCS|CLOUDSDK|CLOUDFLARE|CF|ALIBABA|ALIBABACLOUD|ALICLOUD|ALIYUN|OSS"
    r"|TENCENTCLOUD|HUAWEICLOUD|OCI|IBM|IBMCLOUD|DIGITALOCEAN|HCLOUD|HETZNER|LINODE|VULTR|SCW|SCALEWAY|OVH|HEROKU"
    r"|VERCEL|NETLIFY|S3|R2|B2|MINIO|WASABI"
    r"|HF|HUGGINGFACE|HUGGINGFACEHUB|HUGGING_FACE"
    r"|DATABASE|DB|PG|POSTGRES|POSTGRESQL|MYSQL|MARIADB|MSSQL|MONGO|MONGODB|REDIS|SUPABASE|SNOWFLAKE|DATABRICKS"
    r"|PREFECT|VELLUMFORGE|GITHUB|GH|GITLAB|BITBUCKET|CI|NPM|NODE|PYPI|TWINE|DOCKER|KUBE|K8S|VAULT|SSH|GPG)_.*"
    r"|(.*_)?(SECRET|PRIVATE|ACCESS|ENCRYPTION|SIGNING|MASTER|SESSION|REFRESH|SSH)_(KEY|TOKEN|API_KEY|KEY_ID)",
    re.IGNORECASE,
)
"""Variables that are named like keys, and are not those of models."""
_SECOND_LEVELS: Final = frozenset({"ac", "co", "com", "edu", "gov", "net", "org"})
"""What stands before a country in hosts such as api.example.co.uk."""


def may_be_read(name: str, environ: Mapping[str, str]) -> bool:
    """Whether a variable may be read for settings that somebody else than this machine's user gave.

    Args:
        name: The variable.
        environ: The environment, which says so in `VELLUMFORGE__SECRETS__ALLOWED`: patterns as for files,
            with commas between them. Without it, variables are allowed whose names end as those of models'
            keys do, but for those of clouds, databases and the Hub.
    """
    patterns = environ.get(ALLOWED_VARIABLES)
    if patterns is None:
        return _KEY_NAME.fullmatch(name) is not None and _OTHERS.fullmatch(name) is None
    return any(fnmatchcase(name, pattern.strip()) for pattern in patterns.split(","))


def is_key_of(name: str, base_url: str) -> bool:
    """Whether a variable looks like a key of the provider behind an endpoint, by its name alone.

    Args:
        name: The variable.
        base_url: A valid base URL.
    """
    if _KEY_NAME.fullmatch(name) is None or _OTHERS.fullmatch(name) is not None:
        return False
    provider = provider_of(base_url)
    known = [one for one in _PROVIDER_VARIABLES if name.upper().startswith(f"{one.upper()}_")]
    if known or name == _ANY_PROVIDER:
        return name == _ANY_PROVIDER or provider in known
    word = re.sub(r"[^A-Z0-9]+", "_", _owner(httpx.URL(base_url).host).upper())
    return bool(word) and name.upper().startswith(f"{word}_")


def _owner(host: str) -> str:
    """The part of a host's name that somebody registered, with nothing around it; "" for an address."""
    labels = host.rstrip(".").split(".")
    if ":" in host or labels[-1].isdigit():
        return ""
    if len(labels) > 2 and labels[-2] in _SECOND_LEVELS:  # noqa: PLR2004 - a name, and the two behind it
        return labels[-3]
    return labels[-2] if labels[1:] else labels[0]


def _anything(_name: str, _base_url: str) -> bool:
    return True


def read_env_file(path: Path, *, required: bool) -> dict[str, str]:
    """The variables of an env file, as they stand there: `$NAME` in a value is not replaced.

    Args:
        path: The file.
        required: Whether a missing file is an error, because the user named it.

    Returns:
        Name to value, the last one where a name stands twice; empty for a missing file.

    Raises:
        ConfigError: The file cannot be read, has lines that are no `NAME=value`, or sets a variable that
            decides what programs are run and where files go. No message holds a value.
    """
    text = read_text(path, LARGEST_ENV_FILE, when_missing=None if required else "")
    values: dict[str, str] = {}
    problems: list[Problem] = []
    for binding in parse_stream(StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            problems.append(Problem("", f"line {_line_of(binding)} is not of the form NAME=value"))
        elif binding.key in FORBIDDEN or (binding.key or "").startswith(FORBIDDEN_PREFIX):
            problems.append(Problem(str(binding.key), "an env file must not set this variable"))
        elif binding.key is not None and binding.value is not None:
            values[binding.key] = binding.value
    if problems:
        raise ConfigError(str(path), tuple(problems))
    return values


class Keys:
    """The secrets of a run; a variable of the environment wins over the same one of the env file.

    An empty value counts as not set, so that a key of the file can be used beside an empty variable.

    Args:
        environ: The variables of the environment.
        env_file_values: Those of the env file.
        blocks: Prefect Secret blocks by name, for `api_key_block`.
        may_read: Whether a variable may be read for the model at a base URL; where it may not, one that is
            named is refused, and any other counts as not set.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        env_file_values: Mapping[str, str],
        blocks: Mapping[str, SecretStr] = MappingProxyType({}),
        *,
        may_read: Callable[[str, str], bool] = _anything,
    ) -> None:
        self._variables = {
            name: SecretStr(value) for name, value in {**env_file_values, **_filled(environ)}.items() if value
        }
        self._blocks = dict(blocks)
        self._may_read = may_read

    def __repr__(self) -> str:
        known = (*_PROVIDER_VARIABLES.values(), _ANY_PROVIDER, *_HUB_VARIABLES)
        return f"Keys({', '.join(name for name in known if name in self._variables)})"

    def for_model(self, model: ModelConfig) -> SecretStr | None:
        """The key of a model: of the block or the variable that it names, and of no other then.

        Without such a name it is that of the provider, else the generic one, else None: local servers need
        none.

        Raises:
            UsageError: What the model names holds no key, or one with characters that no HTTP header carries;
                or it may not be read.
        """
        if model.api_key_block:
            secret = self._blocks.get(model.api_key_block)
            if secret is None:
                raise UsageError(
                    f"api_key_block of {model.model_name} names {model.api_key_block}, which holds no key"
                )
            return _sendable(f"the Prefect block {model.api_key_block}", secret)
        if model.api_key_env:
            return self._variable(model.api_key_env, model, "api_key_env")
        return self._first(*self._readable(model))

    def headers_for(self, model: ModelConfig) -> dict[str, SecretStr]:
        """The further headers of a model's requests, with the variables that their values name.

        Raises:
            UsageError: A variable is not set, may not be read, or holds characters that no header carries.
        """

        def value(found: Match[str]) -> str:
            return self._variable(found[1], model, "headers").get_secret_value()

        return {name: SecretStr(PLACEHOLDER.sub(value, text)) for name, text in model.headers.items()}

    def origin_of(self, model: ModelConfig) -> str:
        """Where the model's key is: the name of a variable, or of a block after `block`; "" for nowhere."""
        if model.api_key_block:
            return f"block {model.api_key_block}"
        return next((name for name in self._readable(model) if name in self._variables), "")

    def hub_token(self) -> SecretStr | None:
        """The token for the Hugging Face hub, or None.

        Raises:
            UsageError: The token holds characters that an HTTP header cannot carry.
        """
        return self._first(*_HUB_VARIABLES)

    def _first(self, *names: str) -> SecretStr | None:
        for name in names:
            secret = self._variables.get(name)
            if secret is not None:
                return _sendable(name, secret)
        return None

    def _readable(self, model: ModelConfig) -> list[str]:
        return [name for name in variables_of(model) if self._may_read(name, model.base_url)]

    def _variable(self, name: str, model: ModelConfig, setting: str) -> SecretStr:
        named = f"{setting} of {model.model_name} names {name}"
        if not self._may_read(name, model.base_url):
            raise UsageError(
                f"{named}, which may not be read for settings that came from elsewhere: name it and the "
                f"endpoint in the config.toml of this folder, or allow it with {ALLOWED_VARIABLES} in the "
                "environment of this machine's process"
            )
        secret = self._variables.get(name)
        if secret is None:
            raise UsageError(f"{named}, which neither the environment nor the env file sets")
        return _sendable(name, secret)


def variables_of(model: ModelConfig) -> tuple[str, ...]:
    """The variables that a model's key is looked for in, the first one first; none when a block holds it."""
    if model.api_key_block:
        return ()
    if model.api_key_env:
        return (model.api_key_env,)
    provider = _PROVIDER_VARIABLES.get(provider_of(model.base_url), _ANY_PROVIDER)
    return tuple(dict.fromkeys((provider, _ANY_PROVIDER)))


def variables_named(model: ModelConfig) -> frozenset[str]:
    """All variables that may be read for a model: for its key, and for its headers."""
    in_headers = (name for text in model.headers.values() for name in PLACEHOLDER.findall(text))
    return frozenset((*variables_of(model), *in_headers))


def _filled(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if value}


def without_secrets(text: str, environ: Mapping[str, str]) -> str:
    """Another program's words as they may be shown.

    Args:
        text: The words.
        environ: The environment: what its variables for keys, tokens and passwords hold is left out.

    Returns:
        The text without those, without user names and passwords in URLs, and without their queries, which
        may be signed.
    """
    shown = re.sub(r"//[^/@\s]*@", "//***@", text)
    shown = re.sub(r"(://[^\s?\"']*)\?[^\s\"']*", r"\1?***", shown)
    secrets = {environ[name] for name in environ if _SECRET_NAME.search(name)}
    # The longest first: one may be part of another.
    return masked(shown, sorted((it for it in secrets if len(it) >= _SHORTEST_SECRET), key=len, reverse=True))


_SHORTEST_CODED: Final = 6
"""Characters: what stands in code for less may be part of anything."""
_ESCAPED: Final = re.compile(r"[%\\](?:(?:(?<=%)|\\*u00)([2-7][0-9A-Fa-f])|(?<=\\)\\*/)")
"""A printable character of ASCII, which is what keys are made of, as URLs or JSON may write it."""
_FIRST: Final = frozenset("234567")
_ROUNDS: Final = 3
"""How often a text may have been escaped."""


def masked(text: str, secrets: Iterable[str]) -> str:
    """The text without the secrets: some servers repeat the key that they do not accept.

    A secret is found as it stands, in base64 with anything around it, and in both with characters escaped as
    in URLs or in JSON. Where it is found only so, nothing in the text is escaped any longer.

    Args:
        text: The text.
        secrets: The secrets, the longest first where one may be part of another.

    Returns:
        The very same text where none is in it.
    """
    forms = [form for secret in secrets for form in _forms_of(secret)]
    found = _without(text, forms)
    if forms and _may_be_escaped(text):
        plain = found
        for _ in range(_ROUNDS):
            plain, count = _ESCAPED.subn(_character, plain)
            if not count:
                break
            if (less := _without(plain, forms)) is not plain:
                found = plain = less
    return found


def _may_be_escaped(text: str) -> bool:
    # Looked at first, for an expression needs ten times as long to find nothing in an answer.
    return "\\u00" in text or "\\/" in text or any(part[:1] in _FIRST for part in text.split("%")[1:])


def _without(text: str, forms: Sequence[str]) -> str:
    for form in forms:
        if form in text:
            text = text.replace(form, "***")
    return text


def _character(found: Match[str]) -> str:
    return chr(int(found[1], 16)) if found[1] else "/"


@lru_cache(maxsize=1024)
def _forms_of(secret: str) -> tuple[str, ...]:
    """The secret as it stands, and what of it is the same in every base64 that holds it."""
    coded: dict[str, None] = {secret: None}
    data = secret.encode("utf-8", "surrogateescape")
    if len(data) >= _SHORTEST_CODED:
        for before in range(3):
            # Three bytes are four characters; those that hold bits of a neighbour are left out.
            code = base64.b64encode(bytes(before) + data)
            code = code[-(-8 * before // 6) : 8 * (before + len(data)) // 6]
            coded |= dict.fromkeys([code.decode(), code.translate(_IN_URLS).decode()])
    return tuple(coded)


_IN_URLS: Final = bytes.maketrans(b"+/", b"-_")


def _sendable(name: str, secret: SecretStr) -> SecretStr:
    value = secret.get_secret_value()
    if not (value.isascii() and value.isprintable()):
        raise UsageError(f"{name} holds a line break or another character that no key has; set it anew")
    return secret


def _line_of(binding: Binding) -> int:
    # A binding begins where the one before it ended, which may be blank lines above its own.
    text = binding.original.string
    blank = text[: len(text) - len(text.lstrip())]
    return binding.original.line + blank.count("\n")
