"""Sessions for people: their checkpoints read, a line for each, and old ones removed."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.core import files
from tasks.core.errors import SessionError, UsageError
from tasks.core.models import Phase
from tasks.core.session.checkpoint import (
    read_checkpoint,
)
from tasks.core.session.folder import SessionLockedError, all_sessions, locked
from tasks.core.session.record import read_record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tasks.core.session.checkpoint import (
        Checkpoint,
    )
    from tasks.core.session.record import Counts


WIDTH = 80
NAME_WIDTH = 35


@dataclass(frozen=True, slots=True)
class Listed:
    """A session in the list.

    Attributes:
        session: The folder's name.
        checkpoint: `Yes`, `No`, or `Damaged`.
        phase: The phase being worked on, `complete`, or `N/A` when nothing is known.
        progress: Share of the jobs that are done, 0 to 1; of the pairs that are there, where that is known.
        counts: What became of its prompts, where that is known.
    """

    session: str
    checkpoint: str
    phase: str
    progress: float
    counts: Counts | None = None


def list_sessions(output: Path) -> list[Listed]:
    """All sessions under the output folder, newest first."""
    return [_listed(folder) for folder in all_sessions(output)]


def render_list(sessions: Sequence[Listed]) -> list[str]:
    """The list as lines of text."""
    if not sessions:
        return ["No sessions found."]
    lines = [
        "Available sessions:",
        "",
        f"{'SESSION':<{NAME_WIDTH}} {'CHECKPOINT':<12} {'PHASE':<12} PROGRESS",
        "-" * WIDTH,
    ]
    lines += [
        f"{item.session:<{NAME_WIDTH}} {item.checkpoint:<12} {item.phase:<12} {_progress(item)}"
        for item in sessions
    ]
    return lines


def _progress(item: Listed) -> str:
    # In the last column, so that the others stand where programs of before look for them.
    return f"{item.progress:<8.1%} {item.counts.in_words()}" if item.counts else f"{item.progress:.1%}"


def _listed(folder: Path) -> Listed:
    record = read_record(folder)
    counts = record.counts if record else None
    phase, progress = ("N/A", 0.0) if counts is None else (str(Phase.PAIRS), counts.share)
    if record is not None and record.complete:
        phase, progress = str(Phase.COMPLETE), 1.0
    try:
        checkpoint = read_checkpoint(folder)
    except SessionError:
        return Listed(folder.name, "Damaged", "N/A", 0.0, counts)
    if checkpoint is None:
        return Listed(folder.name, "No", phase, progress, counts)
    if checkpoint.current_phase is Phase.COMPLETE or counts is None:
        progress = checkpoint.progress
    return Listed(folder.name, "Yes", str(checkpoint.current_phase), progress, counts)


def render_checkpoint(session: str, checkpoint: Checkpoint) -> list[str]:
    """One checkpoint in detail, as lines of text."""
    done, total = len(checkpoint.completed), len(checkpoint.prompts)
    share = f" ({done / total:.1%})" if total else ""
    stats = checkpoint.stats
    lines = [
        f"Checkpoint Information for: {session}",
        "=" * WIDTH,
        f"Session ID:          {checkpoint.session_id}",
        f"Created At:          {_time(checkpoint.created_at)}",
        f"Last Saved At:       {_time(checkpoint.last_saved_at)}",
        f"Current Phase:       {checkpoint.current_phase}",
        f"Config Hash:         {checkpoint.config_hash}",
        "",
        "Phase Progress:",
        f"  Subtopics:         {_state(len(checkpoint.subtopics), complete=checkpoint.subtopics_complete)}",
        f"  Prompts:           {_state(total, complete=checkpoint.prompts_complete)}",
        f"  Preference Pairs:  {done} / {total} completed{share}",
        "",
        "Statistics:",
        f"  Total Prompts:     {stats.total}",
        f"  Successful:        {stats.succeeded}",
        f"  Failed:            {stats.failed}",
        f"  Total Duration:    {go_duration(stats.total_duration)}",
        f"  Average Duration:  {go_duration(stats.average_duration)}",
    ]
    if stats.filtered:
        # They are among those that are completed.
        lines.insert(-2, f"  Without a Pair:    {stats.filtered}")
    return lines


def render_ending(session: str, *, complete: bool) -> list[str]:
    """How an inspection ends: what can be done with the session."""
    if complete:
        return ["This session is complete."]
    return [
        "To resume this session, run:",
        f'  Set resume_from_session = "{session}" in config.toml',
        f"  OR use: vellumforge2 checkpoint resume {session}",
    ]


def go_duration(nanoseconds: int) -> str:
    """A duration as Go prints it: `15m32s`, `3.09s`, `9.924624ms`, `827.052µs`, `0s`."""
    if nanoseconds == 0:
        return "0s"
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    for unit, size in (("ns", 1), ("\N{MICRO SIGN}s", 10**3), ("ms", 10**6)):
        if rest < size * 1000:
            return f"{sign}{_decimal(rest, size)}{unit}"
    minutes, within = divmod(rest, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(within, 10**9)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else f"{sign}{text}"


def _decimal(value: int, unit: int) -> str:
    """`value / unit` exactly, without trailing zeros."""
    whole, part = divmod(value, unit)
    digits = f"{part:0{len(str(unit)) - 1}d}".rstrip("0") if unit > 1 else ""
    return f"{whole}.{digits}" if digits else str(whole)


def _time(text: str) -> str:
    """`2026-01-31 12:00:00` from RFC 3339."""
    return text[:19].replace("T", " ")


def _state(count: int, *, complete: bool) -> str:
    return f"Complete ({count} items)" if complete else "Incomplete"


UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGE = re.compile(r"(\d{1,9})([smhdw])")


@dataclass(frozen=True, slots=True)
class Removal:
    """What happens to a session: whether it is removed, and why or why not."""

    folder: Path
    remove: bool
    reason: str

    def line(self, *, dry_run: bool) -> str:
        """The verdict as one line of text."""
        word = ("would be removed" if dry_run else "removed") if self.remove else "kept"
        return f"{self.folder.name}: {word} ({self.reason})"


def parse_age(text: str) -> int:
    """Seconds from an age such as `30d`, `12h` or `2w`.

    Raises:
        UsageError: It is none.
    """
    found = _AGE.fullmatch(text)
    if found is None:
        raise UsageError(f"{text!r} is no age; give a number and a unit: 45m, 12h, 30d, 2w")
    return int(found[1]) * UNITS[found[2]]


def clean_sessions(
    output: Path, *, older_than: str, keep_last: int, dry_run: bool, force: bool
) -> list[Removal]:
    """Remove sessions that are old enough and done; returns what became of each, newest first.

    Args:
        output: The output folder.
        older_than: Only sessions whose files did not change for so long, e.g. `30d`; "" for any age.
        keep_last: So many of the newest sessions stay, whatever their age.
        dry_run: Whether it is only said which would be removed.
        force: Whether sessions that are not finished may be removed too.

    Raises:
        UsageError: Neither an age nor a number is given, or one that is none.
        SessionError: A folder cannot be read or removed.
    """
    age = parse_age(older_than) if older_than else None
    if age is None and not keep_last:
        raise UsageError("say which sessions: --older-than 30d, --keep-last 5, or both")
    verdicts = judge_sessions(output, now=time.time(), older_than=age, keep_last=keep_last, force=force)
    return verdicts if dry_run else remove_sessions(verdicts)


def judge_sessions(
    output: Path, *, now: float, older_than: int | None, keep_last: int, force: bool
) -> list[Removal]:
    """What is to be removed, newest session first; nothing is touched.

    Args:
        output: The output folder.
        now: The current time in seconds since the epoch.
        older_than: Only sessions whose files did not change for so many seconds; None for any age.
        keep_last: So many of the newest sessions stay, whatever their age.
        force: Whether sessions that are not finished may be removed too.

    Raises:
        UsageError: `keep_last` is negative.
        SessionError: A folder cannot be read.
    """
    if keep_last < 0:
        raise UsageError(f"{keep_last} sessions cannot be kept; give 0 or more")
    verdicts = []
    for place, folder in enumerate(all_sessions(output)):
        age = now - _changed(folder)
        if place < keep_last:
            verdicts.append(Removal(folder, remove=False, reason=f"one of the last {keep_last}"))
        elif older_than is not None and age < older_than:
            verdicts.append(Removal(folder, remove=False, reason="too young"))
        elif is_finished(folder):
            verdicts.append(Removal(folder, remove=True, reason="finished"))
        else:
            reason = "not finished, and --force was given" if force else "not finished; needs --force"
            verdicts.append(Removal(folder, remove=force, reason=reason))
    return verdicts


def remove_sessions(verdicts: Sequence[Removal]) -> list[Removal]:
    """Remove what the verdicts say; returns what became of each.

    A session that is being written to stays. A folder is renamed before it is emptied, so that a removal
    which was cut off leaves no half session in the list.

    Raises:
        SessionError: A folder cannot be removed.
    """
    outcome = []
    for verdict in verdicts:
        if not verdict.remove:
            outcome.append(verdict)
            continue
        folder = verdict.folder
        try:
            with locked(folder):
                files.remove_folder(folder)
        except SessionLockedError as error:
            outcome.append(Removal(folder, remove=False, reason=str(error)))
        except OSError as error:
            raise SessionError(f"{folder} cannot be removed: {error.strerror}") from error
        else:
            outcome.append(verdict)
    return outcome


def _changed(folder: Path) -> float:
    """When a file of the session was changed last, in seconds since the epoch."""
    latest = 0.0
    try:
        for path in list(folder.iterdir()) or [folder]:
            with suppress(FileNotFoundError):  # A file in the making: its writer has renamed it meanwhile.
                latest = max(latest, path.lstat().st_mtime)
    except OSError as error:
        raise SessionError(f"{folder} cannot be read: {error.strerror}") from error
    return latest


def is_finished(folder: Path) -> bool:
    """Whether every job of the session is done, as its record says, else its checkpoint."""
    record = read_record(folder)
    if record is not None:
        return record.complete
    try:
        checkpoint = read_checkpoint(folder)
    except SessionError:
        return False
    return checkpoint is not None and checkpoint.current_phase is Phase.COMPLETE
