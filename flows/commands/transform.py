"""The command `vellumforge2 transform`: what it is given, and what it would cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from flows.overrides import read_override
from flows.process.terminal import show_json, show_summary

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from pydantic import SecretStr

    Blocks = Callable[[Collection[str]], Awaitable[Mapping[str, SecretStr]]]


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
    from flows.commands.estimate import estimate_transform_here  # noqa: PLC0415 - it brings the pipeline with it
    from flows.process.run import run_here  # noqa: PLC0415 - the same
    from flows.request import TransformRequest  # noqa: PLC0415 - the same

    del checkpoint, resume
    overrides = dict(read_override(item) for item in settings)
    request = TransformRequest(
        mode, output, input, input_reasoning, output_reasoning, skip_bad, config, env_file, overrides
    )
    if dry_run:
        return estimate_transform_here(request, json=json)
    return run_here(request, _transform, show=show_json if json else show_summary, verbose=verbose)


def _transform() -> Any:
    from flows.transform import transform as flow  # noqa: PLC0415 - Prefect finds its settings made

    return flow
