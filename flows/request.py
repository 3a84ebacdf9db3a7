"""What a run or a transform is asked to do: the one home of every option.

The command line makes options of these fields, a flow its parameters, and the message that says how to go on
prints them. Neither Prefect nor the pipeline is imported for it.
"""

from __future__ import annotations

import functools
import inspect
import json
import shlex
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import date, time
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast, get_type_hints

import tomli
from cyclopts import Parameter

from flows.process.terminal import PROGRAM
from tasks.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from dataclasses import Field

    from cyclopts import Token

Result = TypeVar("Result")

OUTPUT_FOLDER = "output.folder"
PROMPTS = "input.prompts"
SKIP_BAD = "input.skip_bad"
COLLECTIONS = {tuple[str, ...]: list[str] | None, dict[str, Any]: dict[str, Any] | None}
"""What Prefect's form sends for a collection: a list or an object, and null for an empty field."""


def read_override(item: str) -> tuple[str, Any]:
    """A `KEY=VALUE` as key and value: the value as TOML, and where it is none, as text.

    Raises:
        UsageError: There is no `=`, or nothing before it.
    """
    key, separator, text = item.partition("=")
    if not separator or not key.strip():
        raise UsageError(f"--set {item}: give a setting as KEY=VALUE, e.g. generation.concurrency=64")
    return key.strip(), _value(text)


def write_override(key: str, value: Any) -> str:
    """The `KEY=VALUE` that means this setting; text stands as it is unless it would be read otherwise."""
    if isinstance(value, str) and _value(value) == value:
        return f"{key}={value}"
    return f"{key}={_as_toml(value)}"


def _as_toml(value: Any) -> str:
    """A value as TOML has it on one line."""
    if isinstance(value, dict):
        pairs = (f"{_as_toml(str(name))} = {_as_toml(entry)}" for name, entry in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_as_toml, value))}]"
    if isinstance(value, date | time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, float):
        return repr(value)
    # What is left is written as in JSON.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(text: str) -> Any:
    try:
        document = tomli.loads(f"value = {text}")
    except (ValueError, RecursionError):  # no TOML, a number too long, values nested too deeply
        return text
    # A line break in the text may have begun something else.
    return document["value"] if len(document) == 1 else text


def _read_overrides(_type: Any, tokens: Sequence[Token] | dict[str, Any]) -> dict[str, Any]:
    # A table where a key follows the option: --set.key=value.
    if isinstance(tokens, dict):
        raise UsageError("--set: give a setting as KEY=VALUE, e.g. --set generation.concurrency=64")
    return dict(read_override(token.value) for token in tokens)


def _read_folder(_type: Any, tokens: Sequence[Token]) -> str:
    folder = tokens[0].value
    if not folder:
        # What a variable of the shell leaves that is not set: it would mean the folder of the settings.
        raise UsageError("--output: the name of the folder is empty")
    return folder


Overrides = Annotated[
    dict[str, Any], Parameter(name="--set", converter=_read_overrides, n_tokens=-1, accepts_keys=False)
]


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """Which configuration file is read.

    Attributes:
        config: The configuration file; config.toml when left out.
    """

    config: str = ""


@dataclass(frozen=True, kw_only=True)
class OutputFolder:
    """Which output folder is used.

    Attributes:
        output: The output folder, in place of output.folder.
    """

    output: Annotated[str, Parameter(converter=_read_folder)] = ""


@dataclass(frozen=True, kw_only=True)
class EnvFile:
    """Where keys and tokens are.

    Attributes:
        env_file: A file with API keys and HF_TOKEN; without it, .env is read when there is one.
    """

    env_file: str = ""


