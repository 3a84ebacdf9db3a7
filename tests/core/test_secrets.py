"""API keys: where they are found, and that nothing ever shows one."""

from __future__ import annotations

import base64
import itertools
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tasks.core.config.settings import ModelConfig
from tasks.core.errors import ConfigError, UsageError
from tasks.core.secrets import (
    Keys,
    is_key_of,
    masked,
    may_be_read,
    read_env_file,
    variables_of,
    without_secrets,
)

if TYPE_CHECKING:
    from pathlib import Path


def model(url: str = "https://api.openai.com/v1", **settings: Any) -> ModelConfig:
    return ModelConfig(base_url=url, model_name="m", **settings)


def value(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def env_problems(path: Path, text: str) -> list[str]:
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_env_file(path, required=False)
    assert caught.value.source == str(path)
    return [str(problem) for problem in caught.value.problems]


def test_an_env_file_is_read_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(
        "# keys\nexport OPENAI_API_KEY=sk-1\nAPI_KEY='a # b'\n\nEMPTY=\n"
        "DOLLAR=$API_KEY ${API_KEY}\nAPI_KEY=last\n"
    )
    assert read_env_file(path, required=True) == {
        "OPENAI_API_KEY": "sk-1",
        "API_KEY": "last",
        "EMPTY": "",
        "DOLLAR": "$API_KEY ${API_KEY}",
    }


def test_only_an_env_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    assert read_env_file(tmp_path / ".env", required=False) == {}
    with pytest.raises(UsageError, match="does not exist"):
        read_env_file(tmp_path / ".env", required=True)
    with pytest.raises(UsageError, match="is a folder"):
        read_env_file(tmp_path, required=False)


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "LD_PRELOAD", "LD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES", "HOME"),
        *("USER", "SHELL", "TMPDIR", "TMP", "TEMP"),
    ],
)
def test_an_env_file_does_not_decide_what_is_run(name: str, tmp_path: Path) -> None:
    (found,) = env_problems(tmp_path / ".env", f"API_KEY=x\n{name}=/hidden\n")
    assert found.startswith(f"{name}: ")
    assert "hidden" not in found


def test_malformed_lines_are_numbered_and_not_shown(tmp_path: Path) -> None:
    text = 'API_KEY=x\n\n\nsk-hidden\nA="hidden\nB = ok\nC hidden=1\n'
    assert env_problems(tmp_path / ".env", text) == [
        "line 4 is not of the form NAME=value",
        "line 5 is not of the form NAME=value",
        "line 7 is not of the form NAME=value",
    ]


def test_an_env_file_that_is_not_text_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(b"API_KEY=hidden\nX=\xff\n")
    with pytest.raises(ConfigError, match="line 2") as caught:
        read_env_file(path, required=True)
    assert "hidden" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.openai.com/v1", "OPENAI_API_KEY"),
        ("https://integrate.api.nvidia.com/v1", "NVIDIA_API_KEY"),
        ("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
        ("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
        ("https://llm.chutes.ai/v1", "CHUTES_API_KEY"),
        ("https://ai.nahcrof.com/v2", "NAHCROF_API_KEY"),
        ("http://127.0.0.1:8000/v1", "API_KEY"),
        ("https://evil.com/openai.com", "API_KEY"),
    ],
)
def test_a_model_gets_the_key_of_its_provider(url: str, name: str) -> None:
    everything = {
        variable: f"value of {variable}"
        for variable in (
            *("OPENAI_API_KEY", "NVIDIA_API_KEY", "ANTHROPIC_API_KEY", "TOGETHER_API_KEY"),
            *("CHUTES_API_KEY", "NAHCROF_API_KEY", "API_KEY"),
        )
    }
    assert value(Keys(everything, {}).for_model(model(url))) == f"value of {name}"
    assert value(Keys({"API_KEY": "generic"}, {}).for_model(model(url))) == "generic"
    assert Keys({}, {}).for_model(model(url)) is None


