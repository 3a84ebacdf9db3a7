"""The command `vellumforge2 failures`: what a session could not do, by phase, cause and attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.workspace import Workspace
    from tasks.core.ledger.failures import FailureGroup
    from tasks.core.models import Failure
    from tasks.core.session.retrying import Answered

MOST_SHOWN = 50
MOST_LISTED = 1_000_000
"""Failures that are shown, and that `--json` lists."""
MESSAGE_SHOWN = 200
ITEM_SHOWN = 60
ANSWER_SHOWN = 600
VARIABLE_SHOWN = 200


def failures(
    session: str,
    /,
    *,
    show: bool = False,
    json: bool = False,
    config: str | None = None,
    output: str | None = None,
) -> int:
    """List what a session could not do, in all its runs, by phase, cause and attempts.

    Args:
        session: The session's name, as the list shows it.
        show: Print a few answers of each cause as they came, with what was asked.
        json: Print one JSON object, with every failure and the id of its request.
        config: The configuration file that names the output folder and ledger; config.toml when left out.
        output: The output folder, in place of output.folder.
    """
    # Imported here: help is there at once.
    import asyncio  # noqa: PLC0415
    from dataclasses import asdict  # noqa: PLC0415

    import orjson  # noqa: PLC0415

    from flows.workspace import Workspace  # noqa: PLC0415

    place = Workspace(config, output)
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
        print(orjson.dumps(document).decode())  # noqa: T201 - the command's output
    else:
        shown = _answer_lines(answers) if show else []
        print("\n".join(_lines(session, groups, found, shown, complete=complete)))  # noqa: T201 - the same
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
    from tasks.core.errors import UsageError  # noqa: PLC0415 - help is there at once
    from tasks.core.ledger.failures import failure_groups, last_failures  # noqa: PLC0415 - the same
    from tasks.core.session.folder import find_session  # noqa: PLC0415 - the same
    from tasks.core.session.listing import is_finished  # noqa: PLC0415 - the same
    from tasks.core.session.record import read_record, restore_record  # noqa: PLC0415 - the same
    from tasks.core.session.retrying import unusable_answers  # noqa: PLC0415 - the same

    folder = find_session(place.folder, session)
    async with place.ledger() as ledger:
        await restore_record(folder, ledger)
        record = read_record(folder)
        if record is None:
            raise UsageError(f"session {session} is not in this ledger, which is where failures are listed")
        groups = await failure_groups(ledger, record.id)
        found = await last_failures(ledger, record.id, 0.0, most)
        answers = await unusable_answers(ledger, record) if show else []
    return groups, found, is_finished(folder), answers


def _lines(
    session: str,
    groups: Sequence[FailureGroup],
    found: Sequence[Failure],
    answers: Sequence[str],
    *,
    complete: bool,
) -> list[str]:
    from tasks.core.models import UNUSABLE  # noqa: PLC0415 - help is there at once

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
        open_ones: Sequence[FailureGroup] = [group for group in groups if group.cause not in UNUSABLE]
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
    from tasks.core.generation.losses import what_helps  # noqa: PLC0415 - help is there at once
    from tasks.core.printable import printable_line, visible_text  # noqa: PLC0415 - the same

    if not answers:
        return ["", "None of what is listed brought an answer.", ""]
    lines: list[str] = [""]
    last: tuple[str, ...] = ()
    for item in answers:
        kind = (item.phase, item.purpose, item.cause)
        if kind != last:
            helps = what_helps(item.cause)
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
    from tasks.core.printable import printable_line  # noqa: PLC0415 - help is there at once

    attempts = f"{item.attempts:,} attempt{'' if item.attempts == 1 else 's'}"
    request = f", request {item.request}" if item.request else ""
    return [
        f"{printable_line(item.item, ITEM_SHOWN)}: {item.purpose}, {item.cause}, {attempts}{request}",
        f"  {printable_line(item.message, MESSAGE_SHOWN)}",
    ]
