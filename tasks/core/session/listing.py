"""Sessions as people see them: the list, and one of them in detail. The forms are VellumForge2's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.core.errors import SessionError
from tasks.core.models import Phase
from tasks.core.session.find import all_sessions
from tasks.core.session.reading import read_checkpoint
from tasks.core.session.record import read_record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tasks.core.session.reading import Checkpoint
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


def render_list(sessions: Sequence[Listed]) -> str:
    """The list as text."""
    if not sessions:
        return "No sessions found."
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
    return "\n".join(lines)


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


def render_checkpoint(session: str, checkpoint: Checkpoint) -> str:
    """One checkpoint in detail, as text."""
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
    return "\n".join(lines)


def render_ending(session: str, *, complete: bool) -> str:
    """How an inspection ends: what can be done with the session."""
    if complete:
        return "This session is complete."
    return (
        "To resume this session, run:\n"
        f'  Set resume_from_session = "{session}" in config.toml\n'
        f"  OR use: vellumforge2 checkpoint resume {session}"
    )


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
