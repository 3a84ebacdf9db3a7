"""The command line: `vellumforge2 run …`, and `python -m flows.generate …`, which is the same.

Neither Prefect nor the pipeline is imported before a command needs it: help is there at once.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

from flows.commands import checkpoint, ledger
from flows.commands.dataset import export, failures, lint, report, upload
from flows.commands.run import generate_here, retry
from flows.commands.transform import transform
from flows.overrides import read_override
from flows.process.terminal import DISTRIBUTION, PROGRAM, say
from tasks.core.errors import UsageError, VellumforgeError

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415 - it takes as long as all other help

    return version(DISTRIBUTION)


app = App(
    name=PROGRAM,
    help="Make preference datasets with OpenAI-compatible models. Whatever was paid for is kept in a "
    "ledger: the same command again goes on where the last one ended.",
    version=_version,
    help_epilogue="Exit codes: 0 all rows; 1 the ledger, the disk, Prefect or the Hub failed, or lint found "
    "too much; 2 bad configuration or usage, or a model that cannot be used; 3 finished or stopped with "
    "failures or by its budget; 130 and 143 interrupted.",
    # No default says more than that the option was left out.
    default_parameter=Parameter(negative=(), show_default=False),
    result_action="return_value",
)

app.command(checkpoint.app)
app.command(ledger.app)
app.command(export)
app.command(upload)
app.command(lint)
app.command(failures)
app.command(retry)
app.command(report)
app.command(transform)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; None for those of the process.

    Returns:
        The exit code.
    """
    try:
        code = app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return say(UsageError(f"{_reason(error)} See {PROGRAM} --help."))
    except VellumforgeError as error:
        return say(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def _reason(error: CycloptsError) -> str:
    """What is wrong with the command line, in a sentence."""
    if isinstance(error, UnusedCliTokensError):
        return f"There is nothing that takes {shlex.join(error.unused_tokens or [])}."
    return " ".join(str(error).split())


@app.command
def run(
    *,
    config: str | None = None,
    env_file: str | None = None,
    demo: bool = False,
    fresh: bool = False,
    resume: str = "",
    accept_changes: bool = False,
    dry_run: bool = False,
    upload_to_hf: bool = False,
    repo: str = "",
    public: bool = False,
    output: str | None = None,
    settings: Annotated[tuple[str, ...], Parameter(name="--set")] = (),
    json: bool = False,
    verbose: Annotated[bool, Parameter(name=("--verbose", "-v"))] = False,
) -> int:
    """Generate a dataset.

    Run it again with the same configuration and everything that was paid for is used again.

    Args:
        config: The configuration file; config.toml when left out.
        env_file: A file with API keys; without it, .env is read when there is one.
        demo: Generate a small dataset with a model server of our own: no key, no network, no file.
        fresh: Ask for other answers to the same questions; all of them are paid for.
        resume: Go on with this session, in its own folder.
        accept_changes: Go on with it although settings differ that change the outcome.
        dry_run: Make nothing, and print what it would cost; the same as the command estimate.
        upload_to_hf: Upload the dataset to the Hugging Face Hub once it is complete, like the command upload.
        repo: Its repository there, as OWNER/NAME; huggingface.repo_id when left out.
        public: Make that repository for everybody to see.
        output: The output folder, in place of output.folder.
        settings: A setting as KEY=VALUE, e.g. generation.concurrency=64; may be given several times.
        json: Print the summary as one JSON object.
        verbose: Show the log's records of level INFO.
    """
    from flows.hub import HubRequest  # noqa: PLC0415 - it brings the whole pipeline with it
    from flows.request import RunRequest  # noqa: PLC0415 - the same

    if demo and config is not None:
        raise UsageError("the demo has its own configuration; leave out --demo or --config")
    if (repo or public) and not upload_to_hf:
        raise UsageError("--repo and --public are for --upload-to-hf, which is not given")
    overrides = dict(read_override(item) for item in settings)
    if output is not None:
        overrides["output.folder"] = output
    hub = HubRequest(repo, public=public) if upload_to_hf else None
    request = RunRequest(config, env_file, overrides, fresh, demo, resume, accept_changes, hub)
    if dry_run:
        from flows.commands.estimate import estimate_here  # noqa: PLC0415 - the same

        return estimate_here(request, json=json)
    return generate_here(request, json=json, verbose=verbose)


@app.command
def estimate(
    *,
    config: str | None = None,
    env_file: str | None = None,
    output: str | None = None,
    settings: Annotated[tuple[str, ...], Parameter(name="--set")] = (),
    json: bool = False,
) -> int:
    """Say what a run would cost: calls in the ledger, calls to pay for, tokens and money. Nothing is made.

    Args:
        config: The configuration file; config.toml when left out.
        env_file: A file with API keys; without it, .env is read when there is one.
        output: The output folder, in place of output.folder.
        settings: A setting as KEY=VALUE; may be given several times.
        json: Print one JSON object.
    """
    return run(config=config, env_file=env_file, dry_run=True, output=output, settings=settings, json=json)


@app.command
def preview(
    *,
    number: Annotated[int, Parameter(name=("--number", "-n"))] = 5,
    config: str | None = None,
    env_file: str | None = None,
    output: str | None = None,
    settings: Annotated[tuple[str, ...], Parameter(name="--set")] = (),
    json: bool = False,
    verbose: Annotated[bool, Parameter(name=("--verbose", "-v"))] = False,
) -> int:
    """Generate a few pairs and show them, with what the whole run would cost. It pays for none of them again.

    Args:
        number: How many pairs.
        config: The configuration file; config.toml when left out.
        env_file: A file with API keys; without it, .env is read when there is one.
        output: The output folder, in place of output.folder.
        settings: A setting as KEY=VALUE; may be given several times.
        json: Print one JSON object.
        verbose: Show the log's records of level INFO.
    """
    from flows.commands.estimate import preview_here  # noqa: PLC0415 - the same
    from flows.request import RunRequest  # noqa: PLC0415 - it brings the whole pipeline with it

    overrides = dict(read_override(item) for item in settings)
    if output is not None:
        overrides["output.folder"] = output
    return preview_here(RunRequest(config, env_file, overrides), number, json=json, verbose=verbose)


@app.command
def validate(
    *,
    config: str | None = None,
    env_file: str | None = None,
    settings: Annotated[tuple[str, ...], Parameter(name="--set")] = (),
    ping: bool = False,
    json: bool = False,
) -> int:
    """Check the configuration, and show the requests that it makes, with sample values. Nothing is made.

    Args:
        config: The configuration file; config.toml when left out.
        env_file: A file with API keys; without it, .env is read when there is one.
        settings: A setting as KEY=VALUE; may be given several times.
        ping: Ask each model up to three tiny questions, which cost a few tokens: does it answer, stream,
            keep to a JSON schema, and what does it say about its limits. Exit code 3: one does not answer.
        json: Print one JSON object.
    """
    from flows.commands.validate import validate_here  # noqa: PLC0415 - it brings the whole pipeline with it

    overrides = dict(read_override(item) for item in settings)
    return validate_here(config, env_file, overrides, ping=ping, json=json)
