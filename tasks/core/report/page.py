"""The report's page: facts, counts and plots put into the template, and written as one file.

Nothing in it is fetched and nothing runs: its policy allows one style sheet, by its digest. Whatever models
wrote is escaped by the template, and hidden characters are made visible before that.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tasks.core import files
from tasks.core.errors import SessionError
from tasks.core.generation.pairs import FILTERED
from tasks.core.lint.linter import PREFIX, Linter
from tasks.core.lint.report import in_words
from tasks.core.printable import printable_line, visible_text
from tasks.core.report.plots import draw_plots
from tasks.core.report.tally import (
    OF_A_SUBTOPIC,
    Tally,
    cover,
    find_alike,
)
from tasks.core.rows.formats import text_of
from tasks.core.rows.samples import read_samples
from tasks.core.session.dataset import DATASET, REASONING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tasks.core.lint.report import Report
    from tasks.core.models import Job
    from tasks.core.report.tally import ReportFacts


FILE_NAME: Final = "report.html"
HERE: Final = Path(__file__).parent
UNFOLDED: Final = 12
"""Subtopics that are there at once."""
MOST_SUBTOPICS: Final = 1_000
"""Subtopics that are there at all."""
LINE: Final = 300
"""Characters of a name or a prompt on one line."""
ANSWER: Final = 600
"""Characters of an answer that could not be used."""
_MINUTE, _HOUR = 60, 3600

_DROPPED: Final = {
    "duplicate": "left out: the same as an earlier prompt",
    "near_duplicate": "left out: nearly the same as an earlier prompt",
}


class Review:
    """What lint and the report find in a session's dataset, by one reading of it.

    Raises:
        UsageError: (in going on) The dataset cannot be read.
    """

    def __init__(self, folder: Path, jobs: Iterable[Job], *, max_tokens: int | None = None) -> None:
        """Begin before the first row.

        Args:
            folder: The session's folder.
            jobs: The session's jobs.
            max_tokens: Tokens from which on lint finds a row long; None for no such limit.
        """
        self._samples = read_samples(folder / DATASET)
        self._reasoning = folder / REASONING
        self._linter = Linter(max_tokens=max_tokens)
        self._tally = Tally(jobs)

    def go_on(self, most: int | None = None) -> bool:
        """Look at the next rows, at all of them by default; whether there may be more."""
        item = None
        for item in islice(self._samples, most):
            self._linter.add(item)
            self._tally.add(item)
        return item is not None

    def lint(self) -> Report:
        """What lint found."""
        return self._linter.report()

    def tally(self) -> Tally:
        """What stands in the rows; its sample shows the reasoning, where there is a file with it."""
        if self._reasoning.is_file():
            self._tally.show_reasoning(self._reasoning)
        return self._tally


def write_report(folder: Path, facts: ReportFacts, review: Review | None = None) -> Path:
    """Write the `report.html` of a session.

    Args:
        folder: The session's folder.
        facts: What is known besides.
        review: That of its dataset, which is through; None to read it now.

    Returns:
        The file.

    Raises:
        UsageError: The dataset cannot be read.
        SessionError: The file cannot be written.
    """
    if review is None:
        review = Review(folder, facts.jobs)
        review.go_on()
    page = render(facts, review.tally(), review.lint())
    path = folder / FILE_NAME
    try:
        files.write(path, page.encode())
    except OSError as error:
        raise SessionError(f"{path} cannot be written: {error.strerror}") from error
    return path


def render(facts: ReportFacts, tally: Tally, lint: Report) -> str:
    """The page as HTML.

    Args:
        facts: See `write_report`.
        tally: What stands in the rows.
        lint: What lint found in them.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {"line": _line, "answer": _answer, "count": _count, "share": _share, "duration": _duration}
    environment.filters |= filters
    style = (HERE / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    subtopics = cover(facts, tally)
    return environment.get_template("page.html.j2").render(
        facts=facts,
        tally=tally,
        lint=lint,
        found=[(item, in_words(item, lint.unit)) for item in lint.findings],
        alike={
            "prompts": find_alike([text_of(job) for job in tally.kept]),
            "subtopics": find_alike(facts.subtopics),
        },
        plots=draw_plots(facts, tally),
        losses=_losses(facts, tally),
        missing=max(0, facts.wanted - tally.samples),
        beyond=max(0, len(facts.jobs) - facts.wanted),
        bill=_bill(facts),
        total=facts.bill.usage(),
        cost=facts.bill.cost(facts.prices).in_words,
        covered=sum(item.rows > 0 for item in subtopics),
        subtopics=subtopics,
        unfolded=UNFOLDED,
        listed=MOST_SUBTOPICS,
        compared=OF_A_SUBTOPIC,
        created=datetime.fromtimestamp(facts.created, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        style=Markup(style),  # noqa: S704 - a file of ours
        digest=digest,
    )


def _losses(facts: ReportFacts, tally: Tally) -> list[tuple[str, int]]:
    """What of the prompts did not come to a row, and why."""
    found = {"prompts that were not written": max(0, facts.wanted - len(facts.jobs))}
    found |= {_DROPPED.get(cause, cause): count for cause, count in facts.dropped.items()}
    found |= {_lost(cause): count for cause, count in facts.lost.items()}
    found |= {f"failed: {cause.replace('_', ' ')}": count for cause, count in facts.failed.items()}
    found["lines that are no rows"] = tally.bad_lines
    return [(why, count) for why, count in found.items() if count]


def _lost(cause: str) -> str:
    if cause == FILTERED:
        return "kept out by the judge's thresholds"
    if cause.startswith(PREFIX):
        return f"kept out by lint: {cause.removeprefix(PREFIX)}"
    return f"yielded no usable pair: {cause.replace('_', ' ')}"


def _bill(facts: ReportFacts) -> list[Mapping[str, Any]]:
    return [
        {
            "model": model,
            "purpose": purpose,
            "usage": usage,
            "cost": facts.prices.cost(model, usage).in_words or "unknown",
        }
        for model, purpose, usage in facts.bill
    ]


def _line(text: str, longest: int = LINE) -> str:
    shown = printable_line(text, longest)
    return f"{shown}…" if len(text) > longest else shown


def _answer(text: str) -> str:
    return visible_text(text, ANSWER) + ("…" if len(text) > ANSWER else "")


def _count(number: int) -> str:
    return f"{number:,}"


def _share(number: int, of: int) -> str:
    return f"{number / of:.1%}" if of else ""


def _duration(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _MINUTE)
    return f"{minutes // 60} h {minutes % 60:02} min" if seconds >= _HOUR else f"{minutes} min {rest:02} s"
