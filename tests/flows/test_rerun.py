"""To go on is to run again: what was paid for is used, and only what is new is paid for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.flows.command import asked_twice, config, rows_of

if TYPE_CHECKING:
    from tests.flows.command import Model, User


def test_only_what_a_change_concerns_is_paid_for(user: User, demo_model: Model) -> None:
    text = config(demo_model.url)
    user.write("config.toml", text)
    first = user.run("--json")
    assert (first.code, first.summary["paid"], first.summary["rows"]) == (0, 1 + 3 + 12, 6)

    old = "Write a short story for this prompt:"
    assert text.count(old) == 1
    user.write("config.toml", text.replace(old, "Write a dull story for this prompt:"))
    before = len(demo_model.requests())
    second = user.run("--json")
    assert (second.code, second.summary["paid"], second.summary["rows"]) == (0, 6, 6)
    assert [request["model"] for request in demo_model.requests()[before:]] == ["weak-writer"] * 6
    one, two = (rows_of(session) for session in user.sessions())
    assert [(row["prompt"], row["chosen"]) for row in one] == [(row["prompt"], row["chosen"]) for row in two]
    assert not {row["rejected"] for row in one} & {row["rejected"] for row in two}


def test_more_subtopics_pay_only_for_what_is_new(user: User, demo_model: Model) -> None:
    user.write("config.toml", config(demo_model.url, subtopics=3))
    assert user.run().code == 0
    user.write("config.toml", config(demo_model.url, subtopics=5))
    grown = user.run("--json")
    # A request for more subtopics, one for the prompts of each new one, and two answers a new job.
    assert (grown.code, grown.summary["paid"]) == (0, 1 + 2 + 2 * 4)
    assert not asked_twice(demo_model.requests())
    short, long = ((session / "dataset.jsonl").read_bytes() for session in user.sessions())
    assert long.startswith(short)
    assert len(long.splitlines()) == 10

    user.write("config.toml", config(demo_model.url, subtopics=3))
    again = user.run("--json")
    assert (again.code, again.summary["paid"]) == (0, 0)
    assert (user.sessions()[-1] / "dataset.jsonl").read_bytes() == short


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    user: User, demo_model: Model
) -> None:
    text = config(demo_model.url, prompts=2)
    user.write("config.toml", text)
    variable = {"VELLUMFORGE__GENERATION__NUM_PROMPTS_PER_SUBTOPIC": "1"}
    environment = user.run("--json", **variable)
    assert (environment.code, environment.summary["rows"]) == (0, 3)
    line = user.run(
        "--json", "--set", "generation.num_prompts_per_subtopic=3", "--output", "elsewhere", **variable
    )
    assert (line.code, line.summary["rows"]) == (0, 9)
    (session,) = user.sessions("elsewhere")
    backup = (session / "config.toml.bak").read_text()
    assert backup.startswith(text.rstrip("\n"))
    assert "# generation.num_prompts_per_subtopic = 3\n# output.folder = 'elsewhere'\n" in backup