def test_the_environment_wins_and_empty_is_unset() -> None:
    url = "https://api.openai.com/v1"
    assert value(Keys({"OPENAI_API_KEY": "a"}, {"OPENAI_API_KEY": "b"}).for_model(model(url))) == "a"
    assert value(Keys({"OPENAI_API_KEY": ""}, {"OPENAI_API_KEY": "b"}).for_model(model(url))) == "b"
    assert value(Keys({"OPENAI_API_KEY": "", "API_KEY": "g"}, {}).for_model(model(url))) == "g"


def test_a_model_that_names_a_variable_gets_its_key_and_no_other() -> None:
    named = model(api_key_env="MY_KEY")
    others = {"OPENAI_API_KEY": "hidden", "API_KEY": "hidden"}
    assert value(Keys(others | {"MY_KEY": "mine"}, {}).for_model(named)) == "mine"
    assert value(Keys(others, {"MY_KEY": "mine"}).for_model(named)) == "mine"
    for environ in (others, others | {"MY_KEY": ""}):
        with pytest.raises(UsageError, match="api_key_env of m names MY_KEY, which neither") as caught:
            Keys(environ, {}).for_model(named)
        assert "hidden" not in str(caught.value)


def test_a_model_that_names_a_block_gets_its_key_and_no_other() -> None:
    named = model(api_key_block="my-key")
    others = {"OPENAI_API_KEY": "hidden", "API_KEY": "hidden"}
    keys = Keys(others, {}, {"my-key": SecretStr("mine"), "bad": SecretStr("hid\nden")})
    assert value(keys.for_model(named)) == "mine"
    with pytest.raises(UsageError, match="names other, which holds no key"):
        keys.for_model(model(api_key_block="other"))
    with pytest.raises(UsageError, match="the Prefect block bad holds a line break") as caught:
        keys.for_model(model(api_key_block="bad"))
    assert "hid" not in str(caught.value)
    assert "hid" not in repr(vars(keys))


def test_headers_take_their_values_from_the_environment() -> None:
    headers = {"X-Title": "tides", "api-key": "${A_KEY}", "X-Both": "a ${A_KEY}${B} b ${B}"}
    found = Keys({"A_KEY": "one"}, {"A_KEY": "older", "B": "$A_KEY ${A_KEY}"}).headers_for(
        model(headers=headers)
    )
    assert {name: value(text) for name, text in found.items()} == {
        "X-Title": "tides",
        "api-key": "one",
        "X-Both": "a one$A_KEY ${A_KEY} b $A_KEY ${A_KEY}",
    }
    assert "one" not in str(found)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "headers of m names A_KEY, which neither the environment nor the env file sets"),
        ({"A_KEY": ""}, "headers of m names A_KEY, which neither"),
        ({"A_KEY": "hidden\r\nX-Other: 1"}, "A_KEY holds a line break"),
    ],
)
def test_headers_that_cannot_be_filled_in(environ: dict[str, str], expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        Keys(environ, {}).headers_for(model(headers={"X-A": "${A_KEY}"}))
    assert "hidden" not in str(caught.value)


def test_the_variables_of_a_key_are_named() -> None:
    assert variables_of(model()) == ("OPENAI_API_KEY", "API_KEY")
    assert variables_of(model("http://127.0.0.1:8000/v1")) == ("API_KEY",)
    assert variables_of(model(api_key_env="MY_KEY")) == ("MY_KEY",)
    assert variables_of(model(api_key_block="my-key")) == ()
    keys = Keys({"OPENAI_API_KEY": "", "API_KEY": "a"}, {"NVIDIA_API_KEY": "b"})
    assert keys.origin_of(model()) == "API_KEY"
    assert keys.origin_of(model("https://integrate.api.nvidia.com/v1")) == "NVIDIA_API_KEY"
    assert keys.origin_of(model(api_key_env="MY_KEY")) == ""
    assert keys.origin_of(model(api_key_block="my-key")) == "block my-key"


@pytest.mark.parametrize("name", ["HUGGING_FACE_TOKEN", "HUGGINGFACE_TOKEN", "HF_TOKEN"])
def test_the_hub_token_has_three_names(name: str) -> None:
    assert value(Keys({}, {name: "hf"}).hub_token()) == "hf"
    assert Keys({name: ""}, {}).hub_token() is None


@given(st.text(alphabet=st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=12))
def test_a_key_is_never_shown(secret: str) -> None:
    keys = Keys({"OPENAI_API_KEY": secret, "HF_TOKEN": secret}, {"API_KEY": secret})
    found = keys.for_model(model("https://api.openai.com/v1"))
    assert value(found) == secret
    assert repr(keys) == "Keys(OPENAI_API_KEY, API_KEY, HF_TOKEN)"
    assert "**" in str(found)


KEYS = st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=12, max_size=60)
AROUND = st.binary(max_size=8)


