"""Datasets on their way to a Hub on loopback, by the command line: whole, once, private, without a secret."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from tests.core.hub.loading import REPO, all_loaded, loaded
from tests.core.hub.server import TOKEN, CutError, running
from tests.flows.command import PROGRAM, User, config, model, rows_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.core.hub.server import Hub
    from tests.flows.command import Ended, Model, Process

MORE = """
[output]
formats = ["native", "trl"]
test_share = 0.3

[huggingface]
repo_id = "ada/tides"
license = "cc-by-4.0"
"""

CONFIGURATIONS = {
    "sft": {"native", "sft", "sft-prompt-completion"},
    "dpo": {"native", "dpo"},
    "kto": {"native", "kto"},
    "mo-dpo": {"native", "dpo", "scores"},
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    """The Hub."""
    with running() as server:
        yield server


@pytest.fixture
def ada(user: User, hub: Hub) -> User:
    """A user with a token for it."""
    return knowing(user, hub)


def knowing(user: User, hub: Hub) -> User:
    """The user with a token for that Hub."""
    return User(user.home, user.folder, {**user.variables, "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN})


def upload(user: User, *words: str) -> Ended:
    """Run the command for the user's one session."""
    ended = user.run("upload", user.sessions()[0].name, *words, program=PROGRAM)
    assert "Traceback" not in ended.err
    return ended


def made(user: User, server: Model, mode: str = "dpo", more: str = MORE, *words: str) -> Ended:
    """A run of six prompts in three subtopics."""
    user.write("config.toml", config(server.url, mode=mode, more=more))
    return user.run(*words)


def written_by(user: User) -> bytes:
    """All that the user's processes wrote."""
    paths = (path for folder in (user.home, user.folder) for path in folder.rglob("*") if path.is_file())
    return b"\0".join(path.read_bytes() for path in paths)


def left_over(session: Path) -> list[str]:
    """What an upload left in the session's folder."""
    return [path.name for path in session.glob(".*") if path.name != ".lock"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, prefect_url: str) -> Path:
    """The folder of a user with a finished session, whose model server is gone."""
    where = tmp_path_factory.mktemp("finished")
    user = User.made(where, PREFECT_API_URL=prefect_url, PREFECT_HOME=str(where / "prefect"))
    with model() as server:
        assert made(user, server).code == 0
    return user.folder


@pytest.fixture
def ada_with_session(ada: User, finished: Path) -> User:
    """The same user with that session."""
    shutil.copytree(finished, ada.folder, dirs_exist_ok=True)
    return ada


def test_every_format_of_every_mode_is_uploaded_and_loads(
    ada: User, hub: Hub, demo_model: Model, tmp_path: Path
) -> None:
    repositories = [f"{REPO}-{mode}" for mode in CONFIGURATIONS]
    for mode, repo in zip(CONFIGURATIONS, repositories, strict=True):
        told = made(ada, demo_model, mode, MORE, "--fresh", "--upload-to-hf", "--repo", repo, "--json")
        assert (told.code, "Traceback" in told.err) == (0, False), told.err
        assert told.err.splitlines()[-1].startswith(f"{hub.url}/datasets/{repo} (private): ")
        assert [line for line in hub.asked if "agent" in line or "telemetry" in line] == []
        (session,) = (ada.folder / "output").glob("session_*")
        rows = session.rename(tmp_path / mode)
        assert told.summary["rows"] == len(rows_of(rows))
        assert left_over(rows) == []
        assert TOKEN not in told.out + told.err
    everything = all_loaded(hub, tmp_path / "reader", repositories)
    for (mode, names), repo, found in zip(CONFIGURATIONS.items(), repositories, everything, strict=True):
        assert set(found) == names | {""}
        for rows_by_split in found.values():
            assert min(rows_by_split["train"], rows_by_split["test"]) > 0
        assert sum(found["native"].values()) == len(rows_of(tmp_path / mode))
        card = hub.repositories[repo].files["README.md"].decode()
        for fact in ("license: cc-by-4.0", "strong\\-writer", "127\\.0\\.0\\.1", "## Lint", "## Cost"):
            assert fact in card
        assert "/v1" not in card

    # The last of them once more.
    rows.rename(session)
    again = upload(ada, "--repo", repo, "--json")
    assert (again.code, json.loads(again.out)["changed"]) == (0, False)
    assert [len(repository.commits) for repository in hub.repositories.values()] == [2] * len(repositories)
    assert TOKEN not in again.out + again.err
    assert TOKEN.encode() not in written_by(ada)


