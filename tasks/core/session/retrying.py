"""Asking again for some of what failed, and for nothing else: what there is, and what is left alone.

The session is walked over the ledger with all that is on its list of failures left alone. What then does not
come about either failed, or was never asked for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.core.errors import UsageError
from tasks.core.llm.ledger_failures import failures_by_request, refused_questions
from tasks.core.models import UNUSABLE, Phase, Purpose
from tasks.core.printable import printable_line
from tasks.core.run import further_tries
from tasks.core.session.resuming import survey_session
from tasks.core.survey import UNPAID, survey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tasks.core.config.models import Config
    from tasks.core.llm.ledger import Ledger
    from tasks.core.models import Failure
    from tasks.core.session.resuming import Resumption
    from tasks.core.survey import Survey

KEYS = ("cause", "phase", "purpose")
"""What failures are named by."""

LONGEST_ITEM = 60


@dataclass(frozen=True, slots=True)
class Only:
    """Which failures are asked again.

    Attributes:
        wanted: Allowed words by one of KEYS; a failure is named that has an allowed word under each key.
    """

    wanted: Mapping[str, tuple[str, ...]]

    def names(self, failure: Failure) -> bool:
        """Whether a failure is asked again."""
        return all(_word(failure, key) in words for key, words in self.wanted.items())


@dataclass(frozen=True, slots=True)
class Retry:
    """What a run does that asks only for some of what failed.

    Attributes:
        left_alone: What it does not ask, by key; see `LedgerClient.left_alone`.
        note: What should be known of the failures that it was told to ask again, or "".
    """

    left_alone: Mapping[bytes, Failure]
    note: str = ""


def read_only(words: Iterable[str]) -> Only | None:
    """The failures that `KEY=VALUE` texts name; None when there are no texts, which is all that is missing.

    Raises:
        UsageError: One of them is none.
    """
    wanted: dict[str, tuple[str, ...]] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in KEYS or not value:
            raise UsageError(f"--only takes cause=…, phase=… or purpose=…, and not {word!r}")
        wanted[key] = (*wanted.get(key, ()), value)
    return Only(wanted) if wanted else None


async def plan_retry(only: Only, resumption: Resumption, config: Config, ledger: Ledger) -> Retry:
    """What is left alone when only these failures are asked again; nothing is asked here.

    Raises:
        UsageError: A word is that of no failure which is still missing; or there are things that never were
            asked for; or asking again would bring the same, because every allowed try is paid for.
        LedgerError: The ledger cannot be read.
        SessionError: The jobs that the session took over are damaged.
    """
    name, listed = resumption.folder.name, await failures_by_request(ledger, resumption.record.id)
    if resumption.foreign or not listed:
        raise UsageError(f"no failures are listed for session {name}; {_resume(name)}")
    if config.generation.replaces:
        # What older versions listed by its status was replaced as well.
        listed |= await refused_questions(ledger, resumption.record.id)
    found = await survey_session(resumption.record, config, ledger, refused=listed, strict=True)
    missing = list(dict.fromkeys(found.failures))
    failed = [failure for failure in missing if failure.cause != UNPAID]
    named = _named(only, failed, name)
    if never := [failure.item for failure in missing if failure.cause == UNPAID]:
        more = f" and {len(never) - 1:,} more" if never[1:] else ""
        raise UsageError(
            f"session {name} has things that never were asked for ({printable_line(never[0], LONGEST_ITEM)}"
            f"{more}), and a retry asks only for what failed; first {_resume(name)}"
        )
    standing = {failure.request for failure in failed}
    left = {
        key: failure
        for key, failure in listed.items()
        # After an unusable answer that no longer stands, a further try was asked for, and may be named.
        if not only.names(failure) and (failure.cause not in UNUSABLE or failure.request in standing)
    }
    others = [failure for failure in failed if not only.names(failure)]
    twins = await _asked_beside(others, found, config, ledger)
    return Retry(twins | left, _spent_tries(named, config))


def _named(only: Only, failed: Sequence[Failure], name: str) -> list[Failure]:
    """The failures that are asked again.

    Raises:
        UsageError: There are none, or one of the words is that of none.
    """
    if not failed:
        raise UsageError(f"session {name} has no failure that is still missing; {_resume(name)}")
    for key, words in only.wanted.items():
        there = Counter(_word(failure, key) for failure in failed)
        for word in words:
            if word not in there:
                raise UsageError(
                    f"session {name} has no failure with {key}={word}; there are: "
                    + ", ".join(f"{key}={other} ({count:,})" for other, count in there.most_common())
                )
    if named := [failure for failure in failed if only.names(failure)]:
        return named
    kinds = Counter(" ".join(f"{key}={_word(failure, key)}" for key in KEYS) for failure in failed)
    raise UsageError(
        f"session {name} has no failure that is all that --only says; there are: "
        + ", ".join(f"{kind} ({count:,})" for kind, count in kinds.most_common())
    )


async def _asked_beside(
    others: Sequence[Failure], found: Survey, config: Config, ledger: Ledger
) -> dict[bytes, Failure]:
    """What else would be asked for the jobs that are left alone, for nothing, by key: both calls may fail.

    Of a job's two answers, and of the judge's two, the list has one that failed: it stands for both.
    """
    jobs = {f"job {job.id}": job for job in found.jobs}
    beside: dict[bytes, Failure] = {}
    for failure in others:
        if failure.phase is Phase.PAIRS and failure.request and failure.item in jobs:
            alone = {bytes.fromhex(failure.request): failure}
            walked = await survey(config, ledger, jobs=[jobs[failure.item]], refused=alone)
            beside |= dict.fromkeys(walked.unpaid, failure)
    return beside


def _spent_tries(named: Sequence[Failure], config: Config) -> str:
    """What is to be said of failures whose allowed tries are all answered, and paid for; "" without any.

    Raises:
        UsageError: All failures that are named are such.
    """
    spent = [
        failure
        for failure in named
        if failure.cause in UNUSABLE and failure.attempts > further_tries(config, failure.purpose)
    ]
    if not spent:
        return ""
    most: Counter[str] = Counter()
    for failure in spent:
        role = {Purpose.REJECTED: "rejected", Purpose.JUDGE: "judge"}.get(failure.purpose, "main")
        most[role] = max(most[role], failure.attempts)
    settings = " ".join(f"--set models.{role}.max_retries={number}" for role, number in most.items())
    causes = ", ".join(sorted({failure.cause for failure in spent}))
    note = (
        f"{len(spent):,} of {len(named):,} failures named are unusable answers ({causes}), and every try "
        f"that max_retries allows is paid for; to allow more: {settings}"
    )
    if len(spent) == len(named):
        raise UsageError(note)
    return note


def _word(failure: Failure, key: str) -> str:
    return str(getattr(failure, key))


def _resume(name: str) -> str:
    return f"go on with it: vellumforge2 checkpoint resume {name}"
