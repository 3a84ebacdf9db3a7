"""The demo: a dataset without key, network or configuration; again for nothing; anew with --fresh."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.flows.command import PROGRAM, outlives, rows_of, until

if TYPE_CHECKING:
    from tests.flows.command import User


def test_the_demo_costs_nothing_twice_and_is_new_when_fresh(lone_user: User, prefect_url: str) -> None:
    user = lone_user
    estimated = user.run("--demo", "--dry-run")
    assert estimated.code == 0, estimated.err
    assert "demo-strong" in estimated.out
    assert not [*user.folder.iterdir()]
    process = user.start("--demo")
    until(lambda: bool(process.children()), "the embedded server")
    servers = process.children()
    first = process.end()
    assert (first.code, first.err) == (0, "")
    assert first.out.startswith("12 rows (dpo) in ")
    assert "paid for 29 calls" in first.out
    assert not outlives(servers, 5), "the embedded server is still there"
    assert not [*user.home.iterdir()], "something was created in the user's home"

    # Whichever server takes the notes, the ledger is the same.
    server = {"PREFECT_API_URL": prefect_url, "PREFECT_HOME": str(user.folder / "output" / ".prefect")}
    again = user.run("run", "--demo", program=PROGRAM, **server)
    assert (again.code, again.err) == (0, "")
    assert "paid for nothing: all 29 answers came from the ledger; run with --fresh" in again.out

    fresh = user.run("--demo", "--fresh", "--json", **server)
    assert (fresh.code, fresh.err) == (0, "")
    assert fresh.summary["rows"] == 12
    # A second prompt that is double, or a refusal, would cost another call.
    assert fresh.summary["paid"] >= 29

    more = user.run("--demo", "--set", "generation.num_subtopics=10", "--json", **server)
    assert (more.code, more.summary["rows"]) == (0, 30), more.err
    assert "length_bias" not in [finding["check"] for finding in more.summary["lint"]["findings"]]

    one, two, three, _ = (rows_of(session) for session in user.sessions())
    assert one == two
    assert len(one) == len(three) == 12
    assert not [row for row in three if row in one]
    assert {path.name for path in user.folder.iterdir()} == {"output"}
    sessions = {session.name for session in user.sessions()}
    assert {path.name for path in (user.folder / "output").iterdir()} == {".prefect", "ledger.db"} | sessions
