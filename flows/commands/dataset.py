"""The commands over what a session made: `lint`, `report`, `tune`, `export`, `upload` and `failures`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from flows.late import when_used
from flows.process.terminal import tell, tell_json
from flows.request import HERE, WITH_KEYS, AtKeyedLocation, AtLocation, Json, Session
from tasks.core.errors import UsageError
from tasks.core.printable import printable_line, visible_text

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Sequence

    from flows import hub, workspace
    from flows.request import Location
    from flows.workspace import Workspace
    from tasks.core import models
    from tasks.core.config import values
    from tasks.core.config.settings import FileType
    from tasks.core.export.rows import Exported
    from tasks.core.generation import losses
    from tasks.core.hub import upload as uploading
    from tasks.core.ledger import failures as listed
    from tasks.core.ledger.failures import FailureGroup
    from tasks.core.ledger.ledger import Ledger
    from tasks.core.lint import linter
    from tasks.core.lint.report import Report
    from tasks.core.models import Failure, Job, Pair
    from tasks.core.report import page, tally
    from tasks.core.session import dataset as rows
    from tasks.core.session import exporting, listing, record, resuming, retrying
    from tasks.core.session import folder as folders
    from tasks.core.session.exporting import ExportRequest
    from tasks.core.session.resuming import Tuned
    from tasks.core.session.retrying import Answered
else:
    asyncio, hub, workspace = when_used("asyncio", "flows.hub", "flows.workspace")
    (models,) = when_used("tasks.core.models")
    values, losses, uploading, listed = when_used(
        "tasks.core.config.values",
        "tasks.core.generation.losses",
        "tasks.core.hub.upload",
        "tasks.core.ledger.failures",
    )
    linter, page, tally = when_used(
        "tasks.core.lint.linter", "tasks.core.report.page", "tasks.core.report.tally"
    )
    rows, exporting, folders, listing, record, resuming, retrying = when_used(
        "tasks.core.session.dataset",
        "tasks.core.session.exporting",
        "tasks.core.session.folder",
        "tasks.core.session.listing",
        "tasks.core.session.record",
        "tasks.core.session.resuming",
        "tasks.core.session.retrying",
    )


def lint(
    dataset: str,
    /,
    location: AtLocation = HERE,
    *,
    fail_on: tuple[str, ...] = (),
    max_tokens: int | None = None,
    json: Json = False,
) -> int:
    """Look for what is wrong with a dataset: equal sides, length bias, refusals, broken-off answers and more.

    Exit code 1: more was found than --fail-on allows. Exit code 2: some lines are no rows.

    Args:
        dataset: A session's name, as the list shows it, or a file of rows of any mode.
        fail_on: CHECK or CHECK=SHARE, e.g. identical,markup=0.1; may be given several times. More than this
            share of what the check looks at, or any finding where no share is given, is exit code 1.
        max_tokens: Tokens, by estimate, that a prompt with one answer may have.
    """
    if max_tokens is not None and max_tokens < 1:
        raise UsageError(f"--max-tokens {max_tokens}: a row has at least one token")
    allowed = linter.read_gates(fail_on, max_tokens=max_tokens)
    path = _file(dataset, location)
    found = linter.lint_file(path, max_tokens=max_tokens)
    if not found.rows and not found.bad_lines:
        raise UsageError(f"{path} holds no rows")
    if json:
        tell_json({"file": str(path), **found.document()})
    elif found.rows:
        tell(str(path), *found.lines())
    if found.bad_lines:
        raise UsageError(*_bad_lines(path, found))
    linter.check_gates(found, allowed)
    return 0


def _file(dataset: str, location: Location) -> Path:
    """The file that is meant: what is named like a session is one, unless there is a file of that name.

    Raises:
        UsageError: There is no such file or session.
    """
    path = Path(dataset)
    if path.is_file():
        return path
    if dataset.startswith(folders.PREFIX) and path.name == dataset and path.suffix != ".jsonl":
        path = folders.find_session(workspace.Workspace(location).folder, dataset)
    file = path / rows.DATASET if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"there is no file {str(file)!r}: give a session's name or a file of rows")
    return file


def _bad_lines(path: Path, report: Report) -> list[str]:
    lines = [f"{path}:{bad.line}: {bad.reason}" for bad in report.first_bad_lines]
    more = report.bad_lines - len(lines)
    return [*lines, f"and {more:,} more lines that are no rows"] if more else lines


MOST_FAILURES = 1_000_000


def report(session: Session, /, location: AtLocation = HERE) -> int:
    """Write the session's report.html: its rows, its cost and what lint found. No model is asked."""
    tell(str(asyncio.run(_write(workspace.Workspace(location), session))))
    return 0


