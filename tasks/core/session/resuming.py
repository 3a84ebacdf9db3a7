"""Going on with a session: is it the same work, and what would a difference cost?

To resume is to run again into the same folder; everything that was paid for is found in the ledger. What
needs care is that it is the same work: a configuration that differs in anything that changes the outcome
is refused, unless the user wants it so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from pydantic_core import PydanticUndefined

from tasks.core import files
from tasks.core.config.load import load_config
from tasks.core.config.settings import CandidateChoice, default_of
from tasks.core.errors import ConfigError, SessionError, UsageError
from tasks.core.forecast.survey import survey
from tasks.core.generation.candidates import choose
from tasks.core.generation.pairs import kept_out
from tasks.core.keys import Effect, effects_in, value_of
from tasks.core.ledger.failures import refused_questions
from tasks.core.ledger.sessions import find_session_row
from tasks.core.models import Purpose
from tasks.core.questions import JUDGEMENTS, chooses, is_compared, is_judged, is_scored
from tasks.core.session.adoption import unfiltered, unpack_jobs
from tasks.core.session.checkpoint import read_checkpoint
from tasks.core.session.listing import is_finished
from tasks.core.session.record import (
    BACKUP,
    SessionRecord,
    is_from_elsewhere,
    read_record,
    settings_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tasks.core.config.settings import Config
    from tasks.core.forecast.survey import Survey
    from tasks.core.ledger.ledger import Ledger
    from tasks.core.models import Failure, Job, Pair


COUNTS = frozenset({"generation.num_subtopics", "generation.target_pairs"})
"""Settings that ask for more of the same when they are raised.

The prompts of a subtopic are asked for in one request that names their number: another number is another
question, and none of the old pairs would stay.
"""

SHOWN = 60
"""Characters of a value that are shown."""

PHASES = {
    "subtopics": (Purpose.SUBTOPICS,),
    "prompts": (Purpose.PROMPTS,),
    "pairs": (Purpose.CHOSEN, Purpose.REJECTED),
    "judge": JUDGEMENTS,
}


def asks_only_for_more(before: Config, after: Config, changes: Sequence[Change]) -> bool:
    """Whether changes ask for more of the same, so that every pair of before stays where it is.

    A target divides its pairs among the subtopics: with one, other subtopics mean smaller shares, and only a
    target of as many as all prompts that are asked for first is raised without changing theirs.
    """
    one, other = before.generation, after.generation
    if not all(change.is_growth for change in changes):
        return False
    first = one.num_subtopics * one.num_prompts_per_subtopic
    if one.num_subtopics != other.num_subtopics:
        return not one.target_pairs and not other.target_pairs
    return one.target_pairs == other.target_pairs or (other.wanted_pairs >= one.wanted_pairs >= first)


@dataclass(frozen=True, slots=True)
class Change:
    """A setting that differs: its dotted key, both values, and what of the outcome it changes."""

    key: str
    before: Any
    after: Any
    effect: Effect

    @property
    def is_growth(self) -> bool:
        """Whether it only asks for more of the same."""
        return self.key in COUNTS and self.after > self.before

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.before)} -> {_shown(self.after)} (changes {describe(self.effect)})"


def changes_between(before: Config, after: Config, *, idle: bool = False) -> list[Change]:
    """The settings that differ.

    Args:
        before: One configuration.
        after: The other.
        idle: Whether settings that change nothing in the outcome are listed too.
    """
    found = []
    ours, theirs = effects_in(before), effects_in(after)
    for key in ours | theirs:
        effect = ours.get(key, Effect.NONE) | theirs.get(key, Effect.NONE)
        old, new = _value(before, key, there=key in ours), _value(after, key, there=key in theirs)
        if old != new and (effect or idle):
            found.append(Change(key, old, new, effect))
    return found


def _value(config: Config, key: str, *, there: bool) -> Any:
    """The value of a setting; the default for one of a model that is not there."""
    if there:
        return value_of(config, key)
    default = default_of(key)
    return None if default is PydanticUndefined else default


def cost_lines(survey: Survey) -> list[str]:
    """For each phase, the calls that are paid for already and those to pay for."""
    lines = []
    for phase, purposes in PHASES.items():
        reused = sum(survey.reused[purpose] for purpose in purposes)
        to_pay = sum(survey.to_pay[purpose] for purpose in purposes)
        if reused or to_pay:
            lines.append(f"{phase}: {reused:,} calls reused, {to_pay:,} to be paid for")
    return lines


def describe(effect: Effect) -> str:
    """The names of what an effect changes."""
    names = [str(item.name).lower() for item in Effect if item & effect]
    return ", ".join(names) or "nothing in the outcome"


def lines_of_changes(changes: Sequence[Change]) -> list[str]:
    """One line a change."""
    return [f"  {change}" for change in changes]


def _shown(value: object) -> str:
    text = "unset" if value is None else repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


@dataclass(frozen=True, slots=True)
class Resumption:
    """A session to resume.

    Attributes:
        folder: Its folder.
        record: What is recorded of it; made from its other files when VellumForge2 wrote them.
        before: The configuration that it began with, or None when that is unknown.
        foreign: Whether VellumForge2 wrote it, so that its rows must be taken over first.
        done: Jobs that its checkpoint lists as done.
    """

    folder: Path
    record: SessionRecord
    before: Config | None
    foreign: bool
    done: int = 0


def find_resumption(folder: Path) -> Resumption:
    """What there is to go on with in a session's folder.

    Raises:
        UsageError: It is that of a transform.
        SessionError: Neither its record nor a checkpoint can be read.
    """
    record = read_record(folder)
    if record is not None and record.transform:
        raise UsageError(
            f"session {folder.name} is that of a transform, which goes on when its command is run again: "
            f"{record.transform}"
        )
    if record is not None:
        return Resumption(folder, record, settings_of(record), foreign=False, done=_done(folder))
    checkpoint = read_checkpoint(folder)
    if checkpoint is None:
        raise SessionError(
            f"session {folder.name} has neither a record nor a checkpoint to go on with; "
            "run the same configuration again, and what is in the ledger is used again"
        )
    before = _backed_up(folder)
    made = SessionRecord(
        id=checkpoint.session_id or folder.name,
        created=folder.stat().st_mtime,
        settings={} if before is None else before.model_dump(mode="json", exclude_unset=True),
        complete=is_finished(folder),
        from_elsewhere=is_from_elsewhere(folder),
    )
    return Resumption(folder, made, before, foreign=True, done=len(checkpoint.completed))


def _done(folder: Path) -> int:
    """Jobs that our own checkpoint lists; one that is torn or missing is simply written anew."""
    try:
        checkpoint = read_checkpoint(folder)
    except SessionError:
        return 0
    return 0 if checkpoint is None else len(checkpoint.completed)


def _backed_up(folder: Path) -> Config | None:
    """The configuration in the folder's backup; None when there is none that can be used."""
    try:
        text = files.read(folder / BACKUP).decode()
        return load_config(None, environ={}, text=text).config
    except (OSError, UnicodeDecodeError, ConfigError):
        return None


