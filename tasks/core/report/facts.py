"""What a report says besides what stands in the rows: where they came from, and what was paid for them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from sqlalchemy import Float, Integer, cast, func, select

from tasks.core.cost import Bill, Prices
from tasks.core.llm.ledger_records import spent_by
from tasks.core.llm.ledger_schema import calls
from tasks.core.questions import model_for, purposes_of
from tasks.core.selection import shares
from tasks.core.session.answered import unusable_answers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.core.config.models import Config
    from tasks.core.llm.ledger import Ledger
    from tasks.core.models import Job
    from tasks.core.session.answered import Answered
    from tasks.core.session.record import SessionRecord

BINS: Final = 80
"""Stretches of time that the rate is counted in."""
SHORTEST: Final = 0.25
"""Seconds of such a stretch, at least."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Answers over time.

    Attributes:
        began: When the first one came, in seconds since 1970.
        step: Seconds of each stretch of time.
        counts: Answers in each stretch, by the purpose of their calls; all are equally many.
    """

    began: float
    step: float
    counts: Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a session.

    Attributes:
        session: Its name.
        topic: What it is about.
        mode: Its dataset mode.
        created: When it began, in seconds since 1970.
        seconds: Wall time of its runs, all together.
        models: Name and host of the model behind each kind of call.
        wanted: Pairs that the configuration asks for.
        subtopics: The subtopics, in their order.
        shares: Pairs that each of them is to bring.
        jobs: The prompts that were answered, or should have been.
        dropped: Prompts that were left out before they were answered, as `duplicate` or `near_duplicate`.
        lost: Jobs that yielded no usable pair, by cause: `filtered` by the judge's thresholds, refused, …
        failed: Jobs that may yet come to a pair, by the cause of their failure.
        bill: What was paid for.
        prices: What that is charged at.
        rate: Answers over time; None when nothing was paid for.
        answered: An answer of each cause that could not be used.
    """

    session: str
    topic: str
    mode: str
    created: float
    seconds: float
    models: Mapping[str, tuple[str, str]]
    wanted: int
    subtopics: Sequence[str]
    shares: Mapping[str, int]
    jobs: Sequence[Job]
    dropped: Mapping[str, int]
    lost: Mapping[str, int]
    failed: Mapping[str, int]
    bill: Bill = field(default_factory=Bill)
    prices: Prices = field(default_factory=lambda: Prices({}))
    rate: Rate | None = None
    answered: Sequence[Answered] = ()


async def facts_of(
    ledger: Ledger,
    record: SessionRecord,
    name: str,
    config: Config,
    *,
    subtopics: Sequence[str],
    jobs: Sequence[Job],
    dropped: Mapping[str, int],
    lost: Mapping[str, int],
    failed: Mapping[str, int],
) -> Facts:
    """The facts of a session, with what the ledger knows of it.

    Args:
        ledger: The ledger.
        record: The session's record.
        name: Its name.
        config: Its configuration.
        subtopics: See `Facts`.
        jobs: See `Facts`.
        dropped: See `Facts`.
        lost: See `Facts`.
        failed: See `Facts`.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    generation = config.generation
    models = {}
    for purpose in purposes_of(config):
        model = model_for(config, purpose)
        models[str(purpose)] = model.model_name, urlsplit(model.base_url).netloc
    return Facts(
        session=name,
        topic=generation.main_topic,
        mode=generation.dataset_mode,
        created=record.created,
        seconds=record.seconds,
        models=models,
        wanted=len(jobs) if record.adopted else generation.wanted_pairs,
        subtopics=subtopics,
        shares=Counter(job.sub_topic for job in jobs)
        if record.adopted
        else shares_of(subtopics, generation.wanted_pairs),
        jobs=jobs,
        dropped=dropped,
        lost=lost,
        failed=failed,
        bill=await spent_by(ledger, record.id),
        prices=Prices(config.pricing),
        rate=await rate_of(ledger, record.id),
        answered=await unusable_answers(ledger, record, of_each=1, jobs=jobs),
    )


def shares_of(subtopics: Sequence[str], wanted: int) -> dict[str, int]:
    """How many pairs each subtopic is to bring; nothing those beyond as many as pairs are wanted."""
    asked = subtopics[:wanted]
    return dict(zip(asked, shares(wanted, len(asked)), strict=True)) if asked else {}


async def rate_of(ledger: Ledger, session: str) -> Rate | None:
    """When the answers that a session paid for came; None when there are none.

    Args:
        ledger: The ledger.
        session: The session's id.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    ours = calls.c.session == session
    ends = select(func.min(calls.c.finished), func.max(calls.c.finished)).where(ours)
    async with ledger.transaction("read") as connection:
        began, ended = (await connection.execute(ends)).tuples().one()
        if began is None:
            return None
        step = max(SHORTEST, (ended - began) / BINS)
        # Every database rounds to the nearest, and not every one has a floor.
        place = cast(func.round(cast((calls.c.finished - began) / step, Float) - 0.5), Integer)
        query = select(calls.c.purpose, place, func.count()).where(ours).group_by(calls.c.purpose, place)
        found: dict[str, Counter[int]] = {}
        for purpose, at, count in (await connection.execute(query)).tuples():
            found.setdefault(purpose, Counter())[min(max(0, at), BINS - 1)] += count
    length = 1 + max(max(counts) for counts in found.values())
    return Rate(began, step, {name: [counts[at] for at in range(length)] for name, counts in found.items()})