async def _write(place: Workspace, session: str) -> Path:
    """Write the report of a session from its files and the ledger.

    Raises:
        UsageError: There is no such session, no ledger, no record of the session, or no dataset.
        LedgerError: The ledger cannot be read.
        SessionError: The report cannot be written.
    """
    folder = folders.find_session(place.folder, session)
    async with place.ledger() as ledger:
        await record.restore_record(folder, ledger)
        found = resuming.find_resumption(folder)
        if found.foreign or found.before is None:
            raise UsageError(
                f"session {session} is VellumForge2's; resume it first, then its report is there"
            )
        done: set[int] = set()

        def note(job: Job, _pair: Pair | None) -> None:
            done.add(job.id)

        walked = await resuming.survey_session(found.record, found.before, ledger, note)
        facts = await tally.facts_of(
            ledger,
            found.record,
            folder.name,
            found.before,
            subtopics=walked.subtopics,
            jobs=walked.jobs,
            dropped=walked.dropped,
            lost=dict(Counter(walked.lost.values()).most_common()),
            failed=await _failed(ledger, found.record.id, walked.jobs, done),
            opinions=walked.opinions,
        )
    return page.write_report(folder, facts)


async def _failed(ledger: Ledger, session: str, jobs: Iterable[Job], done: set[int]) -> dict[str, int]:
    """Why jobs are not done, by the cause that was listed last."""
    left = {f"job {job.id}": "not asked yet" for job in jobs if job.id not in done}
    for failure in await listed.last_failures(ledger, session, 0.0, MOST_FAILURES) if left else ():
        if failure.item in left:
            left[failure.item] = failure.cause
    return dict(Counter(left.values()).most_common())


# Said once more, for the settings' own types bring the whole configuration with them; a test compares them.
Format = Literal["native", "trl"]
AnyFormat = Literal["native", "trl", "ranked"]
Mode = Literal["sft", "dpo", "kto", "mo-dpo"]
Reasoning = Literal["none", "inline", "reasoning_content"]


def export(
    session: Session,
    /,
    location: AtLocation = HERE,
    *,
    output_format: Annotated[AnyFormat, Parameter(name="--format")],
    mode: Mode | None = None,
    parquet: bool = False,
    jsonl: bool = False,
    reasoning: Reasoning | None = None,
    test_share: float | None = None,
    seed: int | None = None,
    into: Path | None = None,
    partial: bool = False,
    json: Json = False,
) -> int:
    """Write a finished session's dataset as files for trainers. Nothing is asked and nothing paid for.

    What is left out is as the session's own [output] has it.

    Args:
        output_format: trl, which TRL's trainers take as it is; native, the session's own rows; or ranked, all
            answers to each prompt, the best first, where [candidates] asks for several.
        mode: The mode of the rows, in place of the session's own: of mo-dpo also dpo, kto and sft.
        parquet: Write Parquet.
        jsonl: Write JSON lines.
        reasoning: The models' reasoning: none, inline in think tags before the answer, or reasoning_content,
            a field of its own in the answer's message.
        test_share: Share of the pairs, 0 to 1, for a test split of whole subtopics.
        seed: Another number chooses other subtopics for it, and mixes kto otherwise.
        into: A folder for it that is not there yet; one in the session's own folder when left out.
        partial: Export what there is of a session that is not finished.
    """
    if parquet and jsonl:
        raise UsageError("one file type at a time: leave out --parquet or --jsonl")
    if test_share is not None and not 0 <= test_share <= 1:
        raise UsageError(f"--test-share {test_share}: allowed: 0 to 1")
    if seed is not None and not 0 <= seed <= values.MOST:
        raise UsageError(f"--seed {seed}: allowed: 0 to {values.MOST}")
    request = exporting.ExportRequest(
        output_format, mode, _file_type(parquet, jsonl), reasoning, test_share, seed, into, partial=partial
    )
    exported = asyncio.run(_export(workspace.Workspace(location), session, request))
    if json:
        tell_json({"session": session, "folder": str(exported.folder), "files": exported.files})
    else:
        tell(*_lines(exported))
    return 0


def _file_type(parquet: bool, jsonl: bool) -> FileType | None:  # noqa: FBT001 - as they were given
    if parquet:
        return "parquet"
    return "jsonl" if jsonl else None


async def _export(place: Workspace, session: str, request: ExportRequest) -> Exported:
    folder = folders.find_session(place.folder, session)
    async with place.ledger() as ledger:
        return await exporting.export_dataset(folder, ledger, request)


def _lines(exported: Exported) -> list[str]:
    width = max(len(file.path) for file in exported.files)
    return [
        f"{exported.folder}:",
        *(f"  {file.path:<{width}}  {file.rows:>9,} rows  {file.size:>13,} bytes" for file in exported.files),
    ]


