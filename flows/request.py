"""What a run or a transform is asked to do, as it is given; checked, it can be carried out."""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.checking import DEFAULT_CONFIG, check_request, take_keys
from flows.hub import at_the_end
from flows.overrides import write_override
from flows.process.demo import DEMO_PORT, demo_settings
from flows.process.terminal import PROGRAM
from flows.setup import check_ledger
from tasks.core.config.load import load_config
from tasks.core.errors import UsageError
from tasks.core.rows.transformed import find_mode
from tasks.core.transform.reading import Source, check_input
from tasks.core.transform.session import DATASET, REASONING, check_outputs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from pydantic import SecretStr

    from flows.checking import CheckedRequest
    from flows.hub import HubRequest
    from flows.process.run import AtTheEnd
    from tasks.core.config.settings import Config
    from tasks.core.secrets import Keys
    from tasks.core.transform.reading import FirstPass

    Blocks = Callable[[Collection[str]], Awaitable[Mapping[str, SecretStr]]]


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What the command line asks for.

    Attributes:
        config: Path of the configuration file; None for `config.toml`, and where there is none, for the
            settings that a resumed session began with.
        env_file: Path of the file with API keys, or None for `.env` where there is one.
        overrides: Settings by dotted key that win over file and environment.
        fresh: Whether a new seed is drawn.
        demo: Whether the demo's model server and settings are used; then no file is read.
        resume: Name of the session to resume, or "".
        accept_changes: Whether it is resumed although settings differ.
        hub: Where the finished dataset is uploaded to; None for nowhere.
        only: Which failures of that session are asked again; empty for all that is missing.
        further: Whether further samples are asked for where only answers are missing that cannot be used.
    """

    config: str | None = None
    env_file: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    fresh: bool = False
    demo: bool = False
    resume: str = ""
    accept_changes: bool = False
    hub: HubRequest | None = None
    only: tuple[str, ...] = ()
    further: bool = False

    async def check(self) -> CheckedRequest:
        """The request, read and checked: what the flow does too, before anything is created.

        Raises:
            UsageError: Something given cannot be used.
        """
        settings = demo_settings(f"http://127.0.0.1:{DEMO_PORT}/v1", self.overrides) if self.demo else None
        return await check_request(self.config, settings, **self._common())

    async def prepared(self) -> tuple[Path, AtTheEnd | None]:
        """The output folder, and the upload that follows where one is asked for.

        Raises:
            UsageError: Something given cannot be used, or there is no token for the upload.
        """
        checked = await self.check()
        await check_ledger(checked)
        upload = None
        if self.hub is not None:
            upload = at_the_end(
                self.hub,
                checked.config,
                config_file=self.config,
                env_file=self.env_file,
                overrides=self.overrides,
            )
        return Path(checked.config.output.folder), upload

    def again(self, session: str, *, further: bool = False) -> str:
        """The command that goes on with the same session, or runs the same again when there is none yet."""
        if further and session and not self.demo:
            words = [PROGRAM, "retry", session]
        elif self.demo or not session:
            words = [PROGRAM, "run", *(["--demo"] if self.demo else [])]
            words += ["--resume", session] if session else []
        else:
            words = [PROGRAM, "checkpoint", "resume", session]
        if self.config is not None and not self.demo:
            words += ["--config", self.config]
        if self.env_file is not None:
            words += ["--env-file", self.env_file]
        for key, value in self.overrides.items():
            words += ["--set", write_override(key, value)]
        return shlex.join(words)

    def parameters(self) -> dict[str, Any]:
        """The flow's parameters."""
        return {"config": self.config or "", **self._common()}

    def _common(self) -> dict[str, Any]:
        return {
            "env_file": self.env_file or "",
            "overrides": {} if self.demo else dict(self.overrides),
            "fresh": self.fresh,
            "resume": self.resume,
            "accept_changes": self.accept_changes,
            "only": list(self.only),
            "further": self.further,
        }


