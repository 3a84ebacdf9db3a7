"""The command `vellumforge2 transform`: what it is given, and what it would cost."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from flows.overrides import read_override, write_override
from flows.terminal import PROGRAM, show_json, show_summary

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from pydantic import SecretStr

    from tasks.core.config.models import Config
    from tasks.core.secrets import Keys
    from tasks.core.transform.reading import Checked, Source

    Blocks = Callable[[Collection[str]], Awaitable[Mapping[str, SecretStr]]]


@dataclass(frozen=True, slots=True)
class TransformOrder:
    """What is to be transformed, checked, with the secrets that it needs.

    Attributes:
        config: The configuration, with the settings of the mode.
        keys: The API keys.
        source: The input.
        checked: What a first pass over it found.
        outputs: The session's files that are handed out in the end, and where.
    """

    config: Config
    keys: Keys
    source: Source
    checked: Checked
    outputs: list[tuple[str, Path]]


@dataclass(frozen=True, slots=True)
class TransformWish:
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

    async def order(self, blocks: Blocks | None = None) -> TransformOrder:
        """The wish, read and checked; the input is read once for that.

        Args:
            blocks: Reads Prefect's Secret blocks; None where Prefect cannot be asked yet.

        Raises:
            UsageError: Something given cannot be used, or lines of the input are bad.
        """
        import asyncio  # noqa: PLC0415 - help is there at once

        from flows.order import DEFAULT_CONFIG, take_keys  # noqa: PLC0415 - the same
        from tasks.core.config.load import load_config  # noqa: PLC0415 - the same
        from tasks.core.errors import UsageError  # noqa: PLC0415 - the same
        from tasks.core.transform.modes import find_mode  # noqa: PLC0415 - the same
        from tasks.core.transform.reading import Source, check_input  # noqa: PLC0415 - the same
        from tasks.core.transform.session import check_outputs  # noqa: PLC0415 - the same

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
        return TransformOrder(config, keys, source, checked, outputs)

    def _outputs(self) -> list[tuple[str, Path]]:
        from tasks.core.transform.session import DATASET, REASONING  # noqa: PLC0415 - help is there at once

        # Rows without it would be those that were given.
        reasoned = self.mode == "add-reasoning" and not self.output_reasoning
        found = [(REASONING if reasoned else DATASET, Path(self.output))]
        return [*found, (REASONING, Path(self.output_reasoning))] if self.output_reasoning else found

    async def checked(self) -> tuple[Path, None]:
        """The output folder, once nothing speaks against the transform; nothing follows it.

        Raises:
            UsageError: Something does.
        """
        return Path((await self.order()).config.output.folder), None

    def flow(self) -> Any:
        """The flow `transform`."""
        from flows.transform import transform as flow  # noqa: PLC0415 - Prefect finds its settings made

        return flow

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


def transform(
    *,
    mode: str,
    output: str,
    input: str = "",  # noqa: A002 - the option's name
    input_reasoning: str = "",
    output_reasoning: str = "",
    skip_bad: bool = False,
    dry_run: bool = False,
    checkpoint: str = "",
    resume: bool = False,
    config: str | None = None,
    env_file: str | None = None,
    settings: Annotated[tuple[str, ...], Parameter(name="--set")] = (),
    json: bool = False,
    verbose: Annotated[bool, Parameter(name=("--verbose", "-v"))] = False,
) -> int:
    """Make a dataset into another one: new rejected or chosen answers, new scores, reasoning.

    Run the same again after whatever stopped it: what was paid for is in the ledger.

    Args:
        mode: sft-to-dpo, regen-rejected, regen-chosen, rejudge or add-reasoning.
        output: The file of rows that is written.
        input: The rows: JSONL or Parquet, of this program, VellumForge2 or TRL.
        input_reasoning: The same rows with reasoning in their answers; without --input, all that is read.
        output_reasoning: The file of rows with reasoning that is written.
        skip_bad: Leave lines out that are no rows, and list them in the session's folder.
        dry_run: Make nothing, and print what it would cost.
        checkpoint: For VellumForge2's command lines; nothing is written there, the ledger knows more.
        resume: For VellumForge2's command lines; every transform goes on where it was.
        config: The configuration file; config.toml when left out.
        env_file: A file with API keys; without it, .env is read when there is one.
        settings: A setting as KEY=VALUE; may be given several times.
        json: Print the summary, or what it would cost, as one JSON object.
        verbose: Show the log's records of level INFO.
    """
    from flows.estimate import estimate_transform_here  # noqa: PLC0415 - it brings the pipeline with it
    from flows.local import run_here  # noqa: PLC0415 - the same

    del checkpoint, resume
    overrides = dict(read_override(item) for item in settings)
    wish = TransformWish(
        mode, output, input, input_reasoning, output_reasoning, skip_bad, config, env_file, overrides
    )
    if dry_run:
        return estimate_transform_here(wish, json=json)
    return run_here(wish, show=show_json if json else show_summary, verbose=verbose)