@given(KEYS, AROUND, AROUND)
def test_a_key_in_base64_is_masked_whatever_stands_around_it(key: str, before: bytes, after: bytes) -> None:
    code = base64.b64encode(before + key.encode() + after).decode()
    in_urls = code.replace("+", "-").replace("/", "_")
    for text in (code, in_urls, quote(code, safe=""), json.dumps(code).replace("/", "\\/")):
        left = masked(f"you sent {text}", (key,))
        assert "***" in left
        # What is left is of the neighbours, with some bits of the first and the last character.
        assert len(left) <= len(f"you sent ***{text}") - 4 * (len(key) - 2) // 3


@given(
    KEYS,
    st.lists(st.sampled_from(["%{:02x}", "%{:02X}", "%25{:02x}", "\\u{:04x}", "\\\\u{:04X}"]), min_size=1),
)
def test_a_key_that_is_escaped_is_masked(key: str, forms: list[str]) -> None:
    whole = "".join(form.format(ord(each)) for each, form in zip(key, itertools.cycle(forms), strict=False))
    for text in (whole, quote(key), quote(quote(key, safe=""), safe=""), json.dumps(key).replace("/", "\\/")):
        assert key not in unquote(unquote(masked(f"a {text} b", (key,))))
    assert masked(f"a {whole} b", (key,)) == "a *** b"


def test_what_holds_no_key_stays_as_it_is() -> None:
    for text in ("100%25 of \\u0041 \\/ %41%zz", "", "c2stdmVyeQ=="):
        assert masked(text, ("sk-very-secret-0123456789", "abc")) is text


def test_the_words_of_others_are_shown_without_secrets() -> None:
    environ = {
        "AWS_SECRET_ACCESS_KEY": "hid/den+1",
        "SOME_TOKEN": "hid/den+1234",
        "HOME": "/home",
        "KEY": "at",
    }
    words = (
        "cannot PUT https://me:hidden@host/path?X-Signature=hidden&a=b with hid/den+1234, hid/den+1 at /home"
    )
    assert without_secrets(words, environ) == "cannot PUT https://***@host/path?*** with ***, *** at /home"
    assert without_secrets("what? //no/user@here", {}) == "what? //no/user@here"