def with_seed_of(resumption: Resumption, config: Config, *, always: bool = False) -> Config:
    """The configuration with the session's own seed, unless it names one itself.

    A session that was begun with --fresh drew its seed, and the file does not know it.

    Args:
        resumption: The session.
        config: The configuration.
        always: Whether the session's seed wins over the configuration's too.
    """
    before = resumption.before
    if before is None or ("seed" in config.generation.model_fields_set and not always):
        return config
    generation = config.generation.model_copy(update={"seed": before.generation.seed})
    return config.model_copy(update={"generation": generation})


async def check_resumption(
    resumption: Resumption,
    config: Config,
    ledger: Ledger,
    *,
    accept_changes: bool,
    given: Sequence[Job] | None = None,
) -> list[Change]:
    """Make sure that going on is what the user wants.

    Args:
        resumption: The session.
        config: The configuration.
        ledger: The ledger.
        accept_changes: Whether settings may differ that change the outcome.
        given: The jobs of the user's own prompts, where their file was read again.

    Returns:
        The settings that changed and were accepted, or ask for more.

    Raises:
        UsageError: The session is complete and nothing more is asked for; or settings differ that change
            the outcome, with the list of them and what the resume would cost; or the answers are in
            another ledger.
        LedgerError: The ledger cannot be read.
        SessionError: The jobs that the session took over are damaged.
    """
    name, before, record = resumption.folder.name, resumption.before, resumption.record
    changes = [] if before is None else changes_between(before, config)
    if accept_changes:
        return changes
    taken_over = resumption.foreign or record.adopted
    only_more = before is None or (asks_only_for_more(before, config, changes) and not taken_over)
    reasons = []
    if changes and not only_more:
        reasons.append(
            f"session {name} cannot be resumed as it is: the configuration differs from the one it began with"
        )
    if record.ledger not in {"", ledger.id}:
        reasons.append(f"session {name} has its answers in another ledger than this one")
    if reasons:
        reasons += lines_of_changes(changes)
        if given is not None and changes:
            reasons.append(
                "its prompts are those that its file held when it began: with --accept-changes, those of now"
            )
        elif taken_over and changes:
            reasons.append(
                "its subtopics and prompts were taken over: a resume keeps them and asks for no others"
            )
        reasons += await _costs(resumption, config, ledger, given)
        reasons.append("to go on all the same: --accept-changes; to keep both: run without resuming")
        raise UsageError(*reasons)
    if record.complete and not changes and not await _can_heal(record, config, ledger):
        more = "" if taken_over else "raise num_subtopics, or "
        short = ""
        if record.missing:
            short = f" but for {record.missing:,} pairs, for which the model had no more prompts that are new"
        raise UsageError(
            f"session {name} is complete{short}; to get more, {more}run without resuming for a new "
            "session; "
            "to have its files written anew from the ledger, for nothing: --accept-changes"
        )
    return changes


