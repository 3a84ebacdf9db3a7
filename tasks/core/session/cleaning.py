"""Old sessions removed: only what is finished, unless the user insists, and never one that is written to."""

from __future__ import annotations

import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.core.errors import SessionError, UsageError
from tasks.core.models import Phase
from tasks.core.session.find import all_sessions
from tasks.core.session.lock import SessionLockedError, locked
from tasks.core.session.reading import read_checkpoint
from tasks.core.session.record import read_record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGE = re.compile(r"(\d{1,9})([smhdw])")


@dataclass(frozen=True, slots=True)
class Verdict:
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
) -> list[Verdict]:
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
) -> list[Verdict]:
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
            verdicts.append(Verdict(folder, remove=False, reason=f"one of the last {keep_last}"))
        elif older_than is not None and age < older_than:
            verdicts.append(Verdict(folder, remove=False, reason="too young"))
        elif is_finished(folder):
            verdicts.append(Verdict(folder, remove=True, reason="finished"))
        else:
            reason = "not finished, and --force was given" if force else "not finished; needs --force"
            verdicts.append(Verdict(folder, remove=force, reason=reason))
    return verdicts


def remove_sessions(verdicts: Sequence[Verdict]) -> list[Verdict]:
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
                doomed = folder.with_name(f".removed-{folder.name}")
                if doomed.exists():
                    shutil.rmtree(doomed)  # Left by a removal that was cut off.
                shutil.rmtree(folder.rename(doomed))
        except SessionLockedError as error:
            outcome.append(Verdict(folder, remove=False, reason=str(error)))
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
