"""Two runs at once with one ledger: `python -m tests.crash.together --times 10`.

Two processes of the command line are started in the same instant. Each call may be sent once, whatever their
configurations have in common; a budget holds for both together; when one of them is killed, the other one
takes over what it was paying for, and nothing is paid for twice but what was in flight. In SQLite and, unless
`--sqlite`, in PostgreSQL. Exit code 1 when that does not hold.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.session.record import read_record
from tests.crash.left import sessions_of
from tests.flows.command import PROGRAM, User, asked_twice, config, model, prefect_server, rows_of, until
from tests.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.flows.command import Model
    from tests.postgres import Postgres

SUBTOPICS, PROMPTS, CONCURRENCY = 3, 4, 4
CALLS_OF_A_JOB = {"dpo": 2, "mo-dpo": 4}
"""Calls of a job: in mo-dpo a judge scores both sides."""
LATENCY = 100.0
"""Milliseconds that an answer takes: long enough for both to want the same meanwhile."""
MOST_CALLS = 10
WAITS = "pays for some of the same calls"
"""What a run says that waits for another one's answer."""


@dataclass(frozen=True)
class Place:
    """Where runs are tried: a ledger of one kind, and the environment that reaches it.

    Attributes:
        folder: An empty folder.
        variables: Environment variables of the runs.
        ledgers: Where the ledgers are made; None for SQLite.
    """

    folder: Path
    variables: dict[str, str]
    ledgers: Postgres | None

    def user(self, name: str) -> User:
        """Somebody with an empty folder and a ledger of their own."""
        variables = dict(self.variables)
        if self.ledgers is not None:
            url = self.ledgers.make_database(f"{self.folder.name}_{name}".replace("-", "_").lower())
            variables |= {"VELLUMFORGE__OUTPUT__LEDGER": url, "PGPASSWORD": self.ledgers.password}
        return User.made(self.folder / name, **variables)


def settings(server: Model, mode: str = "dpo", *, subtopics: int = SUBTOPICS, more: str = "") -> str:
    """The configuration of a run."""
    return config(
        server.url, mode=mode, subtopics=subtopics, prompts=PROMPTS, concurrency=CONCURRENCY, more=more
    )


def calls_of(mode: str, subtopics: int = SUBTOPICS) -> int:
    """The calls of one run with the demo's models, which answer everything."""
    return 1 + subtopics + CALLS_OF_A_JOB[mode] * subtopics * PROMPTS


def same(place: Place, server: Model, mode: str) -> list[str]:
    """What is wrong after two runs of one configuration."""
    user = place.user(f"same-{mode}")
    user.write("config.toml", settings(server, mode))
    ends = [process.end() for process in [user.start("--json"), user.start("--json")]]
    if wrong := [f"code {ended.code}: {ended.err}" for ended in ends if ended.code]:
        return wrong
    one, two = ((session / "dataset.jsonl").read_bytes() for session in user.sessions())
    paid, sent = [ended.summary["paid"] for ended in ends], len(server.requests())
    found = _each_once(server, calls_of(mode))
    if one != two or one.count(b"\n") != SUBTOPICS * PROMPTS:
        found.append("the datasets differ, or lack rows")
    if sum(paid) != sent:
        found.append(f"they say that they paid for {paid} calls, of {sent}")
    return found


def overlapping(place: Place, server: Model, mode: str) -> list[str]:
    """What is wrong after three runs: one has one more subtopic, one another rejected model."""
    user = place.user(f"overlapping-{mode}")
    user.write("config.toml", settings(server, mode))
    runs = (
        (),
        ("--set", f"generation.num_subtopics={SUBTOPICS + 1}"),
        ("--set", "models.rejected.model_name=another"),
    )
    ends = [process.end() for process in [user.start("run", *options, program=PROGRAM) for options in runs]]
    if wrong := [f"code {ended.code}: {ended.err}" for ended in ends if ended.code]:
        return wrong
    # One more subtopic is another question for subtopics, and its prompts and answers.
    others = CALLS_OF_A_JOB[mode] // 2 * SUBTOPICS * PROMPTS
    more = calls_of(mode, SUBTOPICS + 1) - calls_of(mode)
    return _each_once(server, calls_of(mode) + more + others)