def test_killed_in_the_middle_of_a_file_it_goes_on_where_it_was(
    user: User, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, user.folder, dirs_exist_ok=True)
    with running() as whole, running() as in_parts:
        in_parts.part_size = 4_000
        for hub in (whole, in_parts):
            _is_killed_and_goes_on(user, hub)
        one, other = (hub.repositories[REPO].files for hub in (whole, in_parts))
        assert one == other
        found = loaded(in_parts, tmp_path / "reader")
    assert {name: sum(rows.values()) for name, rows in found.items()} == {"native": 6, "dpo": 6, "": 6}


def _is_killed_and_goes_on(user: User, hub: Hub) -> None:
    """An upload is killed in its third file, and another one finishes what it began."""
    ada = knowing(user, hub)
    (session,) = ada.sessions()
    process = ada.start("upload", session.name, program=PROGRAM)

    def kill(read: int) -> None:
        if len(hub.objects) == 2 and read > 1_000:
            process.kill()
            raise CutError

    hub.at_piece = kill
    process.end()
    assert len(hub.objects) == 2, "two files were whole, and the third one was cut"
    assert set(hub.repositories[REPO].files) == {".gitattributes"}, "nothing is seen before all is there"
    assert left_over(session) != []

    whole = set(hub.objects)
    hub.at_piece, hub.uploads = lambda _: None, []
    told = upload(ada)
    assert (told.code, told.out) == (0, f"{hub.url}/datasets/{REPO} (private): 5 files\n")
    assert left_over(session) == []
    assert not [path for path in hub.uploads for oid in whole if oid in path], (
        "what was whole is not sent again"
    )
    assert len(hub.uploads) == len(set(hub.uploads)), "and nothing is sent twice"
    data = {path: text for path, text in hub.repositories[REPO].files.items() if path.startswith("data/")}
    assert len(data) == 4
    assert {hashlib.sha256(text).hexdigest() for text in data.values()} == set(hub.objects)


def test_killed_at_any_request_it_is_done_once_when_it_is_repeated(ada_with_session: User, hub: Hub) -> None:
    (session,) = ada_with_session.sessions()
    killed: list[str] = []

    def kill_at(pattern: str) -> None:
        started: list[Process] = []

        class Heard(list[str]):
            def append(self, request: str) -> None:
                super().append(request)
                if re.search(pattern, request):
                    # What it asked for is done all the same: it does not learn so.
                    until(lambda: bool(started), "its start")
                    killed.append(pattern)
                    started[0].kill()
                    started[0].end()

        hub.asked = Heard()
        started.append(ada_with_session.start("upload", session.name, program=PROGRAM))
        assert started[0].end().code == -signal.SIGKILL
        hub.asked = []

    for pattern in ("validate-yaml", "repos/create", "preupload", "objects/batch", "PUT .*/store", "commit"):
        kill_at(pattern)
    assert len(set(killed)) == 6
    told = upload(ada_with_session, "--json")
    assert told.code == 0, told.err
    done = json.loads(told.out)
    # Whether the last one that was killed had sent all of its commit is chance, and with it `changed`.
    assert done["files"] == 5
    assert len(hub.repositories[REPO].commits) == 2, "the repository's own, and one of ours"
    assert len(hub.uploads) - len(set(hub.uploads)) <= 1
    assert left_over(session) == []


def test_ctrl_c_ends_it_at_once_and_leaves_nothing(ada_with_session: User, hub: Hub) -> None:
    (session,) = ada_with_session.sessions()
    process = ada_with_session.start("upload", session.name, program=PROGRAM)

    def interrupt(_: int) -> None:
        process.send(signal.SIGINT)
        until(lambda: not process.running, "its end while the Hub does not answer")
        raise CutError

    hub.at_piece = interrupt
    ended = process.end()
    assert (ended.code, "Traceback" in ended.err) == (130, False), ended.err
    assert left_over(session) == []
    hub.at_piece = lambda _: None
    assert upload(ada_with_session).code == 0


def test_an_upload_that_fails_spoils_no_run_and_says_the_command_to_repeat(
    ada: User, hub: Hub, demo_model: Model
) -> None:
    hub.answers["POST .*/batch"] = (403, {"X_Error_Message": f"no: {TOKEN}"}, {"error": TOKEN})
    told = made(ada, demo_model, "dpo", MORE, "--upload-to-hf", "--public")
    assert (told.code, "6 rows (dpo)" in told.out) == (1, True)
    what, repeat = told.err.splitlines()[-2:]
    assert what.startswith(
        f"vellumforge2: the token may not write to {REPO}: no: *** ***; give it write access"
    )
    session = ada.sessions()[0]
    assert len(rows_of(session)) == 6
    assert json.loads((session / "session.json").read_bytes())["complete"]
    assert TOKEN not in told.out + told.err
    assert TOKEN.encode() not in written_by(ada)

    command = repeat.partition("; to upload it: vellumforge2 ")[2]
    assert command == f"upload {session.name} --repo {REPO} --public"
    hub.answers.clear()
    paid = len(demo_model.requests())
    done = ada.run(*shlex.split(command), program=PROGRAM)
    assert (done.code, done.out) == (0, f"{hub.url}/datasets/{REPO} (public): 5 files\n"), done.err
    assert len(demo_model.requests()) == paid


