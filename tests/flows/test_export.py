"""`vellumforge2 export`: another mode's dataset out of a session's answers, and what cannot be had."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest

from flows.commands import dataset as command
from tasks.core.config import settings as models
from tasks.core.export.rows import ExportFormat
from tests.flows.command import PROGRAM, User, config, model, rows_of

if TYPE_CHECKING:
    from tests.flows.command import Ended

FILTERED = """
[judge_filtering]
enabled = true
use_explanations = true
min_chosen_score = 3.9
max_rejected_score = 2.4
"""
SUBTOPICS, PROMPTS = 6, 5
PAIRS = SUBTOPICS * PROMPTS
OUTPUT = '[output]\nformats = ["native", "trl"]\ntest_share = 0.3\nreasoning = "inline"\n'


def export(user: User, *words: str) -> Ended:
    ended = user.run("export", *words, program=PROGRAM)
    assert "Traceback" not in ended.err
    return ended


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines_in(folder: Path) -> list[bytes]:
    return [line for path in sorted(folder.rglob("*.jsonl")) for line in path.read_bytes().splitlines()]


def test_the_command_knows_the_values_of_the_settings() -> None:
    assert get_args(command.Format) == get_args(models.OutputFormat)
    assert get_args(command.AnyFormat) == get_args(ExportFormat)
    assert get_args(command.Mode) == get_args(models.DatasetMode)
    assert get_args(command.Reasoning) == get_args(models.Reasoning)


def test_what_each_mode_would_have_replaced_is_what_is_replaced_in_its_export(user: User) -> None:
    with model(refuse=0.15, bad=0.1, reasoning=0.5) as server:
        text = config(
            server.url,
            mode="mo-dpo",
            subtopics=SUBTOPICS,
            prompts=PROMPTS,
            models="max_retries = 0",
            generation="similarity_threshold = 1\nmin_success_rate = 0.2",
            more=OUTPUT,
            replaced=True,
        )
        user.write("config.toml", text)
        first = user.run("--json")
        assert first.code == 0, first.err
        assert {"bad_scores", "refused"} <= first.summary["lost"].keys()
        (session,) = user.sessions()
        asked = len(server.requests())
        for mode in ("dpo", "kto", "sft"):
            made = user.run("--json", "--set", f"generation.dataset_mode={mode}")
            assert (made.code, made.summary["paid"], made.summary["kept"]) == (0, 0, PAIRS), made.err
            # What the judge spoiled is no loss there, so that other pairs are in it.
            assert "bad_scores" not in made.summary["lost"]
            theirs = user.sessions()[-1]
            assert export(user, session.name, "--format", "trl", "--mode", mode).err == ""
            assert contents(session / f"trl-{mode}") == contents(theirs / "trl")
            options = ("--jsonl", "--test-share", "0", "--into", f"{mode}-rows")
            assert export(user, session.name, "--format", "native", "--mode", mode, *options).err == ""
            rows = [json.loads(line) for line in lines_in(user.folder / f"{mode}-rows")]
            assert rows == rows_of(theirs)
            assert mode != "dpo" or {row["prompt"] for row in rows} != {
                row["prompt"] for row in rows_of(session)
            }
        assert len(server.requests()) == asked


def test_of_a_mo_dpo_session_comes_what_other_modes_write_of_the_pairs_that_thresholds_let_through(
    user: User,
) -> None:
    with model(reasoning=0.5) as server:
        text = config(server.url, mode="mo-dpo", subtopics=4, prompts=5, more=OUTPUT + FILTERED)
        user.write("config.toml", text)
        assert user.run().code == 0
        (session,) = user.sessions()
        asked = len(server.requests())
        for mode in ("dpo", "kto", "sft"):
            made = user.run("--json", "--set", f"generation.dataset_mode={mode}")
            assert (made.code, made.summary["paid"]) == (0, 0), made.err
            (theirs,) = set(user.sessions()) - {session}
            dataset = rows_of(theirs)
            assert 0 < len(dataset) < 20 * (2 if mode == "kto" else 1)

            # The run's own folder of that mode, and the one exported from the mo-dpo session: each byte.
            assert export(user, session.name, "--format", "trl", "--mode", mode).err == ""
            assert contents(session / f"trl-{mode}") == contents(theirs / "trl")
            options = ("--jsonl", "--test-share", "0", "--into", f"{mode}-rows")
            assert export(user, session.name, "--format", "native", "--mode", mode, *options).err == ""
            assert [json.loads(line) for line in lines_in(user.folder / f"{mode}-rows")] == dataset
            for path in sorted(theirs.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            theirs.rmdir()
        assert len(server.requests()) == asked
        assert len(rows_of(session)) == 20


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, prefect_url: str) -> Path:
    """The folder of a user with a finished session of six pairs."""
    where = tmp_path_factory.mktemp("finished")
    home = str(where / "prefect")
    user = User.made(where, PREFECT_API_URL=prefect_url, PREFECT_HOME=home).in_one_process()
    with model() as server:
        user.write("config.toml", config(server.url, subtopics=3, prompts=2))
        assert user.run().code == 0
    return user.folder


def test_an_export_is_told_of_and_replaces_the_one_before(user: User, finished: Path) -> None:
    shutil.copytree(finished, user.folder, dirs_exist_ok=True)
    (session,) = user.sessions()
    assert not (session / "trl").exists()
    told = export(user, session.name, "--format", "trl", "--json", "--test-share", "0.4")
    document = json.loads(told.out)
    assert document["folder"] == str(Path("output", session.name, "trl"))
    assert [(file["path"], file["rows"]) for file in document["files"]] == [
        ("data/dpo/train-00000-of-00001.parquet", 4),
        ("data/dpo/test-00000-of-00001.parquet", 2),
    ]
    again = export(user, session.name, "--format", "trl", "--jsonl")
    assert "data/dpo/train-00000-of-00001.jsonl          6 rows" in again.out
    assert list(contents(session / "trl")) == ["data/dpo/train-00000-of-00001.jsonl"]
    row = json.loads(lines_in(session / "trl")[0])
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    assert "Lighthouse keepers & the sea" in row["prompt"][0]["content"]
    assert (row["prompt"][1]["content"], row["chosen"][0]["content"]) == (
        rows_of(session)[0]["prompt"],
        rows_of(session)[0]["chosen"],
    )
    assert not [path for path in session.iterdir() if path.name.startswith(".") and path.is_dir()]


def test_what_cannot_be_exported_is_said_in_a_line(user: User) -> None:
    with model() as server:
        user.write("config.toml", config(server.url, mode="sft", subtopics=1, prompts=2))
        assert user.run().code == 0
    (session,) = user.sessions()
    (user.folder / "full").mkdir()
    (user.folder / "full" / "mine.txt").touch()
    for words, reason in (
        (("--mode", "dpo"), f"session {session.name} was made in mode sft, whose calls do not hold what dpo"),
        (("--test-share", "0.5"), f"session {session.name} has one subtopic, and a test split takes whole"),
        (("--into", "full"), "there is something at full: name a folder that is not there yet"),
        (("--into", "full/mine.txt"), "full/mine.txt can be no folder: it is a file; name another one"),
        (("--parquet", "--jsonl"), "one file type at a time"),
        (("--test-share", "2"), "--test-share 2.0: allowed: 0 to 1"),
        (("--seed", "-1"), "--seed -1: allowed: 0 to "),
        (("--mode", "ppo"), 'Invalid value "ppo" for --mode'),
    ):
        ended = export(user, session.name, "--format", "trl", *words)
        assert (ended.code, reason in ended.err) == (2, True), ended.err
    native = export(user, session.name, "--format", "native", "--reasoning", "reasoning_content")
    assert (native.code, "native rows have no field for the reasoning" in native.err) == (2, True)
    assert export(user, "session_2026-01-01T00-00-00", "--format", "trl").code == 2

    (user.folder / "output" / "ledger.db").rename(user.folder / "elsewhere.db")
    lost = export(user, session.name, "--format", "trl")
    assert (lost.code, "there is no ledger at output/ledger.db" in lost.err) == (2, True), lost.err
    assert not (session / "trl").exists()


def test_a_session_that_is_not_finished_is_exported_as_far_as_it_is(user: User, finished: Path) -> None:
    shutil.copytree(finished, user.folder, dirs_exist_ok=True)
    (session,) = user.sessions()
    record = session / "session.json"
    record.write_text(record.read_text().replace('"complete": true', '"complete": false'))
    refused = export(user, session.name, "--format", "trl")
    assert (refused.code, "is not finished: go on with" in refused.err) == (2, True)
    assert export(user, session.name, "--format", "trl", "--partial", "--jsonl").code == 0
    assert len(lines_in(session / "trl")) == 6

    more = '--set=output.formats=["native", "trl"]'
    resumed = user.run("checkpoint", "resume", session.name, "--json", more, program=PROGRAM)
    assert (resumed.code, resumed.summary["paid"], resumed.summary["exported"]) == (0, 0, {"dpo": 6})
    assert [Path(name).suffix for name in contents(session / "trl")] == [".parquet"]
    assert export(user, session.name, "--format", "trl", "--into", "later").code == 0
    assert contents(user.folder / "later") == contents(session / "trl")
