"""What cannot be used is refused in readable lines, before anything is created or Prefect is imported."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from flows.commands.app import main
from tests.flows.command import MODULE, PROGRAM, User, config

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

URL = "http://127.0.0.1:9/v1"
GOOD = config(URL)

FILES: dict[str, tuple[str, list[str]]] = {
    "not TOML": (
        "[generation\n",
        ["config.toml: is not TOML: line 1, column 12: Expected ']' at the end of a table declaration"],
    ),
    "an unknown key": (
        GOOD.replace("concurrency =", "concurency ="),
        ["config.toml: generation.concurency: unknown key; did you mean generation.concurrency?"],
    ),
    "a wrong type": (
        GOOD.replace("concurrency = 8", 'concurrency = "8"'),
        ["config.toml: generation.concurrency: "],
    ),
    "a missing model": (
        GOOD.replace("[models.rejected]", "[models.judge_of_old]"),
        ["config.toml: models.judge_of_old: unknown", "config.toml: models.rejected: is missing; "],
    ),
    "an unknown variable": (
        GOOD.replace("{{.SubTopic}}", "{{.Subject}}"),
        ["config.toml: prompt_templates.prompt_generation: "],
    ),
    "a host that is none": (
        GOOD.replace(URL, "http://my host/v1", 1),
        ["config.toml: models.main.base_url: "],
    ),
    "several problems": (
        GOOD.replace("concurrency = 8", "concurrency = 0")
        .replace('"strong-writer"', '""')
        .replace("{{.StoryText}}", "{{.Story}}"),
        [
            "config.toml: generation.concurrency: is 0; allowed: 1 to 1024",
            "config.toml: models.main.model_name: ",
            "config.toml: prompt_templates.judge_rubric: ",
        ],
    ),
}

OPTIONS: dict[str, tuple[list[str], list[str]]] = {
    "no such file": (["--config", "nowhere.toml"], ["nowhere.toml: does not exist"]),
    "a folder": (["--config", "folder"], ["folder: is a folder; a file is needed"]),
    "a file too large": (["--config", "large.toml"], ["large.toml: is too large; allowed: 10485760 bytes"]),
    "an unknown option": (
        ["--concurrency", "5"],
        ["Unknown option: --concurrency. See vellumforge2 --help."],
    ),
    "an argument too many": (
        ["config.toml"],
        ["There is nothing that takes config.toml. See vellumforge2 --help."],
    ),
    "the demo with a configuration": (
        ["--demo", "--config", "config.toml"],
        ["the demo has its own configuration; leave out --demo or --config"],
    ),
    "a dry run of the demo with a configuration": (
        ["--demo", "--config", "config.toml", "--dry-run"],
        ["the demo has its own configuration; leave out --demo or --config"],
    ),
    "a repository without an upload": (
        ["--repo", "ada/tea"],
        ["--repo and --public are for --upload-to-hf, which is not given"],
    ),
    "an output folder of a variable that is not set": (
        ["--output", ""],
        ["--output: the name of the folder is empty"],
    ),
    "an output folder that is a file": (
        ["--output", "bad.env"],
        ["bad.env can be no folder: it is a file; name another one"],
    ),
    "an output folder below a file": (
        ["--output", "bad.env/a/b"],
        ["bad.env/a/b can be no folder: bad.env is a file; name another one"],
    ),
    "a body that is nested too deeply": (
        ["--set", f"models.main.extra_body={'{a=' * 150}1{'}' * 150}"],
        ["config.toml: models.main.extra_body: is a table; is nested too deeply; allowed: 64 tables"],
    ),
    "a setting that follows a dot": (
        ["--set.generation.concurrency=5"],
        ["--set: give a setting as KEY=VALUE"],
    ),
    "a setting without value": (
        ["--set", "generation.concurrency"],
        ["--set generation.concurrency: give a setting as KEY=VALUE"],
    ),
    "an unknown setting": (
        ["--set", "generation.topic=Tea"],
        ["config.toml: generation.topic: unknown key; did you mean generation.main_topic? (set on the"],
    ),
    "a setting out of range": (
        ["--set", "generation.concurrency=0"],
        ["config.toml: generation.concurrency: is 0; allowed: 1 to 1024"],
    ),
    "no such env file": (["--env-file", "nowhere.env"], ["nowhere.env: does not exist"]),
    "an env file that sets PATH": (
        ["--env-file", "bad.env"],
        [
            "bad.env: PATH: an env file must not set this variable",
            "bad.env: line 2 is not of the form NAME=value",
        ],
    ),
}


@pytest.fixture
def user(tmp_path: Path) -> User:
    """Someone who has not even a Prefect server."""
    return User.made(tmp_path).in_one_process()


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_cannot_be_used(user: User, case: str) -> None:
    text, problems = FILES[case]
    assert text != GOOD
    user.write("config.toml", text)
    _check(user, MODULE, [], problems)


@pytest.mark.parametrize("case", OPTIONS)
def test_an_option_that_cannot_be_used(user: User, case: str) -> None:
    options, problems = OPTIONS[case]
    user.write("config.toml", GOOD)
    user.write("large.toml", GOOD + "#" * 10 * 1024 * 1024)
    user.write("bad.env", "PATH=/tmp\nplanted-secret-123\n")
    (user.folder / "folder").mkdir()
    _check(user, (*PROGRAM, "run"), options, problems)


def test_without_a_configuration_two_ways_to_begin_are_named(user: User) -> None:
    _check(
        user,
        (*PROGRAM, "run"),
        [],
        ["there is no config.toml; to begin: cp config.example.toml config.toml, or try --demo"],
    )


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--demo"],
        ["estimate"],
        ["preview"],
        ["validate"],
        ["failures", "session_x"],
        ["lint", "session_x"],
        ["report", "session_x"],
        ["export", "session_x", "--format", "trl"],
        ["retry", "session_x"],
        ["checkpoint", "resume", "session_x"],
        ["checkpoint", "list"],
        ["checkpoint", "inspect", "session_x"],
        ["checkpoint", "clean", "--keep-last", "1"],
        ["checkpoint", "import", "config.toml"],
        ["checkpoint", "merge", "session_x", "session_y", "--into", "session_z"],
        ["checkpoint", "export", "session_x"],
        ["ledger", "check"],
        ["ledger", "prune"],
    ],
)
def test_every_command_refuses_an_output_folder_that_is_a_file(
    user: User, words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(user.folder)
    user.write("config.toml", GOOD)
    (user.folder / "file").touch()
    assert main([*words, "--output", "file/below"]) == 2
    assert capfd.readouterr() == (
        "",
        "vellumforge2: file/below can be no folder: file is a file; name another one\n",
    )


def _check(user: User, program: Sequence[str], options: list[str], problems: list[str]) -> None:
    """One line a problem, exit code 2, and nothing created anywhere."""
    before = sorted(user.folder.rglob("*"))
    ended = user.run(*options, program=program)
    assert (ended.code, ended.out) == (2, "")
    lines = ended.err.splitlines()
    assert len(lines) == len(problems), ended.err
    for line, problem in zip(lines, problems, strict=True):
        assert line.startswith(f"vellumforge2: {problem}")
    assert "planted-secret-123" not in ended.err
    assert sorted(user.folder.rglob("*")) == before
    assert not [*user.home.iterdir()]


PIPES: dict[str, tuple[list[str], str]] = {
    "checkpoint": (["import", "pipe"], "pipe is no archive of a session, or is damaged: it is a pipe"),
    "lint": (["pipe"], "there is no file 'pipe'"),
    "transform": (
        ["--mode", "rejudge", "--input", "pipe", "--output", "new.jsonl"],
        "pipe cannot be read: it is a pipe or a device",
    ),
    "run": (["--config", "pipe"], "pipe: cannot be read: nothing came through this pipe"),
    "validate": (["--env-file", "pipe"], "pipe: cannot be read: nothing came through this pipe"),
}


@pytest.mark.parametrize("command", PIPES)
def test_a_pipe_in_a_files_place_is_a_line_and_nobody_waits_for_it_for_ever(user: User, command: str) -> None:
    user.write("config.toml", GOOD)
    os.mkfifo(user.folder / "pipe")
    words, said = PIPES[command]
    ended = user.run(command, *words, program=PROGRAM)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert len(ended.err.splitlines()) == 1


def test_pipes_in_a_session_stop_no_command(user: User) -> None:
    user.write("config.toml", GOOD)
    session = user.folder / "output" / "session_2026-01-31T12-00-00"
    session.mkdir(parents=True)
    for name in ("session.json", "checkpoint.json", "config.toml.bak", "dataset.jsonl", "session.log"):
        os.mkfifo(session / name)
    listed = user.run("checkpoint", "list", program=PROGRAM)
    assert (listed.code, "Damaged" in listed.out) == (0, True)
    lost = user.run("checkpoint", "inspect", session.name, program=PROGRAM)
    assert (lost.code, "it is a pipe or a device, and no file" in lost.err) == (1, True)
    cleaned = user.run("checkpoint", "clean", "--older-than", "0s", "--force", program=PROGRAM)
    assert (cleaned.code, session.exists()) == (0, False)
