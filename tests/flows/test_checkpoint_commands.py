"""The commands that look after sessions and the ledger, as processes."""

from __future__ import annotations

import json
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from tests.flows.command import CHECKPOINT, PROGRAM, User, asked_twice, config, model

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flows.command import Ended, Model


def tell(user: User, *words: str) -> Ended:
    """Run a command that needs no Prefect; none may say anything on standard error when it succeeds."""
    ended = user.run(*words, program=PROGRAM)
    assert "Traceback" not in ended.err
    assert bool(ended.err) == (ended.code != 0 and not ended.out)
    return ended


def checkpoint(user: User, *words: str) -> Ended:
    return tell(user, "checkpoint", *words)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, prefect_url: str) -> Path:
    """The folder of a user with a finished session of six pairs."""
    where = tmp_path_factory.mktemp("finished")
    home = str(where / "prefect")
    user = User.made(where, PREFECT_API_URL=prefect_url, PREFECT_HOME=home).in_one_process()
    with model() as server:
        user.write("config.toml", config(server.url))
        assert user.run().code == 0
    return user.folder


def test_sessions_are_listed_inspected_compared_and_cleaned(user: User, finished: Path) -> None:
    empty = checkpoint(user, "list")
    assert (empty.code, empty.out) == (0, "No sessions found.\n")

    shutil.copytree(finished, user.folder, dirs_exist_ok=True)
    text = (user.folder / "config.toml").read_text()
    (session,) = user.sessions()
    name = session.name

    listed = checkpoint(user, "list").out
    assert listed.startswith("Available sessions:\n\nSESSION ")
    columns, _, pairs = listed.splitlines()[-1].partition("kept")
    assert columns.split() == [name, "Yes", "complete", "100.0%"]
    assert pairs == " 6 of 6 · tried 6"
    assert user.run("list", program=CHECKPOINT).out == listed
    row = {"session": name, "checkpoint": "Yes", "phase": "complete", "progress": 1.0}
    (as_json,) = json.loads(checkpoint(user, "list", "--json").out)
    assert row.items() <= as_json.items()

    told = checkpoint(user, "inspect", name).out
    assert told.startswith(f"Checkpoint Information for: {name}\n{'=' * 80}\n")
    assert "  Subtopics:         Complete (3 items)\n" in told
    assert "  Preference Pairs:  6 / 6 completed (100.0%)\n" in told
    assert "  Paid calls:        16 (" in told
    assert told.endswith("This session is complete.\n")
    document = json.loads(checkpoint(user, "inspect", name, "--json").out)
    assert (document["complete"], document["spent"]["calls"]) == (True, 16)
    assert document["checkpoint"]["current_phase"] == "complete"

    same = checkpoint(user, "diff", name)
    assert (same.code, "the settings are the same" in same.out) == (0, True)
    user.write("other.toml", text.replace("[models.rejected]", "[models.rejected]\ntemperature = 0.25"))
    changed = checkpoint(user, "diff", name, "--config", "other.toml")
    assert "models.rejected.temperature: 0.7 -> 0.25 (changes pairs)" in changed.out
    assert "pairs: 6 calls reused, 6 to be paid for" in changed.out
    itself = checkpoint(user, "diff", name, name)
    assert "prompts: 6 common, 0 and 0 not" in itself.out

    would = checkpoint(user, "clean", "--older-than", "0s", "--dry-run")
    assert (would.code, would.out) == (0, f"{name}: would be removed (finished)\n")
    kept = checkpoint(user, "clean", "--keep-last", "1")
    assert (kept.code, kept.out) == (0, f"{name}: kept (one of the last 1)\n")

    sound = tell(user, "ledger", "check")
    assert (sound.code, sound.out) == (0, "output/ledger.db is sound: 16 answers\n")
    # Without its record the session is still known to the ledger: none of its answers is anybody's.
    (session / "session.json").unlink()
    unused = tell(user, "ledger", "prune", "--dry-run")
    assert (unused.code, unused.out) == (0, "0 of 16 answers are used by no session\n")

    assert checkpoint(user, "clean", "--older-than", "0s").out == f"{name}: removed (finished)\n"
    assert user.sessions() == []
    removed = tell(user, "ledger", "prune")
    assert removed.out == "16 of 16 answers are used by no session and were removed\n"
    assert tell(user, "ledger", "check").out == "output/ledger.db is sound: 0 answers\n"