def upload(
    session: Session,
    /,
    location: AtKeyedLocation = WITH_KEYS,
    *,
    repo: str = "",
    public: bool = False,
    licence: Annotated[str | None, Parameter(name="--license")] = None,
    formats: Annotated[tuple[Format, ...], Parameter(name="--format")] = (),
    test_share: float | None = None,
    partial: bool = False,
    json: Json = False,
) -> int:
    """Upload a finished session's dataset to the Hugging Face Hub, with a card. Nothing is paid for.

    The repository is private unless --public. Run it again after an interruption: what is there already is
    not sent again.

    Args:
        repo: The dataset repository, as OWNER/NAME; huggingface.repo_id when left out.
        public: Make the repository for everybody to see. One that is there already stays as it is.
        licence: Its licence as the Hub names it; huggingface.license when left out, and none without that.
        formats: native or trl; may be given several times. As the session's own [output] when left out.
        test_share: Share of the pairs, 0 to 1, for a test split of whole subtopics.
        partial: Upload what there is of a session that is not finished.
    """
    try:
        values.check_license(licence or "")
    except ValueError as error:
        raise UsageError(f"--license {licence}: {error}") from error
    if test_share is not None and not 0 <= test_share <= 1:
        raise UsageError(f"--test-share {test_share}: allowed: 0 to 1")
    place = workspace.Workspace(location)
    if not repo:
        words = [word for name in formats for word in ("--format", name)]
        words += ["--license", licence] if licence else []
        words += [] if test_share is None else ["--test-share", str(test_share)]
        flags = {"--public": public, "--partial": partial, "--json": json}
        words += [flag for flag, given in flags.items() if given]
        again = location.trusting("upload", session, *words)
        repo = hub.repository(place, session, again, trusted=location.trust_session)
    to = hub.destination(repo, public=public, env_file=location.env_file)
    wanted = uploading.UploadRequest(to.repo, licence, formats, test_share, partial=partial)
    done = hub.send(place, session, wanted, to)
    if json:
        tell_json(asdict(done))
    else:
        tell(hub.in_words(done))
    return 0


MOST_SHOWN = 50
MOST_LISTED = 1_000_000
"""Failures that are shown, and that `--json` lists."""
MESSAGE_SHOWN = 200
ITEM_SHOWN = 60
ANSWER_SHOWN = 600
VARIABLE_SHOWN = 200


def tune(session: Session, /, location: AtLocation = HERE, *, json: Json = False) -> int:
    """Say what other thresholds, and other choices among candidates, would keep of a session.

    Nothing is asked. A resume with such a setting and --accept-changes then keeps just that, for nothing.
    """
    place = workspace.Workspace(location)
    found = asyncio.run(_tuned(place, session))
    if json:
        tell_json({"session": session, "settings": [item.document() for item in found]})
    else:
        tell(*_tuned_lines(found))
    return 0


async def _tuned(place: Workspace, session: str) -> list[Tuned]:
    folder = folders.find_session(place.folder, session)
    async with place.ledger() as ledger:
        await record.restore_record(folder, ledger)
        found = resuming.find_resumption(folder)
        if found.foreign or found.before is None:
            raise UsageError(f"the settings of session {session} are not known; resume it first")
        if found.record.ledger not in {"", ledger.id}:
            raise UsageError(f"session {session} has its answers in another ledger than this one")
        return await resuming.tune(found.record, found.before, ledger)


def _tuned_lines(found: Sequence[Tuned]) -> list[str]:
    """A line for each setting, in columns; those of one setting stand together."""
    lines = [f"{'':34}{'kept':>16}{'chosen':>9}{'margin':>9}{'chosen longer':>16}"]
    before = ""
    for item in found:
        name = f"{item.key} = {item.value}" if item.key else "as it is"
        if item.key != before:
            lines.append("")
        before = item.key
        numbers = item.document()
        kept = f"{item.kept:,} of {item.of:,}"
        means = [numbers[name] for name in ("chosen_score", "margin", "chosen_longer")]
        shown = [f"{'' if mean is None else format(mean, '.2f'):>9}" for mean in means[:2]]
        share = "" if means[2] is None else format(means[2], ".0%")
        lines.append(f"{name.partition('.')[2] or name:34}{kept:>16}{''.join(shown)}{share:>16}")
    return lines


def failures(
    session: Session,
    /,
    location: AtLocation = HERE,
    *,
    show: bool = False,
    json: bool = False,
) -> int:
    """List what a session could not do, in all its runs, by phase, cause and attempts.

    Args:
        show: Print a few answers of each cause as they came, with what was asked.
        json: Print one JSON object, with every failure and the id of its request.
    """
    place = workspace.Workspace(location)
    most = MOST_LISTED if json else MOST_SHOWN
    groups, found, complete, answers = asyncio.run(_read(place, session, most, show=show))
    if json:
        document: dict[str, Any] = {
            "session": session,
            "complete": complete,
            "groups": [asdict(group) for group in groups],
            "failures": [asdict(item) for item in found],
        }
        if show:
            document["answers"] = [asdict(item) for item in answers]
        tell_json(document)
    else:
        shown = _answer_lines(answers) if show else []
        tell(*_failure_lines(session, groups, found, shown, complete=complete))
    return 0