@dataclass(frozen=True, slots=True)
class CheckedTransform:
    """What is to be transformed, checked, with the secrets that it needs.

    Attributes:
        config: The configuration, with the settings of the mode.
        keys: The API keys.
        source: The input.
        first_pass: What a first pass over it found.
        outputs: The session's files that are handed out in the end, and where.
    """

    config: Config
    keys: Keys
    source: Source
    first_pass: FirstPass
    outputs: list[tuple[str, Path]]


@dataclass(frozen=True, slots=True)
class TransformRequest:
    """What the command line asks for; `mode` and files as they were given, "" for those that were not."""

    mode: str
    output: str
    input: str = ""
    input_reasoning: str = ""
    output_reasoning: str = ""
    skip_bad: bool = False
    config: str | None = None
    env_file: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    demo: bool = False

    async def check(self, blocks: Blocks | None = None) -> CheckedTransform:
        """The request, read and checked; the input is read once for that.

        Args:
            blocks: Reads Prefect's Secret blocks; None where Prefect cannot be asked yet.

        Raises:
            UsageError: Something given cannot be used, or lines of the input are bad.
        """
        mode = find_mode(self.mode)
        if not self.input and not self.input_reasoning:
            raise UsageError("give the rows with --input, or rows with reasoning with --input-reasoning")
        if self.config is None and not _exists(DEFAULT_CONFIG):
            raise UsageError(
                f"there is no {DEFAULT_CONFIG}; to begin: cp config.example.toml {DEFAULT_CONFIG}"
            )
        settings = {**self.overrides, **mode.settings}
        config = load_config(Path(self.config or DEFAULT_CONFIG), overrides=settings).config
        keys = await take_keys(config, self.env_file, blocks)
        plain, reasoning = (Path(name) if name else None for name in (self.input, self.input_reasoning))
        source = Source(mode, plain, reasoning)
        outputs = self._outputs()
        check_outputs([path for _, path in outputs], source.files)
        checked = await asyncio.to_thread(check_input, source, skip_bad=self.skip_bad)
        return CheckedTransform(config, keys, source, checked, outputs)

    def _outputs(self) -> list[tuple[str, Path]]:
        # Rows without it would be those that were given.
        reasoned = self.mode == "add-reasoning" and not self.output_reasoning
        found = [(REASONING if reasoned else DATASET, Path(self.output))]
        return [*found, (REASONING, Path(self.output_reasoning))] if self.output_reasoning else found

    async def prepared(self) -> tuple[Path, None]:
        """The output folder, once nothing speaks against the transform; nothing follows it.

        Raises:
            UsageError: Something does.
        """
        return Path((await self.check()).config.output.folder), None

    def parameters(self) -> dict[str, Any]:
        """The flow's parameters."""
        return {
            "mode": self.mode,
            "output": self.output,
            "input_file": self.input,
            "input_reasoning": self.input_reasoning,
            "output_reasoning": self.output_reasoning,
            "skip_bad": self.skip_bad,
            "config": self.config or "",
            "env_file": self.env_file or "",
            "overrides": dict(self.overrides),
        }

    def command(self) -> str:
        """The command line, with which the transform goes on."""
        words = [PROGRAM, "transform", "--mode", self.mode]
        given = {
            "--input": self.input,
            "--output": self.output,
            "--input-reasoning": self.input_reasoning,
            "--output-reasoning": self.output_reasoning,
            "--config": self.config,
            "--env-file": self.env_file,
        }
        for name, value in given.items():
            words += [name, value] if value else []
        words += ["--skip-bad"] if self.skip_bad else []
        for key, value in self.overrides.items():
            words += ["--set", write_override(key, value)]
        return shlex.join(words)

    def again(self, _session: str, *, further: bool = False) -> str:  # noqa: ARG002 - it has no session
        """The same command: what was paid for is in the ledger."""
        return self.command()


def _exists(path: str) -> bool:
    return Path(path).exists()
