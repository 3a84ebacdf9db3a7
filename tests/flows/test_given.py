"""`run --prompts`: prompts of one's own, from the file to the rows, and what a changed file costs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.flows.command import PROGRAM, config, model, rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flows.command import Model, User

COUNT = 60
BOTH = "session_2026-01-31T12-00-00"
KEEP = '[input]\nkeep_columns = ["id"]\n'


def settings(url: str, more: str = KEEP, **given: Any) -> str:
    """A configuration that says nothing of subtopics and prompts."""
    text = config(url, more=more, templates="", **given)
    needless = ("main_topic", "num_subtopics", "num_prompts_per_subtopic", "similarity_threshold")
    return "\n".join(line for line in text.splitlines() if not line.startswith(needless))


def write(user: User, prompts: list[str], name: str = "mine.jsonl") -> None:
    rows = [{"prompt": prompt, "id": f"row {prompt}"} for prompt in prompts]
    user.write(name, "".join(json.dumps(row) + "\n" for row in rows))


def purposes(server: Model) -> dict[str, int]:
    found: dict[str, int] = {}
    for request in server.requests():
        found[request["model"]] = found.get(request["model"], 0) + 1
    return found


def asked_of(session: Path) -> list[tuple[str, str]]:
    return [(row["prompt"], row["id"]) for row in rows_of(session)]


def test_the_rows_are_the_files_prompts_and_a_line_more_pays_for_itself_alone(user: User) -> None:
    prompts = [f"What is {number} times 7?" for number in range(COUNT)]
    with model() as server:
        user.write("config.toml", settings(server.url))
        write(user, prompts)
        ended = user.run("--prompts", "mine.jsonl", "--json")
        assert ended.code == 0, ended.err
        (first,) = user.sessions()
        assert asked_of(first) == [(prompt, f"row {prompt}") for prompt in prompts]
        assert purposes(server) == {"strong-writer": COUNT, "weak-writer": COUNT}
        assert (ended.summary["jobs"], ended.summary["wanted"]) == (COUNT, COUNT)
        rows = (first / "dataset.jsonl").read_bytes()

        # A new line in the middle, and one twice.
        prompts[30:30] = ["Why is the sea salt?", prompts[3]]
        write(user, prompts)
        ended = user.run("--prompts", "mine.jsonl", "--dry-run", "--json", program=[*PROGRAM, "run"])
        assert ended.summary["total"]["to_pay"] == 2
        ended = user.run("--prompts", "mine.jsonl", "--json")
        assert ended.code == 0, ended.err
        assert (ended.summary["paid"], ended.summary["dropped"]) == (2, {"duplicate": 1})
        second = user.sessions()[-1]
        assert [prompt for prompt, _ in asked_of(second)] == [*prompts[:31], *prompts[32:]]

        # The first session has its own prompts, whatever stands in the file by now, and even without it.
        resume = ("checkpoint", "resume", first.name, "--prompts", "mine.jsonl")
        refused = user.run(*resume, program=PROGRAM)
        assert refused.code == 2
        assert "input.sha256" in refused.err
        assert "its prompts are those that its file held when it began" in refused.err
        assert "2 to be paid for" not in refused.err, "they are paid for by the other session"
        (user.folder / "mine.jsonl").unlink()
        ended = user.run(*resume, "--accept-changes", program=PROGRAM)
        assert ended.code == 0, ended.err
        assert (first / "dataset.jsonl").read_bytes() == rows
        write(user, prompts)
        ended = user.run(*resume, "--accept-changes", program=PROGRAM)
        assert ended.code == 0, ended.err
        assert (first / "dataset.jsonl").read_bytes() == (second / "dataset.jsonl").read_bytes()
        assert purposes(server) == {"strong-writer": COUNT + 1, "weak-writer": COUNT + 1}


@pytest.mark.parametrize("mode", ["sft", "mo-dpo"])
def test_what_comes_to_no_pair_is_listed_by_its_line_and_asked_again_alone(user: User, mode: str) -> None:
    with model(fail_matching="number 3") as server:
        user.write("config.toml", settings(server.url, mode=mode))
        write(user, [f"Tell me of number {number}." for number in range(5)])
        ended = user.run("--prompts", "mine.jsonl")
        assert ended.code == 3
        (session,) = user.sessions()
        assert len(rows_of(session)) == 4
        listed = user.run("failures", session.name, "--json", program=PROGRAM)
        assert [item["item"] for item in json.loads(listed.out)["failures"]] == ["job 4"]
        (command,) = [line for line in ended.err.splitlines() if "checkpoint resume" in line]
        assert "--prompts mine.jsonl" in command
        server.start()
        words = command.partition("vellumforge2 ")[2].split()
        ended = user.run(*words, program=PROGRAM)
        assert ended.code == 0, ended.err
        assert [row["id"] for row in rows_of(session)] == [f"row Tell me of number {at}." for at in range(5)]


def test_bad_lines_are_named_before_anything_is_made(user: User) -> None:
    with model() as server:
        user.write("config.toml", settings(server.url, more='[input]\nprompts = "mine.txt"\n'))
        (user.folder / "mine.txt").write_bytes(b"good\n\n\xff\ngood too\n\xfe\n")
        for command in (["run"], ["estimate"], ["validate"], ["preview"]):
            ended = user.run(*command, program=PROGRAM)
            assert (ended.code, ended.out) == (2, "")
            assert ended.err.splitlines() == [
                "vellumforge2: mine.txt:3: it is not UTF-8 text",
                "vellumforge2: mine.txt:5: it is not UTF-8 text; --skip-bad leaves bad lines out",
            ]
        assert not (user.folder / "output").exists()
        ended = user.run("preview", "--number", "1", "--skip-bad", program=PROGRAM)
        assert ended.code == 0, ended.err
        assert "good" in ended.out
        ended = user.run("--skip-bad", "--json")
        assert ended.code == 0, ended.err
        assert ended.summary["rows"] == 2
        assert ended.summary["paid"] == 2
        assert len(server.requests()) == 4


def test_a_session_goes_elsewhere_and_is_exported_merged_and_compared(user: User) -> None:
    talk = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Go on."},
    ]
    rows: list[dict[str, Any]] = [
        {"prompt": talk, "id": 1},
        {"prompt": "Go on.", "id": 2.5},
        {"prompt": "Why?", "id": None},
    ]
    with model() as server:
        user.write("config.toml", settings(server.url))
        user.write("a.json", json.dumps(rows))
        user.write("b.json", json.dumps([*rows[1:], {"prompt": "And then?", "id": "b"}]))
        for name in ("a.json", "b.json"):
            ended = user.run("--prompts", name)
            assert ended.code == 0, ended.err
        first, second = (session.name for session in user.sessions())
        asked = len(server.requests())

        def done(*words: str) -> str:
            ended = user.run(*words, program=PROGRAM)
            assert ended.code == 0, ended.err
            return ended.out

        done("export", first, "--format", "trl", "--jsonl", "--into", "out", "--output", "output")
        (written,) = (user.folder / "out").rglob("*.jsonl")
        found = [json.loads(line) for line in written.read_text().splitlines()]
        assert [row["prompt"] for row in found] == [
            talk,
            [{"role": "user", "content": "Go on."}],
            [{"role": "user", "content": "Why?"}],
        ]
        assert [row["id"] for row in found] == [1, 2.5, None]
        done("export", first, "--format", "native", "--parquet", "--into", "parquet", "--output", "output")
        done("checkpoint", "merge", first, second, "--into", BOTH, "--output", "output")
        both = rows_of(user.folder / "output" / BOTH)
        assert [(row["prompt"], row["id"], "history" in row) for row in both] == [
            ("Go on.", 1, True),
            ("Go on.", 2.5, False),
            ("Why?", None, False),
            ("And then?", "b", False),
        ]
        done("checkpoint", "diff", first, second, "--output", "output")
        done("checkpoint", "export", first, "--to", "moved.zip", "--output", "output")
        assert len(server.requests()) == asked


def test_whatever_is_killed_when_the_file_has_changed_no_prompt_is_lost(user: User) -> None:
    """The models are away when the changed file is accepted; the next resume answers what stands in it."""
    with model() as server:
        user.write("config.toml", settings(server.url))
        write(user, ["One?", "Two?"])
        assert user.run("--prompts", "mine.jsonl").code == 0
        (session,) = user.sessions()
        write(user, ["One?", "Two?", "Three?"])
        resume = ("checkpoint", "resume", session.name, "--prompts", "mine.jsonl")
        server.stop()
        failed = user.run(*resume, "--accept-changes", program=PROGRAM)
        assert failed.code != 0
        server.start()
        ended = user.run(*resume, program=PROGRAM)
        assert ended.code == 0, ended.err
        assert [prompt for prompt, _ in asked_of(session)] == ["One?", "Two?", "Three?"]
        other = user.run("checkpoint", "resume", session.name, "--prompts", "other.jsonl", program=PROGRAM)
        assert (other.code, other.err.splitlines()[0]) == (
            2,
            "vellumforge2: other.jsonl cannot be read: No such file or directory",
        )


def test_what_is_left_out_is_said_and_a_made_row_is_no_conversation_for_a_transform(user: User) -> None:
    with model() as server:
        user.write("config.toml", settings(server.url))
        talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
        rows: list[object] = [17, {"prompt": [*talk, {"role": "user", "content": "Go on."}], "id": 1}]
        user.write("mine.json", json.dumps(rows))
        ended = user.run("--prompts", "mine.json", "--skip-bad")
        assert ended.code == 0, ended.err
        said = "1 lines are no prompts and are left out; the first is mine.json:1: it is neither a text"
        assert said in " ".join(ended.err.split())
        (session,) = user.sessions()
        user.write("config.toml", config(server.url))
        refused = user.run(
            *("transform", "--mode", "regen-rejected", "--input", str(session / "dataset.jsonl")),
            *("--output", "new.jsonl"),
            program=PROGRAM,
        )
        assert refused.code == 2
        assert "its history holds what was said before" in refused.err
