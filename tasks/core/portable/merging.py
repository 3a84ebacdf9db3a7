"""Several sessions made into one: their jobs without duplicates, and what was paid for any of them.

The merged session has the first one's settings and jobs of its own, like one that was taken over. The pair
of a job is done when any of the sessions has it: under other settings it was asked for under other keys, so
its answers are put into the ledger once more, under the keys that the merged session will ask for.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import orjson

from tasks.core import files
from tasks.core.errors import SessionError, UsageError
from tasks.core.forecast.survey import survey
from tasks.core.generation.pairs import is_kept_out, kept_out
from tasks.core.keys import Effect
from tasks.core.models import GivenJob, Phase
from tasks.core.progress import Progress
from tasks.core.questions import chooses, is_judged, is_scored
from tasks.core.sameness import drop_duplicates, fingerprint
from tasks.core.session.adoption import adopt_pairs, pack_jobs
from tasks.core.session.folder import check_name, find_session, locked
from tasks.core.session.record import BACKUP, SessionRecord, record_session, restore_record
from tasks.core.session.resuming import changes_between, find_resumption, lines_of_changes, survey_unfiltered
from tasks.core.session.session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tasks.core.config.settings import Config
    from tasks.core.forecast.survey import Survey
    from tasks.core.ledger.ledger import Ledger
    from tasks.core.models import Job, Pair


@dataclass(frozen=True, slots=True)
class Part:
    """What one session brings.

    Attributes:
        folder: Its folder.
        config: Its settings.
        settings: The same as they are recorded.
        subtopics: Its subtopics, in order.
        jobs: Its jobs whose prompts are there, by id.
        pairs: The pairs of those that are done, by job id, also of those that its thresholds keep out.
        whole: Whether all of its prompts are there.
        from_elsewhere: Whether it came from elsewhere.
    """

    folder: Path
    config: Config
    settings: dict[str, object]
    subtopics: tuple[str, ...]
    jobs: Sequence[Job]
    pairs: Mapping[int, Pair]
    whole: bool
    from_elsewhere: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """The jobs that are merged, each with its pair where one is done, and what is left behind.

    Attributes:
        found: Jobs and pairs, in order, the jobs numbered from 0.
        duplicates: Jobs of each session whose prompt another job has too, by the session's name.
        kept_out: Jobs whose pair its own session filtered out, and these settings would not.
    """

    found: list[tuple[Job, Pair | None]]
    duplicates: Counter[str]
    kept_out: int


@dataclass(frozen=True, slots=True)
class Merged:
    """A merged session, and how it came about.

    Attributes:
        folder: Its folder.
        parts: The sessions that it was made of, in order.
        choice: Which of their jobs it has.
        survey: What of it is paid for.
    """

    folder: Path
    parts: Sequence[Part]
    choice: Choice
    survey: Survey

    @property
    def complete(self) -> bool:
        """Whether every job is done."""
        return self.survey.done == len(self.choice.found)

    def lines(self) -> list[str]:
        """What people should know, a line each."""
        lines = []
        first = self.parts[0]
        for part in self.parts:
            name = part.folder.name
            dropped = self.choice.duplicates[name]
            lines.append(f"{name}: {len(part.jobs):,} jobs, {dropped:,} duplicates, {len(part.pairs):,} done")
            if not part.whole:
                lines.append("  not all of its prompts are there; those that are missing stay out")
            if changes := changes_between(first.config, part.config):
                lines.append("  its settings differ, and hold for nothing that is not done yet:")
                lines += lines_of_changes(changes)
        if self.choice.kept_out:
            lines.append(f"{self.choice.kept_out:,} filtered pairs stay out, with their jobs")
        name, to_pay = self.folder.name, self.survey.to_pay.total()
        lines.append(
            f"{name}: {len(self.choice.found):,} jobs, {self.survey.done:,} done, {to_pay:,} calls to pay for"
        )
        if self.complete:
            lines.append(f"it is complete, and nothing is to be paid for: {self.folder / 'dataset.jsonl'}")
        else:
            lines.append(f"to go on with it: vellumforge2 checkpoint resume {name}")
        return lines


async def merge_sessions(names: Sequence[str], into: str, output: Path, ledger: Ledger) -> Merged:
    """Make one session of several; these stay as they are.

    Answers come first and the folder last, in one step: a merge that was cut off is simply done again.

    Args:
        names: The sessions, at least two; the settings of the first hold, and its jobs come first.
        into: The new session's name.
        output: The output folder.
        ledger: The ledger that holds the answers of all of them.

    Raises:
        UsageError: There is no such session, the name is taken, or the sessions do not go together.
        SessionLockedError: One of them is being written.
        SessionError: One of them cannot be read, or the new one not be written.
        LedgerError: The ledger cannot be read or written.
    """
    target = output / check_name(into)
    folders = [find_session(output, name) for name in names]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("a session is named twice; name each one once")
    if len(folders) < 2:  # noqa: PLR2004 - merging takes two
        raise UsageError("name at least two sessions to merge")
    if target.exists():
        raise UsageError(f"there is a session {into} in {output} already; give another name")
    with ExitStack() as locks:
        for folder in folders:
            locks.enter_context(locked(folder))
        parts = [await _read(folder, ledger) for folder in folders]
        _check_together(parts)
        first = parts[0]
        choice = _choose(parts)
        jobs = await adopt_pairs(first.config, choice.found, ledger)
        subtopics = drop_duplicates((name for part in parts for name in part.subtopics), set())
        elsewhere = any(part.from_elsewhere for part in parts)
        found = await _write(target, first, subtopics, jobs, ledger, from_elsewhere=elsewhere)
    return Merged(target, parts, choice, found)


async def _read(folder: Path, ledger: Ledger) -> Part:
    """A session as it stands, with everything that is paid for."""
    await restore_record(folder, ledger)
    name, session = folder.name, find_resumption(folder)
    if session.foreign:
        raise UsageError(f"session {name} is VellumForge2's; resume it first, then merge it")
    if session.before is None:
        raise UsageError(f"the settings of session {name} are not known")
    if session.record.ledger not in {"", ledger.id}:
        raise UsageError(f"session {name} has its answers in another ledger than this one")
    pairs: dict[int, Pair] = {}

    def keep(job: Job, pair: Pair | None) -> None:
        if pair is not None:
            pairs[job.id] = pair

    found = await survey_unfiltered(session.record, session.before, ledger, keep)
    if not found.jobs:
        raise UsageError(f"session {name} has no prompts yet; resume it first, then merge it")
    # What can never come about was replaced; what was kept out may belong to the merged session.
    lost = {job for job, cause in found.lost.items() if not is_kept_out(cause)}
    jobs = [job for job in found.jobs if job.id not in lost]
    subtopics = (*found.subtopics, *(job.sub_topic for job in jobs))
    whole = not found.to_pay["subtopics"] and not found.to_pay["prompts"]
    return Part(
        folder,
        session.before,
        session.record.settings,
        subtopics,
        jobs,
        pairs,
        whole,
        session.record.from_elsewhere,
    )


def _check_together(parts: Sequence[Part]) -> None:
    """Refuse sessions whose rows do not belong into one dataset.

    Raises:
        UsageError: Their topics or modes differ, or what their pairs are chosen by.
    """
    first, *others = parts
    for part in others:
        # Prompts of one's own have no topic.
        given = first.config.input.prompts and part.config.input.prompts
        for key in ("dataset_mode",) if given else ("main_topic", "dataset_mode"):
            one, other = (getattr(item.config.generation, key) for item in (first, part))
            if one != other:
                raise UsageError(
                    f"sessions {first.folder.name} and {part.folder.name} cannot be merged: "
                    f"generation.{key} is {one!r} in one and {other!r} in the other"
                )
        _check_choice(first, part)


def _check_choice(first: Part, part: Part) -> None:
    """Refuse pairs that were chosen of several answers which the first session's settings do not find.

    Raises:
        UsageError: The settings that decide these answers differ.
    """
    if not any(chooses(item.config) or _is_judged_otherwise(item.config) for item in (first, part)):
        return
    decisive = Effect.PAIRS | Effect.JUDGE
    differ = [
        change.key
        for change in changes_between(first.config, part.config)
        if change.effect & decisive and change.key != "generation.main_topic"
    ]
    if differ:
        raise UsageError(
            f"sessions {first.folder.name} and {part.folder.name} cannot be merged: their pairs are chosen "
            f"of several answers, or by several judges, and {differ[0]} differs"
        )


def _is_judged_otherwise(config: Config) -> bool:
    """Whether its scores are not those of one judge by its rubric, as which they could be taken over."""
    judging = config.judging
    return is_judged(config) and (judging.mode != "score" or len(judging.models) > 1)


def _choose(parts: Sequence[Part]) -> Choice:
    """The jobs of the merged session: of equal prompts the one that is done, else the first."""
    config = parts[0].config
    best: dict[str, tuple[Part, Job]] = {}
    duplicates: Counter[str] = Counter()
    for part in parts:
        for job in part.jobs:
            # What stands there first keeps its place, also where another's pair takes it.
            asked = _mark(job)
            there = best.setdefault(asked, (part, job))
            if there[1] is job:
                continue
            duplicates[part.folder.name] += 1
            if _worth(config, part, job) > _worth(config, *there):
                best[asked] = part, job
    found: list[tuple[Job, Pair | None]] = []
    left_out = 0
    for part, job in best.values():
        pair = part.pairs.get(job.id)
        if pair is not None and kept_out(part.config, pair) and not kept_out(config, pair):
            left_out += 1
        else:
            found.append((replace(job, id=len(found)), pair))
    return Choice(_with_all_columns(found), duplicates, left_out)


def _mark(job: Job) -> str:
    """By what two jobs are the same: prompts of one's own only where they are equal in all that is asked."""
    if isinstance(job, GivenJob):
        return orjson.dumps([job.system, job.history, job.prompt]).decode()
    return fingerprint(job.prompt)


