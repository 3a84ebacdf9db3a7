"""The page: facts, counts and plots put into the template, and written as one file.

Nothing in it is fetched and nothing runs: its policy allows one style sheet, by its digest. Whatever models
wrote is escaped by the template, and hidden characters are made visible before that.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tasks.core.errors import SessionError
from tasks.core.generation.pairs import FILTERED
from tasks.core.lint.linter import lint_file
from tasks.core.lint.report import in_words
from tasks.core.printable import printable_line
from tasks.core.report.plots import coverage, draw_plots
from tasks.core.report.tally import tally_session
from tasks.core.session import files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.core.lint.report import Report
    from tasks.core.report.facts import Facts
    from tasks.core.report.tally import Tally

FILE_NAME: Final = "report.html"
HERE: Final = Path(__file__).parent
MOST_SUBTOPICS: Final = 12
MOST_ALIKE: Final = 20
LINE: Final = 300
"""Characters of a name or a prompt on one line."""
_MINUTE, _HOUR = 60, 3600

Alike = tuple[float, str, str]
"""How alike two prompts are, 0 to 1, and the two."""


def write_report(folder: Path, facts: Facts, lint: Report | None = None, alike: Sequence[Alike] = ()) -> Path:
    """Read a session's dataset and write its `report.html`.

    Args:
        folder: The session's folder.
        facts: What is known besides.
        lint: What lint found in the dataset; None to look now.
        alike: Prompts that are much alike, the most alike first; shown where there are any.

    Returns:
        The file.

    Raises:
        UsageError: The dataset cannot be read.
        SessionError: The file cannot be written.
    """
    dataset = folder / "dataset.jsonl"
    tally = tally_session(folder, facts.jobs)
    page = render(facts, tally, lint or lint_file(dataset), alike)
    path = folder / FILE_NAME
    try:
        files.write(path, page.encode())
    except OSError as error:
        raise SessionError(f"{path} cannot be written: {error.strerror}") from error
    return path


def render(facts: Facts, tally: Tally, lint: Report, alike: Sequence[Alike] = ()) -> str:
    """The page as HTML.

    Args:
        facts: See `write_report`.
        tally: What stands in the rows.
        lint: See `write_report`.
        alike: See `write_report`.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"line": _line, "count": _count, "share": _share, "duration": _duration}
    style = (HERE / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    counted = coverage(facts, tally)
    return environment.get_template("page.html.j2").render(
        facts=facts,
        tally=tally,
        lint=lint,
        found=[(item, in_words(item, lint.unit)) for item in lint.findings],
        alike=[(likeness, _line(one), _line(other)) for likeness, one, other in alike[:MOST_ALIKE]],
        plots=draw_plots(facts, tally),
        funnel=_losses(facts, tally),
        bill=_bill(facts),
        total=facts.bill.usage(),
        cost=facts.bill.cost(facts.prices).in_words,
        covered=sum(count > 0 for _, count in counted),
        subtopics=len(counted),
        fewest=counted[:MOST_SUBTOPICS],
        created=datetime.fromtimestamp(facts.created, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        style=Markup(style),  # noqa: S704 - a file of ours
        digest=digest,
    )


def _losses(facts: Facts, tally: Tally) -> list[tuple[str, int]]:
    """What of the prompts did not come to a row, and why."""
    lost = dict(facts.lost)
    found = {"prompts that were not written": max(0, facts.wanted - len(facts.jobs))}
    found["kept out by the judge's thresholds"] = lost.pop(FILTERED, 0)
    found |= {f"came to no pair: {cause.replace('_', ' ')}": count for cause, count in lost.items()}
    found |= {f"failed: {cause.replace('_', ' ')}": count for cause, count in facts.failed.items()}
    found["lines that are no rows"] = tally.bad_lines
    return [(why, count) for why, count in found.items() if count]


def _bill(facts: Facts) -> list[Mapping[str, Any]]:
    return [
        {
            "model": model,
            "purpose": purpose,
            "usage": usage,
            "cost": facts.prices.cost(model, usage).in_words or "unknown",
        }
        for model, purpose, usage in facts.bill
    ]


def _line(text: str) -> str:
    shown = printable_line(text, LINE)
    return f"{shown}…" if len(text) > LINE else shown


def _count(number: int) -> str:
    return f"{number:,}"


def _share(number: int, of: int) -> str:
    return f"{number / of:.1%}" if of else ""


def _duration(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _MINUTE)
    return f"{minutes // 60} h {minutes % 60:02} min" if seconds >= _HOUR else f"{minutes} min {rest:02} s"