async def _can_heal(record: SessionRecord, config: Config, ledger: Ledger) -> bool:
    """Whether pairs are missing for questions that were refused; older versions called that complete."""
    return (
        config.generation.replaces
        and not record.adopted
        and bool(await refused_questions(ledger, record.id))
        and not await settled_refusals(record, config, ledger)
    )


async def settled_refusals(record: SessionRecord, config: Config, ledger: Ledger) -> dict[bytes, Failure]:
    """What a server refused of a session that has all its pairs without them, by key: it is left alone.

    Where pairs are missing, nothing is settled: a resume asks for all that is missing, and once more what was
    refused, for the server may have been mended.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    if not config.generation.replaces or record.adopted:
        return {}
    refused = await refused_questions(ledger, record.id)
    if not refused:
        return {}
    found = await survey(config, ledger, refused=refused, mends_forms=not record.complete)
    return refused if found.done - len(found.lost) >= config.generation.wanted_pairs else {}


async def _costs(
    resumption: Resumption, config: Config, ledger: Ledger, given: Sequence[Job] | None
) -> list[str]:
    """What going on would cost; of a session not taken over yet, the ledger knows nothing."""
    if resumption.foreign:
        return []
    if given is None:
        found = await survey_resumption(resumption.record, config, ledger)
    else:
        found = await survey(config, ledger, jobs=given)
    return ["what going on would cost:", *(f"  {line}" for line in cost_lines(found))]


async def survey_session(
    record: SessionRecord,
    config: Config,
    ledger: Ledger,
    keep: Callable[[Job, Pair | None], None] | None = None,
    *,
    refused: Mapping[bytes, Failure] | None = None,
    strict: bool = False,
) -> Survey:
    """What of a session is paid for under a configuration; one that took its jobs over has those.

    Args:
        record: The session.
        config: The configuration.
        ledger: The ledger.
        keep: See `survey`.
        refused: What is left alone; left out, all that was refused: the session as it stands. What a resume
            leaves alone is `settled_refusals`.
        strict: See `survey`.

    Raises:
        LedgerError: The ledger cannot be read.
        SessionError: The jobs that the session took over are damaged.
    """
    row = await find_session_row(ledger, record.id) if record.adopted else None
    subtopics, jobs = unpack_jobs(row.jobs) if row is not None and row.jobs is not None else (None, None)
    if refused is None:
        refused = await refused_questions(ledger, record.id) if config.generation.replaces else {}
    return await survey(
        config,
        ledger,
        keep,
        jobs=jobs,
        subtopics=subtopics,
        refused=refused,
        strict=strict,
        mends_forms=not record.complete,
    )


async def survey_resumption(record: SessionRecord, config: Config, ledger: Ledger) -> Survey:
    """What of a session is paid for, and what a resume would pay for.

    Raises:
        LedgerError: The ledger cannot be read.
        SessionError: The jobs that the session took over are damaged.
    """
    settled = await settled_refusals(record, config, ledger)
    return await survey_session(record, config, ledger, refused=settled)


async def survey_unfiltered(
    record: SessionRecord, config: Config, ledger: Ledger, keep: Callable[[Job, Pair | None], None]
) -> Survey:
    """What of a session is paid for, as `survey_session` gives it; `keep` gets also the pairs it keeps out.

    Which jobs there are depends on what was kept out and replaced, so that they are found first.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    found = await survey_session(record, config, ledger)
    await survey(unfiltered(config), ledger, keep, jobs=found.jobs, subtopics=found.subtopics)
    return found


MARGINS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
CHOSEN_SCORES = (3.0, 3.5, 4.0, 4.5, 5.0)
REJECTED_SCORES = (4.0, 3.5, 3.0, 2.5, 2.0)
RATIOS = (3.0, 2.0, 1.5, 1.25)
"""Values that are tried, beside the one that is set."""