def _with_all_columns(found: Sequence[tuple[Job, Pair | None]]) -> list[tuple[Job, Pair | None]]:
    """The jobs with the columns of all that have some: what one lacks is null."""
    names = dict.fromkeys(name for job, _ in found if isinstance(job, GivenJob) for name in job.kept)
    return [
        (replace(job, kept=dict.fromkeys(names) | job.kept) if isinstance(job, GivenJob) else job, pair)
        for job, pair in found
    ]


def _worth(config: Config, part: Part, job: Job) -> int:
    """How much of a job is paid for: a whole pair, and its scores where scores are wanted."""
    pair = part.pairs.get(job.id)
    if pair is None:
        return 0
    return 1 + (is_scored(config) and pair.chosen_scores is not None)


async def _write(
    target: Path,
    first: Part,
    subtopics: Sequence[str],
    jobs: Sequence[Job],
    ledger: Ledger,
    *,
    from_elsewhere: bool,
) -> Survey:
    """Make the session's folder beside its place, and put it there when it is whole and recorded."""
    record = SessionRecord(
        str(uuid.uuid4()),
        time.time(),
        dict(first.settings),
        ledger.id,
        adopted=True,
        from_elsewhere=from_elsewhere,
    )
    try:
        with files.folder_beside(target.parent, ".merge-") as temporary:
            folder = temporary / target.name
            folder.mkdir()
            session = Session(folder, first.config, Progress(), record)
            session.backup = _backup_of(first.folder)
            state = session.checkpoint.state
            state.phase, state.subtopics, state.jobs = Phase.PAIRS, subtopics, jobs
            try:
                found = await survey(first.config, ledger, session.keep, jobs=jobs)
                session.write_description()
                await session.finish(complete=found.done == len(jobs))
            finally:
                session.close()
            await record_session(ledger, target.name, session.record, pack_jobs(subtopics, jobs))
            folder.rename(target)
    except OSError as error:
        raise SessionError(f"{target} cannot be written: {error.strerror or error}") from error
    return found


def _backup_of(folder: Path) -> str:
    """The session's copy of its configuration file; "" when it has none, or none that is text."""
    try:
        return files.read(folder / BACKUP).decode()
    except (OSError, UnicodeDecodeError):
        return ""
