"""What is known of a dataset when its card is written; nothing else may stand there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.core.config.models import Config
    from tasks.core.cost import Bill, Prices
    from tasks.core.export.written import Exported
    from tasks.core.lint.report import Report


@dataclass(frozen=True, slots=True)
class Facts:
    """What a card says.

    Attributes:
        repo: The repository, as owner/name.
        license: Its licence as the Hub names it, or "".
        config: The settings that the session began with.
        created: When it began, in seconds since the epoch.
        complete: Whether every row that was asked for came about.
        exported: The files.
        bill: What the session paid for, or None where its ledger is not here.
        prices: The prices of its models, as far as they are known.
        failures: What could not be done in any of its runs, by cause.
        lint: What lint found in its rows, or None where it has none.
        version: The version of this program.
        environ: The environment; secrets of it that a template or another text quotes are left out.
    """

    repo: str
    license: str
    config: Config
    created: float
    complete: bool
    exported: Exported
    bill: Bill | None
    prices: Prices
    failures: Mapping[str, int]
    lint: Report | None
    version: str
    environ: Mapping[str, str]