@dataclass(frozen=True, kw_only=True)
class Location(OutputFolder, ConfigFile):
    """Where sessions and their ledger are."""


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Whether the settings of somebody else are followed.

    Attributes:
        trust_session: Follow the settings of a session that came from elsewhere where no configuration here
            says the same: its endpoints, keys and places. Without this, they are listed, and nothing is done.
    """

    trust_session: bool = False


@dataclass(frozen=True, kw_only=True)
class KeyedLocation(Trust, EnvFile, Location):
    """Where sessions, their ledger and a token are."""

    def trusting(self, *head: str) -> str:
        """The command with these words, with trust in its session."""
        return _command(head, replace(self, trust_session=True), KeyedLocation)


@dataclass(frozen=True, kw_only=True)
class ConfigSettings(ConfigFile):
    """A configuration, with what lies over it.

    Attributes:
        overrides: Single settings by dotted key, which win over all others; on the command line KEY=VALUE,
            e.g. generation.concurrency=64, as often as there are settings.
    """

    overrides: Overrides = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that win over file and environment, by dotted key."""
        return dict(self.overrides)


@dataclass(frozen=True, kw_only=True)
class ConfigRequest(EnvFile, ConfigSettings):
    """A configuration, with the keys and what lies over it."""


@dataclass(frozen=True, kw_only=True)
class LocatedSettings(OutputFolder, ConfigSettings):
    """A configuration, with the output folder and the prompts that it is used with.

    Attributes:
        prompts: A file of prompts of one's own, in place of input.prompts: .txt, .jsonl, .json, .csv or
            .parquet, each also with .gz. They are answered, and none are written.
        skip_bad: Leave lines out of it that are no prompts.
    """

    prompts: str = ""
    skip_bad: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that win over file and environment, by dotted key."""
        given = {OUTPUT_FOLDER: self.output, PROMPTS: self.prompts, SKIP_BAD: self.skip_bad}
        return {**self.overrides, **{key: value for key, value in given.items() if value}}


@dataclass(frozen=True, kw_only=True)
class LocatedRequest(LocatedSettings, ConfigRequest):
    """The same, with the keys."""


@dataclass(frozen=True, kw_only=True)
class SessionRequest(Trust, LocatedRequest):
    """A session, with the configuration and the output folder that it is used with."""


@dataclass(frozen=True, kw_only=True)
class ResumeRequest(SessionRequest):
    """How a session is resumed.

    Attributes:
        accept_changes: Resume a session although settings differ that change the outcome.
    """

    accept_changes: bool = False


@dataclass(frozen=True, kw_only=True)
class FlowRequest(ResumeRequest):
    """What the flow `generate` is asked to do.

    Attributes:
        resume: The session to resume, in its own folder; where there is no configuration file, with the
            settings that it began with.
        only: Which of its failures are asked again, each as cause=NAME, phase=NAME or purpose=NAME; left out,
            all that is missing.
        further: Where all that the session is missing are answers that cannot be used, ask for further ones,
            beyond those that max_retries allows.
        fresh: Ask for other answers to the same questions; all of them are paid for.
    """

    resume: str = ""
    only: Annotated[tuple[str, ...], Parameter(parse=False)] = ()
    further: Annotated[bool, Parameter(parse=False)] = False
    fresh: bool = False

    def trusting(self) -> str:
        """The command that asks for the same with trust in the session that is resumed."""
        trusted = replace(self, trust_session=True)
        if self.only or self.further:
            return trusted.retried()
        plain = replace(trusted, resume="")
        if plain == type(self)(**{each.name: getattr(plain, each.name) for each in fields(ResumeRequest)}):
            return _command(["checkpoint", "resume", self.resume], trusted, ResumeRequest)
        return _command(["run"], trusted)

    def retried(self) -> str:
        """The command `retry` that asks for the same."""
        head = ["retry", self.resume, *(word for one in self.only for word in ("--only", one))]
        return _command(head, self, ResumeRequest)


@dataclass(frozen=True, kw_only=True)
class RunRequest(FlowRequest):
    """What a run in this process is asked to do.

    Attributes:
        demo: Generate a small dataset with a model server of our own: no key, no network, no file.
        upload_to_hf: Upload the dataset to the Hugging Face Hub once it is complete, like the command upload.
        repo: Its repository there, as OWNER/NAME; huggingface.repo_id when left out.
        public: Make that repository for everybody to see.
    """

    demo: bool = False
    upload_to_hf: bool = False
    repo: str = ""
    public: bool = False

    def parameters(self) -> dict[str, Any]:
        """The flow's parameters."""
        # The demo's settings are given whole.
        return _parameters(replace(self, overrides={}, output="") if self.demo else self, FlowRequest)

    def again(self, session: str, *, further: bool = False) -> str:
        """The command that goes on with a session, or runs the same again when there is none yet.

        Args:
            session: The session's name, or "".
            further: Whether it asks for further samples of answers that cannot be used.
        """
        if self.demo and session:
            return _command(["run"], replace(self, resume=session, fresh=False, accept_changes=False))
        if not session and self.resume and (self.only or self.further):
            return self.retried()
        if not session:
            return _command(["run"], self)
        head = ["retry", session] if further else ["checkpoint", "resume", session]
        return _command(head, self, SessionRequest)


