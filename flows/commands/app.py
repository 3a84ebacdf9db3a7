"""The command line: `vellumforge2 run …`, and `python -m flows.generate …`, which is the same.

Neither Prefect nor the pipeline is imported before a command needs it: help is there at once.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

from flows.commands import checkpoint, ledger
from flows.commands.dataset import export, failures, lint, report, tune, upload
from flows.commands.run import estimate, preview, retry, run, transform, validate
from flows.process.terminal import DISTRIBUTION, PROGRAM, all_said, keep_streams, say
from tasks.core.errors import UsageError, VellumforgeError
from tasks.core.printable import reason_of

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
for _command in (
    run,
    estimate,
    preview,
    validate,
    retry,
    transform,
    export,
    upload,
    lint,
    failures,
    report,
    tune,
):
    app.command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; None for those of the process.

    Returns:
        The exit code.
    """
    keep_streams()
    return all_said(_code(arguments))


def _code(arguments: Sequence[str] | None) -> int:
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
    return reason_of(error)
