"""The command blocks of the specification: "CLI Usage", "CLI Verification", "Configuration Reference"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.core.config.load import load_config
from tasks.core.config.settings import default_of
from tasks.core.session.listing import go_duration
from tests.core.session.vellumforge2 import checkpoint, go_jobs, write_session
from tests.flows.command import rows_of
from tests.flows.specification.story import JOBS, checkpoint_of, dataset_of, settings, vellumforge2

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flows.command import Ended, Model, User
    from tests.flows.specification.story import Story

NAME = "session_2025-10-28T14-30-00"

LIST = """\
Available sessions:

SESSION                             CHECKPOINT   PHASE        PROGRESS
--------------------------------------------------------------------------------
session_2025-10-28T14-30-00         Yes          pairs        60.5%
session_2025-10-28T13-15-22         Yes          complete     100.0%
session_2025-10-27T18-26-03         No           N/A          0.0%
"""

INSPECTION = """\
Checkpoint Information for: session_2025-10-28T14-30-00
================================================================================
Session ID:          a3f4e2d1-9c8b-4a5f-8e7d-1a2b3c4d5e6f
Created At:          2025-10-28 14:30:00
Last Saved At:       2025-10-28 14:45:32
Current Phase:       pairs
Config Hash:         a1b2c3d4

Phase Progress:
  Subtopics:         Complete (100 items)
  Prompts:           Complete (500 items)
  Preference Pairs:  302 / 500 completed (60.4%)

Statistics:
  Total Prompts:     500
  Successful:        302
  Failed:            0
  Total Duration:    15m32s
  Average Duration:  3.09s

To resume this session, run:
  Set resume_from_session = "session_2025-10-28T14-30-00" in config.toml
  OR use: vellumforge2 checkpoint resume session_2025-10-28T14-30-00
"""

INSPECTED = {
    "session_id": "a3f4e2d1-9c8b-4a5f-8e7d-1a2b3c4d5e6f",
    "created_at": "2025-10-28T14:30:00.123456789Z",
    "last_saved_at": "2025-10-28T14:45:32Z",
    "config_hash": "a1b2c3d4",
}

REFERENCE = """\
# Enable checkpoint/resume functionality (default: false)
enable_checkpointing = true

# Save checkpoint every N completed jobs (default: 10)
# Lower = more frequent saves, less work lost
# Higher = less frequent saves, better performance
checkpoint_interval = 10