@dataclass(frozen=True, kw_only=True)
class CleanRequest(Location):
    """Which sessions are removed.

    Attributes:
        older_than: Only sessions whose files did not change for so long: 45m, 12h, 30d, 2w; left out, any
            age, and then keep_last must be given.
        keep_last: So many of the newest sessions stay, whatever their age.
        dry_run: Only say which sessions would be removed.
        force: Remove sessions that are not finished, too; never one that is being written to.
    """

    older_than: str = ""
    keep_last: int = 0
    dry_run: bool = False
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class TransformRequest(ConfigRequest):
    """What a transform is asked to do.

    Attributes:
        mode: sft-to-dpo, regen-rejected, regen-chosen, rejudge or add-reasoning.
        output: The file of rows that is written.
        input_file: The rows: JSONL or Parquet, of this program, VellumForge2 or TRL.
        input_reasoning: The same rows with reasoning in their answers; on their own, all that is read.
        output_reasoning: The file of rows with reasoning that is written.
        skip_bad: Leave lines out that are no rows, and list them in the session's folder.
    """

    mode: str
    output: str
    input_file: Annotated[str, Parameter(name="--input")] = ""
    input_reasoning: str = ""
    output_reasoning: str = ""
    skip_bad: bool = False

    @property
    def demo(self) -> bool:
        """A transform has no demo."""
        return False

    def parameters(self) -> dict[str, Any]:
        """The flow's parameters."""
        return _parameters(self, TransformRequest)

    def command(self) -> str:
        """The command line, with which the transform goes on."""
        return _command(["transform"], self)

    def again(self, _session: str, *, further: bool = False) -> str:  # noqa: ARG002 - it has no session
        """The same command: what was paid for is in the ledger."""
        return self.command()