@pytest.mark.parametrize("bad", ["hidden\n", "hid\rden", "hidden\x00", "hidden\u00e9", "\u201chidden\u201d"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(bad: str) -> None:
    keys = Keys({"API_KEY": bad, "HF_TOKEN": bad}, {})
    with pytest.raises(UsageError, match=r"^API_KEY holds") as caught:
        keys.for_model(model("http://127.0.0.1/v1"))
    with pytest.raises(UsageError, match=r"^HF_TOKEN holds"):
        keys.hub_token()
    assert "hid" not in str(caught.value)


MODELS_KEYS = ("API_KEY", "OPENAI_API_KEY", "VLLM_KEY", "OUR_SERVER_TOKEN", "openrouter_api_key", "TOKEN")
OTHERS = (
    *("AWS_SECRET_ACCESS_KEY", "AWS_BEARER_TOKEN", "AZURE_OPENAI_API_KEY", "GOOGLE_API_KEY", "GCP_KEY"),
    *("HF_TOKEN", "HUGGINGFACE_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN", "hf_token"),
    *("DATABASE_URL", "DATABASE_KEY", "PGPASSWORD", "POSTGRES_PASSWORD", "PREFECT_API_KEY", "GITHUB_TOKEN"),
    *("SECRET_KEY", "DJANGO_SECRET_KEY", "SSH_KEY", "SSH_PRIVATE_KEY", "R2_ACCESS_KEY", "MONKEY", "KEYS"),
    *("PATH", "HOME", "", "OPENAI_API_KEY_FILE"),
)


@pytest.mark.parametrize(("names", "allowed"), [(MODELS_KEYS, True), (OTHERS, False)])
def test_without_a_word_of_the_worker_variables_named_like_models_keys_are_read(
    names: tuple[str, ...],
    allowed: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    assert [name for name in names if may_be_read(name, {}) is not allowed] == []


def test_a_pattern_of_the_worker_stands_in_place_of_that() -> None:
    environ = {"VELLUMFORGE__SECRETS__ALLOWED": "OPENAI_*, MY_KEY ,AWS_BEARER_TOKEN_BEDROCK"}
    allowed = [name for name in (*MODELS_KEYS, *OTHERS, "MY_KEY", "my_key") if may_be_read(name, environ)]
    assert allowed == ["OPENAI_API_KEY", "OPENAI_API_KEY_FILE", "MY_KEY"]
    assert may_be_read("AWS_BEARER_TOKEN_BEDROCK", environ)
    assert not may_be_read("OPENAI_API_KEY", {"VELLUMFORGE__SECRETS__ALLOWED": ""})


@pytest.mark.parametrize(
    ("name", "url", "expected"),
    [
        ("OPENAI_API_KEY", "https://api.openai.com/v1", True),
        ("API_KEY", "https://api.openai.com/v1", True),
        ("OPENAI_API_KEY", "https://api.openai.com.evil.example/v1", False),
        ("OPENAI_API_KEY", "https://openai.example/v1", False),
        ("OPENAI_API_KEY", "http://127.0.0.1:8000/v1", False),
        ("NVIDIA_API_KEY", "https://api.openai.com/v1", False),
        ("MISTRAL_API_KEY", "https://api.mistral.ai/v1", True),
        ("MISTRAL_API_KEY", "https://mistral.evil.example/v1", False),
        ("EXAMPLE_TOKEN", "https://api.example.co.uk/v1", True),
        ("MY_LAB_KEY", "https://llm.my-lab.org/v1", True),
        ("API_KEY", "http://127.0.0.1:8000/v1", True),
        ("ANY_API_KEY", "http://[::1]:8000/v1", False),
        ("LOCALHOST_KEY", "http://localhost:8000/v1", True),
        ("AWS_SECRET_ACCESS_KEY", "https://bedrock.aws.com/v1", False),
        ("HF_TOKEN", "https://router.hf.co/v1", False),
    ],
)
def test_a_key_is_of_a_provider_by_its_name(name: str, url: str, *, expected: bool) -> None:
    assert is_key_of(name, url) is expected


def test_what_may_not_be_read_is_refused_where_it_is_named_and_else_not_there() -> None:
    keys = Keys({"API_KEY": "k1", "A_KEY": "k2"}, {}, may_read=lambda name, url: name == url)
    assert keys.for_model(model()) is None
    assert keys.origin_of(model()) == ""
    for named in ({"api_key_env": "A_KEY"}, {"headers": {"X-A": "${A_KEY}"}}):
        with pytest.raises(UsageError, match="names A_KEY, which may not be read") as raised:
            (keys.headers_for if "headers" in named else keys.for_model)(model(**named))
        assert "VELLUMFORGE__SECRETS__ALLOWED" in str(raised.value)