async def _read(
    place: Workspace, session: str, most: int, *, show: bool
) -> tuple[list[FailureGroup], list[Failure], bool, list[Answered]]:
    """The session's failures in groups, so many of them one by one, whether it is complete, and answers.

    Raises:
        UsageError: There is no such session, no ledger, or no record of the session.
        LedgerError: The ledger cannot be read.
        SessionError: The jobs that the session took over are damaged.
    """
    folder = folders.find_session(place.folder, session)
    async with place.ledger() as ledger:
        await record.restore_record(folder, ledger)
        of_session = record.read_record(folder)
        if of_session is None:
            raise UsageError(f"session {session} is not in this ledger, which is where failures are listed")
        groups = await listed.failure_groups(ledger, of_session.id)
        found = await listed.last_failures(ledger, of_session.id, 0.0, most)
        answers = await retrying.unusable_answers(ledger, of_session) if show else []
    return groups, found, listing.is_finished(folder), answers


def _failure_lines(
    session: str,
    groups: Sequence[FailureGroup],
    found: Sequence[Failure],
    answers: Sequence[str],
    *,
    complete: bool,
) -> list[str]:
    if not groups:
        return [f"No failures are listed for session {session}."]
    total = sum(group.count for group in groups)
    lines = [f"Failures of {session}, in all its runs: {total:,}", ""]
    lines.append(f"{'PHASE':<10} {'CALL':<10} {'CAUSE':<20} {'ATTEMPTS':>8} {'FAILURES':>9}")
    lines += [
        f"{group.phase:<10} {group.purpose:<10} {group.cause:<20} {group.attempts:>8,} {group.count:>9,}"
        for group in groups
    ]
    lines.append("")
    for item in found:
        lines += _item_lines(item)
    if total > len(found):
        lines.append(f"and {total - len(found):,} more; --json lists them all")
    lines += answers
    if complete:
        lines.append("The session is complete: what is listed came about later, or was replaced.")
    else:
        lines.append(f"To ask for what is missing: vellumforge2 checkpoint resume {session}")
        # What cannot be used is paid for, and as a rule replaced.
        open_ones: Sequence[FailureGroup] = [group for group in groups if group.cause not in models.UNUSABLE]
        if not open_ones:
            lines.append(
                "Where only answers are missing that cannot be used, for further ones: "
                f"vellumforge2 retry {session}"
            )
        cause = max(open_ones or groups, key=lambda group: group.count).cause
        lines.append(f"To ask only for some of it: vellumforge2 retry {session} --only cause={cause}")
    return lines


def _answer_lines(answers: Sequence[Answered]) -> list[str]:
    """A few answers of each cause as they came; their texts are those of models."""
    if not answers:
        return ["", "None of what is listed brought an answer.", ""]
    lines: list[str] = [""]
    last: tuple[str, ...] = ()
    for item in answers:
        kind = (item.phase, item.purpose, item.cause)
        if kind != last:
            helps = losses.what_helps(item.cause)
            words = f"; what helps: {helps}" if helps else ""
            lines.append(f"{item.cause}, answers to {item.purpose} calls{words}")
            last = kind
        message = printable_line(item.message, MESSAGE_SHOWN)
        lines += ["", f"  {printable_line(item.item, ITEM_SHOWN)}: {message}"]
        lines += [
            f"  {name}: {printable_line(value, VARIABLE_SHOWN)}"
            for name, value in item.variables.items()
            if value != item.item
        ]
        is_answer = bool(item.answer.strip())
        text = item.answer if is_answer else item.reasoning
        name = "answer" if is_answer else "reasoning, and no answer"
        shown = visible_text(text, ANSWER_SHOWN)
        cut = f" (cut: {len(text):,} characters)" if len(text) > ANSWER_SHOWN else ""
        ended = f", ended with {printable_line(item.finish_reason, ITEM_SHOWN)}" if item.finish_reason else ""
        lines.append(f"  {name}{ended}{cut}:")
        lines += [f"    | {line}" for line in shown.split("\n")]
    return [*lines, ""]


def _item_lines(item: Failure) -> list[str]:
    """A failure in two lines; its texts are those of models and servers."""
    attempts = f"{item.attempts:,} attempt{'' if item.attempts == 1 else 's'}"
    request = f", request {item.request}" if item.request else ""
    return [
        f"{printable_line(item.item, ITEM_SHOWN)}: {item.purpose}, {item.cause}, {attempts}{request}",
        f"  {printable_line(item.message, MESSAGE_SHOWN)}",
    ]