@dataclass(slots=True)
class Tuned:
    """What a setting would keep of a session's judged pairs.

    Attributes:
        key: The setting; "" for the session as it is.
        value: Its value.
        of: Pairs that are judged.
        kept: Those that would be kept.
        scored: Those of them that have scores.
        chosen: Sum of the scores of their chosen sides.
        margin: Sum of the distances of their scores.
        longer: Those whose chosen side is the longer one.
    """

    key: str
    value: Any
    of: int = 0
    kept: int = 0
    scored: int = 0
    chosen: float = 0.0
    margin: float = 0.0
    longer: int = 0

    def add(self, pair: Pair, *, kept: bool) -> None:
        """Take a pair into account."""
        self.of += 1
        if not kept:
            return
        self.kept += 1
        if pair.rejected is not None:
            self.longer += len(pair.chosen.content) > len(pair.rejected.content)
        if pair.chosen_scores:
            self.scored += 1
            self.chosen += pair.chosen_scores.total
            self.margin += pair.chosen_scores.total - (pair.rejected_scores or pair.chosen_scores).total

    def document(self) -> dict[str, Any]:
        """The same as plain data, with means in place of sums; null where nothing is kept."""
        sums = {"chosen_score": self.chosen, "margin": self.margin}
        found = {name: round(total / self.scored, 4) if self.scored else None for name, total in sums.items()}
        found["chosen_longer"] = round(self.longer / self.kept, 4) if self.kept else None
        return {"setting": self.key, "value": self.value, "kept": self.kept, "of": self.of, **found}


async def tune(record: SessionRecord, config: Config, ledger: Ledger) -> list[Tuned]:
    """What other thresholds, and other choices among candidates, would keep of a session; asks for nothing.

    Args:
        record: The session.
        config: Its configuration.
        ledger: The ledger.

    Raises:
        UsageError: The session's pairs are not judged.
        LedgerError: The ledger cannot be read.
        SessionError: The jobs that the session took over are damaged.
    """
    if not is_judged(config):
        raise UsageError("its pairs have no scores: there is nothing to tune without a judge")
    tried = [(Tuned(key, value), _with_setting(config, key, value)) for key, value in _values(config)]
    # What is chosen depends on all of the section but the margin.
    rules = [other.candidates.model_dump_json(exclude={"min_margin"}) for _, other in tried]

    def keep(job: Job, pair: Pair | None) -> None:
        if pair is None or not (pair.chosen_scores or pair.comparisons):
            return
        chosen: dict[str, Pair] = {}
        for (found, other), rule in zip(tried, rules, strict=True):
            # What was compared stays as it came: of other pairs, nobody knows who would prefer which side.
            if pair.candidates and not pair.comparisons and rule not in chosen:
                chosen[rule] = choose(other, job, pair.candidates)
            one = chosen.get(rule, pair)
            found.add(one, kept=not kept_out(other, one))

    await survey_unfiltered(record, config, ledger, keep)
    return [found for found, _ in tried]


def _values(config: Config) -> Iterator[tuple[str, Any]]:
    """The settings that are tried, with their values: first the session as it is."""
    yield "", None
    choice, limits, mode = config.candidates, config.judge_filtering, config.generation.dataset_mode
    if mode != "mo-dpo" and is_scored(config):
        yield from _beside("judge_filtering.min_chosen_score", limits.min_chosen_score, CHOSEN_SCORES)
        if mode != "sft":
            yield from _beside(
                "judge_filtering.max_rejected_score", limits.max_rejected_score, REJECTED_SCORES
            )
    if mode == "sft":
        return
    if is_scored(config):
        yield from _beside("candidates.min_margin", choice.min_margin, MARGINS)
    judges = len(config.judging.models)
    if judges > 1:
        yield from (("judging.agree", number) for number in range(judges + 1))
    # Other pairs would have to be compared first.
    if chooses(config) and not is_compared(config):
        rules = get_args(CandidateChoice.model_fields["choose"].annotation)
        both = "rejected" in choice.models
        yield from (("candidates.choose", rule) for rule in rules if both or rule != "by_model")
        yield from _beside("candidates.max_length_ratio", choice.max_length_ratio, (0.0, *RATIOS))


def _beside(key: str, own: float, values: Sequence[float]) -> Iterator[tuple[str, float]]:
    yield from ((key, value) for value in sorted({own, *values}, reverse=values[0] > values[-1]))


def _with_setting(config: Config, key: str, value: Any) -> Config:
    """The configuration with another value; a threshold means that filtering is on."""
    section, _, name = key.partition(".")
    if not key:
        return config
    changes = {name: value} | ({"enabled": True} if section == "judge_filtering" else {})
    return config.model_copy(update={section: getattr(config, section).model_copy(update=changes)})