def budgeted(place: Place, server: Model, mode: str) -> list[str]:
    """What is wrong after two runs that may make so many calls."""
    user = place.user(f"budgeted-{mode}")
    user.write("config.toml", settings(server, mode, more=f"[budget]\nmax_calls = {MOST_CALLS}"))
    # Of two runs one after the other each may spend its budget: one waits for the other's first answer.
    with server.held():
        processes = [user.start(), user.start()]
        until(lambda: any(process.has_said(WAITS) for process in processes), "waiting for the other's answer")
    ends = [process.end() for process in processes]
    found = [f"code {ended.code}: {ended.err}" for ended in ends if "budget.max_calls" not in ended.err]
    sent = len(server.requests())
    # Those in flight are finished: of both runs, all calls of so many jobs.
    if not MOST_CALLS <= sent <= MOST_CALLS + 2 * CONCURRENCY * CALLS_OF_A_JOB[mode]:
        found.append(f"{sent} calls were sent, of {MOST_CALLS}")
    return found + [f"sent twice: {key}" for key in asked_twice(server.requests())]


def killed(place: Place, server: Model, mode: str, after: int) -> list[str]:
    """What is wrong after one of two runs was killed when so many calls had arrived, and resumed."""
    user = place.user(f"killed-{mode}")
    user.write("config.toml", settings(server, mode))
    one, other = user.start("--json"), user.start("--json")
    server.until_requests(after, one)
    one.kill()
    one.end()
    ended = other.end()
    if ended.code:
        return [f"code {ended.code}: {ended.err}"]
    twice = Counter(asked_twice(server.requests()))
    found = [f"sent {count + 1} times: {key}" for key, count in twice.items() if count > 1]
    if len(twice) > (most := CONCURRENCY * CALLS_OF_A_JOB[mode]):
        found.append(f"{len(twice)} calls were sent twice; in flight are {most} at most")
    before = len(server.requests())
    records = [(session, read_record(session)) for session in sessions_of(user)]
    for session in [session for session, record in records if record is None or not record.complete]:
        resumed = user.run("checkpoint", "resume", session.name, program=PROGRAM)
        found += [f"code {resumed.code}: {resumed.err}"] if resumed.code else []
    if len(server.requests()) != before:
        found.append("the resume of what was killed paid for something")
    if len({repr(rows_of(session)) for session in sessions_of(user)}) != 1:
        found.append("the datasets differ")
    return found


def _each_once(server: Model, calls: int) -> list[str]:
    sent = server.requests()
    found = [f"sent twice: {key}" for key in asked_twice(sent)]
    return found if len(sent) == calls else [*found, f"{len(sent)} calls were sent, of {calls}"]


def attempts(chance: random.Random) -> dict[str, Callable[[Place, Model, str], list[str]]]:
    """What is tried, by name."""
    return {
        "same": same,
        "overlapping": overlapping,
        "budgeted": budgeted,
        "killed": lambda place, server, mode: killed(
            place, server, mode, chance.randrange(2, calls_of(mode) * 3 // 4)
        ),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Try everything so often as the command line says; 1 when something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sqlite", action="store_true", help="without PostgreSQL")
    parser.add_argument("--only", choices=list(attempts(random.Random())))
    options = parser.parse_args(arguments)
    chance = random.Random(options.seed)
    broken = 0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="together-")))
        url = stack.enter_context(prefect_server(folder / "server", services=False))
        ledgers: dict[str, Postgres | None] = {"sqlite": None}
        if not options.sqlite:
            ledgers["postgresql"] = stack.enter_context(postgres())
        for time in range(options.times):
            for kind, server_of_ledgers in ledgers.items():
                variables = {"PREFECT_API_URL": url, "PREFECT_HOME": str(folder / "prefect")}
                place = Place(folder / f"{kind}-{time}", variables, server_of_ledgers)
                for mode in CALLS_OF_A_JOB:
                    for name, attempt in attempts(chance).items():
                        if options.only in {None, name}:
                            with model(latency_ms=LATENCY) as server:
                                found = attempt(place, server, mode)
                            broken += bool(found)
                            print(f"{kind}, {mode}, {name}: {'; '.join(found) or 'holds'}", flush=True)
    print(f"{broken} broken")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