# Resume from specific session (default: "")
# Example: "session_2025-10-28T14-30-00"
resume_from_session = ""
"""


def test_enable_checkpointing(story: Story) -> None:
    generation = load_config(None, environ={}, text=story.config).config.generation
    assert (generation.enable_checkpointing, generation.checkpoint_interval) == (True, 10)
    assert checkpoint_of(story.session)["subtopics_complete"]


def test_normal_generation_with_checkpointing(generation: tuple[User, Ended]) -> None:
    user, ended = generation
    assert (ended.code, ended.err) == (0, "")
    (session,) = user.sessions()
    assert len(rows_of(session)) == JOBS
    assert checkpoint_of(session)["current_phase"] == "complete"


def test_interrupt_and_resume_1_ctrl_c_names_the_session_and_how_to_resume_it(story: Story) -> None:
    """The command that is named is Option B's; Option A's setting is named by `checkpoint inspect`."""
    for interruption in (story.in_prompts, story.in_pairs):
        assert interruption.ended.code == 130
        *_, stopped, go_on = interruption.ended.err.splitlines()
        assert stopped.startswith("vellumforge2: stopped by SIGINT; ")
        assert go_on.startswith("vellumforge2: to go on, paying only for what is missing: ")
        assert f"vellumforge2 checkpoint resume {story.name}" in go_on
    assert story.in_pairs.stopped["current_phase"] == "pairs"


def test_interrupt_and_resume_2_option_a_manual_resume(
    story: Story, server: Model, undisturbed: Path, tmp_path: Path
) -> None:
    user = story.copy(tmp_path / "user")
    option_a = f'enable_checkpointing = true\nresume_from_session = "{story.name}"\n'
    user.write("config.toml", settings(server, option_a))
    ended = vellumforge2(user, "run", "--config", "config.toml", "--json")
    assert ended.code == 0, ended.err
    assert (ended.summary["paid"], ended.summary["rows"]) == (story.missing, JOBS)
    (session,) = user.sessions()
    assert session.name == story.name
    assert dataset_of(session) == dataset_of(undisturbed)


def test_interrupt_and_resume_3_option_b_cli_resume(
    story: Story, resumed: tuple[User, Ended, list[str]], undisturbed: Path
) -> None:
    """The configuration needs no update, and stays as it is."""
    user, ended, _ = resumed
    assert ended.code == 0, ended.err
    assert (ended.summary["paid"], ended.summary["rows"]) == (story.missing, JOBS)
    (session,) = user.sessions()
    assert session.name == story.name
    assert dataset_of(session) == dataset_of(undisturbed)
    assert (user.folder / "config.toml").read_text() == story.config


def test_list_checkpoints_prints_the_output_of_the_specification(lone_user: User) -> None:
    jobs = go_jobs(40, 5)
    output = lone_user.folder / "output"
    write_session(output, checkpoint(jobs, range(121)), name=NAME)
    write_session(output, checkpoint(jobs, range(200), phase="complete"), name="session_2025-10-28T13-15-22")
    (output / "session_2025-10-27T18-26-03").mkdir()
    listed = vellumforge2(lone_user, "checkpoint", "list")
    assert (listed.code, listed.out, listed.err) == (0, LIST, "")


def test_list_checkpoints_of_sessions_made_here(story: Story, listed: list[str]) -> None:
    """The columns of the specification, and behind them what became of the prompts."""
    done = len(story.in_pairs.stopped["completed_job_ids"])
    assert listed[:-1] == LIST.splitlines()[:4]
    row = f"{story.name}         Yes          pairs        {done / JOBS:.1%}"
    assert listed[-1].split("    kept ") == [row, f"{done} of {JOBS} · tried {done}"]


def test_inspect_checkpoint_prints_the_output_of_the_specification(lone_user: User) -> None:
    document = checkpoint(go_jobs(100, 5), range(302)) | INSPECTED
    document["stats"] |= {"TotalDuration": 932 * 10**9, "AverageDuration": 3_090_000_000}
    write_session(lone_user.folder / "output", document, name=NAME)
    inspected = vellumforge2(lone_user, "checkpoint", "inspect", NAME)
    assert (inspected.code, inspected.out, inspected.err) == (0, INSPECTION, "")


def test_inspect_checkpoint_of_a_session_made_here(story: Story) -> None:
    """The lines of the specification, in its order, and between them the pairs and what they cost."""
    document = story.in_pairs.stopped
    stats, done = document["stats"], len(document["completed_job_ids"])
    inspected = vellumforge2(story.user, "checkpoint", "inspect", story.name)
    expected = INSPECTION.replace(NAME, story.name)
    for before, after in (
        ("a3f4e2d1-9c8b-4a5f-8e7d-1a2b3c4d5e6f", document["session_id"]),
        ("2025-10-28 14:30:00", document["created_at"][:19].replace("T", " ")),
        ("2025-10-28 14:45:32", document["last_saved_at"][:19].replace("T", " ")),
        ("a1b2c3d4", document["config_hash"]),
        ("(100 items)", "(3 items)"),
        ("(500 items)", "(12 items)"),
        ("302 / 500 completed (60.4%)", f"{done} / {JOBS} completed ({done / JOBS:.1%})"),
        ("  Total Prompts:     500", f"  Total Prompts:     {JOBS}"),
        ("  Successful:        302", f"  Successful:        {done}"),
        ("15m32s", go_duration(stats["TotalDuration"])),
        ("3.09s", go_duration(stats["AverageDuration"])),
    ):
        assert before in expected
        expected = expected.replace(before, after)
    pairs, *spending = [line for line in inspected.out.splitlines() if line not in expected.splitlines()]
    assert pairs == f"  Pairs:             kept {done} of {JOBS} · tried {done}"
    kinds = ["subtopics", "prompts", "chosen", "rejected"]
    assert [line.partition(":")[0].strip() for line in spending[:2]] == ["Spending", "Paid calls"]
    assert sorted(kind for kind in kinds if any(f", {kind}" in line for line in spending[2:])) == sorted(
        kinds
    )
    assert spending[1].startswith(f"  Paid calls:        {story.in_pairs.asked} (")
    assert inspected.out.replace(f"{pairs}\n", "").replace("\n".join(spending) + "\n\n", "") == expected


def test_cli_verification_help_shows_the_checkpoint_command(lone_user: User) -> None:
    help_of_all = vellumforge2(lone_user, "--help")
    assert (help_of_all.code, help_of_all.err) == (0, "")
    assert {"run", "checkpoint"} <= set(help_of_all.out.split())


def test_cli_verification_checkpoint_help_shows_the_subcommands(lone_user: User) -> None:
    help_of_checkpoint = vellumforge2(lone_user, "checkpoint", "--help")
    assert (help_of_checkpoint.code, help_of_checkpoint.err) == (0, "")
    assert {"list", "inspect", "resume"} <= set(help_of_checkpoint.out.split())


def test_cli_verification_checkpoint_list_lists_sessions(story: Story, listed: list[str]) -> None:
    """Also as a module of this project, as which it was run here."""
    assert [line.split()[0] for line in listed[4:]] == [story.name]


def test_configuration_reference(server: Model) -> None:
    generation = load_config(None, environ={}, text=settings(server, REFERENCE)).config.generation
    assert (generation.enable_checkpointing, generation.checkpoint_interval) == (True, 10)
    assert generation.resume_from_session == ""
    names = ("enable_checkpointing", "checkpoint_interval", "resume_from_session")
    assert [default_of(f"generation.{name}") for name in names] == [False, 10, ""]
