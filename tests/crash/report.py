"""What came of killing runs: figures, and the laws that they must keep."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields

from tests.crash.blows import PHASES, Kind


@dataclass
class Report:
    """The figures of all runs of a mode; `+` adds those of others.

    Attributes:
        mode: The dataset mode.
        runs: Runs that were killed and brought to their end.
        rows: Rows of their datasets.
        duplicates: Rows beyond those of the undisturbed run that are there more than once.
        missing: Rows of the undisturbed run that are not there.
        different: Datasets that are not the undisturbed one, byte for byte.
        kills: Kills by kind and phase.
        calls: Calls that the runs need.
        paid: Calls that arrived at the server.
        twice: Calls that arrived a further time.
        in_flight: Calls that had arrived at a kill and whose answers were not kept: after a SIGTERM those
            that the grace did not let finish.
        most_in_flight: The most of them at one kill.
        kept_again: Calls made although their answers were kept.
        needless: Calls that the undisturbed run does not make.
        sessions: Sessions beyond one a run.
        empty: Folders left behind by runs that were killed before their session was there.
        torn: Unfinished files left behind in complete sessions.
        orphans: Processes left behind, embedded Prefect servers above all.
        faults: Whatever else went wrong, in words.
        history: Every kill, in words.
    """

    mode: str
    runs: int = 0
    rows: int = 0
    duplicates: int = 0
    missing: int = 0
    different: int = 0
    kills: Counter[tuple[Kind, str]] = field(default_factory=Counter)
    calls: int = 0
    paid: int = 0
    twice: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    kept_again: int = 0
    needless: int = 0
    sessions: int = 0
    empty: int = 0
    torn: int = 0
    orphans: int = 0
    faults: list[str] = field(default_factory=list)
    history: list[str] = field(default_factory=list)

    def __add__(self, other: Report) -> Report:
        both = Report(self.mode)
        for name in (item.name for item in fields(self)):
            if name == "most_in_flight":
                both.most_in_flight = max(self.most_in_flight, other.most_in_flight)
            elif name != "mode":
                setattr(both, name, getattr(self, name) + getattr(other, name))
        return both

    def broken(self) -> list[str]:
        """The laws that do not hold."""
        laws = {
            "a dataset is not that of the undisturbed run": self.different,
            "rows are double": self.duplicates,
            "rows are missing": self.missing,
            "more calls were paid for twice than were in flight": self.twice > self.in_flight,
            "calls were made although their answers were kept": self.kept_again,
            "calls were made that the undisturbed run does not make": self.needless,
            "a run has more than one session": self.sessions,
            "processes were left behind": self.orphans,
            "folders of sessions that never were were left behind": self.empty,
            "unfinished files were left behind": self.torn,
        }
        return [*(law for law, is_broken in laws.items() if is_broken), *self.faults]

    def lines(self) -> list[str]:
        """The figures, a line each."""
        where = [
            f"{sum(found.values())} {kind}: " + ", ".join(f"{n} {phase}" for phase, n in found.items())
            for kind in Kind
            if (found := {phase: n for phase in PHASES if (n := self.kills[kind, phase])})
        ]
        figures = [
            f"{self.rows} rows, {self.duplicates} duplicates, {self.missing} missing",
            f"{self.runs - self.different} of {self.runs} datasets identical to the undisturbed one",
            f"{self.paid} calls paid, {self.calls} needed, {self.twice} paid twice",
            f"{self.in_flight} calls in flight at the kills, at most {self.most_in_flight} at one",
            f"{self.kept_again} calls made although kept, {self.needless} needless",
            f"{self.sessions} sessions too many",
            f"left behind: {self.orphans} processes, {self.empty} empty folders, {self.torn} torn files",
        ]
        title = f"{self.mode}: {self.kills.total()} kills of {self.runs} runs"
        return [title, *(f"  {line}" for line in [*where, *figures])]