def test_without_token_or_name_a_run_does_not_even_begin(user: User, hub: Hub, demo_model: Model) -> None:
    told = made(user, demo_model, "dpo", MORE, "--upload-to-hf")
    assert (told.code, "there is no token for the Hugging Face Hub: set HF_TOKEN" in told.err) == (2, True)
    told = made(user, demo_model, "dpo", "", "--upload-to-hf")
    assert (told.code, "give --repo OWNER/NAME, or set huggingface.repo_id" in told.err) == (2, True)
    told = made(user, demo_model, "dpo", "", "--upload-to-hf", "--repo", "../../etc")
    assert (told.code, "is no name of a repository" in told.err) == (2, True)
    told = made(user, demo_model, "dpo", "", "--public")
    assert (told.code, "are for --upload-to-hf" in told.err) == (2, True)
    assert (demo_model.requests(), user.sessions(), hub.asked) == ([], [], [])


def test_a_token_of_the_env_file_is_used_and_never_shown(user: User, hub: Hub, finished: Path) -> None:
    shutil.copytree(finished, user.folder, dirs_exist_ok=True)
    # Nothing about the Hub stands in the configuration.
    user.write("config.toml", (user.folder / "config.toml").read_text().replace(MORE, ""))
    user.write(".env", f"HF_TOKEN={TOKEN}\n")
    ada = User(user.home, user.folder, {**user.variables, "HF_ENDPOINT": hub.url})
    hub.answers["GET .*/tides"] = (500, {}, {"error": f"trouble with {TOKEN}"})
    told = upload(ada, "--repo", REPO)
    assert (told.code, told.out, TOKEN in told.err) == (1, "", False)
    assert told.err.splitlines()[-1].startswith("vellumforge2: the Hub has trouble of its own (HTTP 500): ")
    hub.answers.clear()
    assert upload(ada, "--repo", REPO, "--format", "trl", "--test-share", "0", "--license", "mit").code == 0
    files = hub.repositories[REPO].files
    assert sorted(files) == [".gitattributes", "README.md", "data/dpo/train-00000-of-00001.parquet"]
    assert b"license: mit\n" in files["README.md"]


def test_what_is_not_finished_is_uploaded_only_by_wish(ada: User, hub: Hub, demo_model: Model) -> None:
    stopped = MORE.replace("0.3", "0.0") + "\n[budget]\nmax_calls = 10\n"
    ada.write("config.toml", config(demo_model.url, concurrency=1, more=stopped))
    told = ada.run("--upload-to-hf")
    assert told.code == 3
    session = ada.sessions()[0]
    again = f"vellumforge2 upload {session.name} --repo {REPO}"
    assert f"nothing was uploaded; once the session is complete: {again}\n" in told.err
    assert hub.asked == []
    refused = upload(ada)
    assert (refused.code, hub.asked) == (2, [])
    assert "is not finished: go on with `vellumforge2 checkpoint resume" in refused.err
    (session / "dataset.jsonl").rename(session / "mine.jsonl")
    done = upload(ada, "--partial")
    assert (done.code, done.err.count("file ")) == (0, 2), done.err
    card = hub.repositories[REPO].files["README.md"].decode()
    rows = len(rows_of(session, "mine.jsonl"))
    assert 0 < rows < 6
    assert f"| native | train | {rows} | 1 |" in card
    assert "| complete | no" in card
    assert "## Lint" not in card


def test_bad_input_is_said_in_a_line(ada: User, hub: Hub) -> None:
    for words, reason in (
        (("--license", "My Licence"), "--license My Licence: allowed: "),
        (("--test-share", "2"), "--test-share 2.0: allowed: 0 to 1"),
        (("--repo", "tides"), "'tides' is no name of a repository"),
        (("--format", "csv"), "--format"),
        (("--repo", REPO), "there is no session session_2026-01-01T00-00-00"),
    ):
        told = ada.run("upload", "session_2026-01-01T00-00-00", *words, program=PROGRAM)
        assert (told.code, told.out, hub.asked) == (2, "", []), words
        assert reason in told.err
        assert len(told.err.splitlines()) == 1, words
