"""The rows of the specification's "Troubleshooting": what it advises to check, and to do, helps."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tasks.core.models import Phase
from tasks.core.progress import Progress
from tasks.core.session.listing import list_sessions
from tasks.core.session.session import open_session
from tests.core.running import configured
from tests.flows.command import rows_of
from tests.flows.specification.story import JOBS, checkpoint_of, dataset_of, vellumforge2

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.flows.command import Ended, Model, User
    from tests.flows.specification.story import Story

UNKNOWN = "session_2025-10-28T14-30-00"


async def test_checkpoint_not_saving_check_enable_checkpointing(tmp_path: Path) -> None:
    for enabled, listed in ((False, "No"), (True, "Yes")):
        output = tmp_path / listed
        config = configured(output__folder=str(output), generation__enable_checkpointing=enabled)
        with open_session(config, Progress(), text="", overridden={}, ledger="the ledger") as session:
            await session.enter(Phase.PAIRS)
        assert (session.folder / "checkpoint.json").exists() == enabled
        assert [item.checkpoint for item in list_sessions(output)] == [listed]


def test_checkpoint_not_saving_verify_that_the_output_folder_can_be_written(
    story: Story, server: Model, tmp_path: Path
) -> None:
    """It is said before anything is paid for."""
    user = story.copy(tmp_path / "user")
    user.write("blocked", "a file, where the folder should be made")
    server.start()
    ended = vellumforge2(user, "run", "--output", "blocked")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "vellumforge2: blocked can be no folder: it is a file; name another one\n"
    assert server.requests() == []


def test_checkpoint_not_saving_check_the_logs_for_checkpoint_errors(
    resumed_with: Mapping[str, tuple[User, Ended]],
) -> None:
    user, _ = resumed_with["no room for the checkpoint"]
    (session,) = user.sessions()
    records = [json.loads(line) for line in (session / "session.log").read_text().splitlines()]
    (error,) = [record for record in records if "checkpoint.json" in record["message"]]
    assert (error["level"], error["logger"]) == ("WARNING", "vellumforge.checkpoint")
    assert "cannot be written: " in error["message"]


def test_resume_fails_with_config_mismatch_when_the_counts_differ(story: Story, server: Model) -> None:
    """More subtopics are no mismatch: the session grows by them. Fewer are, and so are other prompts."""
    server.start()
    changed = ("--set", "generation.num_subtopics=2", "--set", "generation.num_prompts_per_subtopic=5")
    refused = vellumforge2(story.user, "checkpoint", "resume", story.name, *changed)
    assert (refused.code, refused.out) == (2, "")
    assert "generation.num_subtopics: 3 -> 2" in refused.err
    assert "generation.num_prompts_per_subtopic: 4 -> 5" in refused.err
    assert "what going on would cost:" in refused.err
    assert server.requests() == []


def test_resume_fails_with_config_mismatch_either_start_a_new_session_or_use_the_original(
    story: Story, resumed_with: Mapping[str, tuple[User, Ended]], resumed: tuple[User, Ended, list[str]]
) -> None:
    """What the new session has in common with the old one, it does not pay for again."""
    user, ended = resumed_with["a new session with other counts"]
    assert ended.code == 0, ended.err
    old, new = user.sessions()
    assert (old.name, len(rows_of(new))) == (story.name, 2 * 4)
    assert dataset_of(old) == dataset_of(story.session)
    assert resumed[1].code == 0


def test_checkpoint_not_found_verify_that_the_session_folder_exists(story: Story) -> None:
    ended = vellumforge2(story.user, "checkpoint", "resume", UNKNOWN)
    assert (ended.code, ended.out) == (2, "")
    assert f"there is no session {UNKNOWN} in output" in ended.err


def test_checkpoint_not_found_check_for_the_file_in_the_session_folder(lone_user: User) -> None:
    (lone_user.folder / "output" / UNKNOWN).mkdir(parents=True)
    inspected = vellumforge2(lone_user, "checkpoint", "inspect", UNKNOWN)
    nothing = f"Session {UNKNOWN} has neither a record nor a checkpoint: there is nothing to go on with."
    assert inspected.out.splitlines() == [nothing]
    resumed = vellumforge2(lone_user, "checkpoint", "resume", UNKNOWN)
    assert resumed.code == 1
    assert f"session {UNKNOWN} has neither a record nor a checkpoint" in resumed.err


def test_checkpoint_not_found_use_checkpoint_list_to_see_the_sessions(
    story: Story, listed: list[str]
) -> None:
    ended = vellumforge2(story.user, "checkpoint", "inspect", UNKNOWN)
    assert "`checkpoint list` shows those that are there" in ended.err
    assert listed[-1].startswith(story.name)


def test_progress_not_resuming_correctly_a_corrupted_dataset_is_mended(
    story: Story, resumed_with: Mapping[str, tuple[User, Ended]], undisturbed: Path
) -> None:
    """No row is lost, for every row is made again from the ledger."""
    user, ended = resumed_with["torn files"]
    assert (ended.code, ended.summary["paid"]) == (0, story.missing), ended.err
    (session,) = user.sessions()
    assert dataset_of(session) == dataset_of(undisturbed)


def test_progress_not_resuming_correctly_a_phase_that_is_not_the_actual_state_misleads_nobody(
    story: Story, resumed_with: Mapping[str, tuple[User, Ended]], undisturbed: Path
) -> None:
    """It says complete, and every job done; what is done is known by the ledger."""
    user, ended = resumed_with["a checkpoint ahead of the dataset"]
    assert (ended.code, ended.summary["paid"]) == (0, story.missing), ended.err
    (session,) = user.sessions()
    assert checkpoint_of(session)["completed_job_ids"].keys() == {str(job_id) for job_id in range(JOBS)}
    assert dataset_of(session) == dataset_of(undisturbed)


def test_progress_not_resuming_correctly_try_starting_fresh(
    story: Story, resumed_with: Mapping[str, tuple[User, Ended]], undisturbed: Path
) -> None:
    """A new session beside the old one, which pays for nothing again."""
    user, ended = resumed_with["a new session"]
    assert (ended.code, ended.summary["paid"]) == (0, story.missing), ended.err
    old, new = user.sessions()
    assert old.name == story.name
    assert dataset_of(new) == dataset_of(undisturbed)