def takes(request: type[Any], *first: str) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Make the fields of a request the parameters of a function that takes the request, for Prefect.

    Args:
        request: The request's class. Its function takes it first, and may take more by name.
        first: The parameters that stand first on Prefect's form; then come the request's own, then those of
            its bases.
    """

    def made(function: Callable[..., Result]) -> Callable[..., Result]:
        signature = inspect.signature(function, eval_str=True)
        own = list(signature.parameters.values())[1:]
        names = {parameter.name for parameter in own}

        def call(given: dict[str, Any]) -> Result:
            # Prefect's form sends null for what is left empty, and lists.
            asked = {name: value for name, value in given.items() if name not in names and value is not None}
            collections = {name: tuple(value) for name, value in asked.items() if isinstance(value, list)}
            rest = {name: value for name, value in given.items() if name in names}
            return function(request(**{**asked, **collections}), **rest)

        @functools.wraps(function)
        def flow(**given: Any) -> Result:
            return call(given)

        @functools.wraps(function)
        async def waiting_flow(**given: Any) -> Any:
            return await cast("Awaitable[Any]", call(given))

        found: Any = waiting_flow if inspect.iscoroutinefunction(function) else flow
        del found.__wrapped__  # Prefect looks at the flow's own signature
        parameters = sorted(
            [*_as_parameters(request), *own],
            key=lambda each: first.index(each.name) if each.name in first else len(first),
        )
        found.__signature__ = signature.replace(parameters=parameters)
        found.__doc__ = _described(function, request)
        return cast("Callable[..., Result]", found)

    return made


def _as_parameters(request: type[Any]) -> Iterable[inspect.Parameter]:
    hints = get_type_hints(request)
    names = [name for each in request.__mro__ for name in vars(each).get("__annotations__", ())]
    for each in sorted(fields(request), key=lambda found: names.index(found.name)):
        annotation = COLLECTIONS.get(hints[each.name], hints[each.name])
        default = each.default if annotation is hints[each.name] else None
        yield inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=annotation,
            default=inspect.Parameter.empty if _is_required(each) else default,
        )


def _described(function: Callable[..., Any], request: type[Any]) -> str:
    """A function's docstring with the fields of its request among the arguments."""
    found = [
        (inspect.getdoc(each) or "").partition("Attributes:\n")[2].rstrip()
        for each in reversed(request.__mro__)
        if "Attributes:\n" in (each.__doc__ or "")
    ]
    before, arguments, after = (inspect.getdoc(function) or "").partition("Args:\n")
    if not arguments:
        before, _, after = before.partition("Returns:\n")
        after = f"\nReturns:\n{after}"
    return f"{before}Args:\n" + "\n".join([*found, after])


def _parameters(request: Any, kind: type[Any]) -> dict[str, Any]:
    """The parameters of the flow that takes a request of this kind."""
    found = {each.name: getattr(request, each.name) for each in fields(kind)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def _command(head: Sequence[str], request: Any, kind: type[Any] | None = None) -> str:
    """The command line that asks for what a request asks for.

    Args:
        head: The command's words.
        request: The request.
        kind: Its base that holds the fields which the command takes; None for all of them.
    """
    words = [PROGRAM, *head]
    hints = get_type_hints(kind or type(request), include_extras=True)
    # What a command cannot do without stands first.
    for each in sorted(fields(kind or type(request)), key=lambda found: not _is_required(found)):
        value = getattr(request, each.name)
        option = _option(each.name, hints[each.name])
        if option is None or value in (each.default, ()):
            continue
        if isinstance(value, dict):
            for key, setting in value.items():
                words += [option, write_override(key, setting)]
        else:
            text = str(value)
            given = [f"{option}={text}"] if text.startswith("-") else [option, text]
            words += [option] if value is True else given
    return shlex.join(words)


def _is_required(each: Field[Any]) -> bool:
    return each.default is MISSING and each.default_factory is MISSING


def _option(name: str, hint: Any) -> str | None:
    """The option of a field; None for one that has none."""
    for each in getattr(hint, "__metadata__", ()):
        if each.parse is False:
            return None
        if each.name:
            return str(each.name[0])
    return f"--{name.replace('_', '-')}"


Json = Annotated[bool, Parameter(help="Print one JSON object.")]
Verbose = Annotated[bool, Parameter(name=("--verbose", "-v"), help="Show the log's records of level INFO.")]
DryRun = Annotated[bool, Parameter(help="Make nothing, and print what it would cost.")]
Session = Annotated[str, Parameter(help="The session's name, as the list shows it.")]

FIELDS = Parameter(name="*")
"""The fields of a request are options of their own."""

AtLocation = Annotated[Location, FIELDS]
AtKeyedLocation = Annotated[KeyedLocation, FIELDS]
AtSettings = Annotated[LocatedSettings, FIELDS]
AtLocated = Annotated[LocatedRequest, FIELDS]
AtResume = Annotated[ResumeRequest, FIELDS]

HERE = Location()
WITH_KEYS = KeyedLocation()
AS_SET = LocatedSettings()
AS_CONFIGURED = LocatedRequest()
AS_BEGUN = ResumeRequest()