def test_a_record_that_is_torn_or_gone_is_put_back_by_inspect_and_diff(user: User, finished: Path) -> None:
    shutil.copytree(finished, user.folder, dirs_exist_ok=True)
    (session,) = user.sessions()
    record = session / "session.json"
    whole = record.read_bytes()

    record.write_bytes(whole[: len(whole) // 2])
    shown = checkpoint(user, "inspect", session.name).out
    assert "Paid calls:        16" in shown
    assert shown.endswith("This session is complete.\n")
    assert record.read_bytes() == whole
    record.unlink()
    compared = checkpoint(user, "diff", session.name)
    assert "the settings are the same" in compared.out
    assert "pairs: 12 calls reused, 0 to be paid for" in compared.out
    assert record.read_bytes() == whole


def test_an_emptied_ledger_is_never_silently_begun_anew(
    user: User, demo_model: Model, finished: Path
) -> None:
    shutil.copytree(finished, user.folder, dirs_exist_ok=True)
    user.write("config.toml", config(demo_model.url))
    (session,) = user.sessions()
    ledger = user.folder / "output" / "ledger.db"
    ledger.write_bytes(b"")
    for ended in (
        user.run(),
        checkpoint(user, "inspect", session.name),
        tell(user, "ledger", "prune"),
    ):
        assert (ended.code, ended.out) == (1, "")
        assert "vellumforge2: the ledger output/ledger.db is damaged: it is empty, and there are" in ended.err
    checked = tell(user, "ledger", "check")
    assert (checked.code, "output/ledger.db: it is empty" in checked.out) == (1, True)
    assert ledger.read_bytes() == b""
    assert demo_model.requests() == []


def test_what_cannot_be_done_is_said_and_has_an_exit_code(user: User) -> None:
    for words, reason in (
        (("inspect", "session_2026-01-01T00-00-00"), "there is no session session_2026-01-01T00-00-00"),
        (("resume", "../session_2026-01-01T00-00-00"), "is no session's name"),
        (("diff", "output"), "is no session's name"),
        (("clean",), "say which sessions"),
        (("clean", "--older-than", "soon"), "'soon' is no age"),
        (("inspect",), "--help"),
    ):
        ended = checkpoint(user, *words)
        assert (words, ended.code) == (words, 2)
        assert reason in ended.err
    assert list(user.folder.iterdir()) == []

    output = user.folder / "output"
    output.mkdir()
    (output / "ledger.db").write_bytes(b"SQLite format 3\0" + bytes(4096))
    damaged = tell(user, "ledger", "check")
    assert damaged.code == 1
    assert "ledger salvage" in damaged.out + damaged.err


def test_an_exported_session_goes_on_elsewhere_and_pays_only_for_the_rest(user: User) -> None:
    with model(latency_ms=200.0) as server:
        user.write("config.toml", config(server.url, prompts=4, concurrency=2))
        process = user.start()
        assert server.until_requests(1 + 3 + 6, process)
        process.send(signal.SIGINT)
        assert process.end().code == 130
        (session,) = user.sessions()
        paid = len(server.requests())

        shown = checkpoint(user, "inspect", session.name).out
        assert shown.endswith(f"OR use: vellumforge2 checkpoint resume {session.name}\n")
        exported = checkpoint(user, "export", session.name, "--to", "moved.zip")
        assert (exported.code, f"with {paid} calls" in exported.out) == (0, True)
        imported = checkpoint(user, "import", "moved.zip", "--output", "elsewhere")
        assert imported.code == 0
        (moved,) = user.sessions("elsewhere")
        assert moved.name == session.name

        ended = user.run(
            "checkpoint", "resume", moved.name, "--output", "elsewhere", "--json", program=PROGRAM
        )
        assert ended.code == 0, ended.err
        assert (ended.summary["paid"], ended.summary["rows"]) == (1 + 3 + 24 - paid, 12)
        assert not asked_twice(server.requests())
        assert _rows(moved) == 12
        again = checkpoint(user, "import", "moved.zip", "--output", "elsewhere")
        assert (again.code, _rows(moved)) == (2, 12)


def _rows(session: Path) -> int:
    return len((session / "dataset.jsonl").read_bytes().splitlines())
