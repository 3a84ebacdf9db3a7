"""Sessions of VellumForge2 taken over: what its rows hold is paid for, its jobs stay its jobs."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tasks.core.errors import SessionError
from tasks.core.forecast.survey import survey
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import ledger_url
from tasks.core.ledger.sessions import count_calls
from tasks.core.models import Purpose
from tasks.core.questions import Questions
from tasks.core.session.adoption import ORIGINAL, take_over
from tasks.core.session.dataset import DATASET
from tests.core.running import configured
from tests.core.session.vellumforge2 import (
    UUID,
    checkpoint,
    chosen_text,
    go_jobs,
    rejected_text,
    rows,
    rows_of_all,
    subtopic_name,
    write_session,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tasks.core.config.settings import Config
    from tasks.core.forecast.survey import Survey
    from tasks.core.models import Job, Pair
    from tasks.core.session.adoption import Takeover

JOBS = go_jobs()


class Place:
    """A ledger beside the session folder, and what can be asked of it."""

    def __init__(self, config: Config, ledger: Ledger, output: Path) -> None:
        self.config = config
        self.ledger = ledger
        self.output = output

    async def take_over(self, folder: Path) -> Takeover:
        return await take_over(folder, self.config, Questions(self.config), self.ledger, UUID)

    async def survey(self, taken: Takeover) -> tuple[Survey, dict[int, Pair | None]]:
        pairs: dict[int, Pair | None] = {}

        def keep(job: Job, pair: Pair | None) -> None:
            pairs[job.id] = pair

        return await survey(self.config, self.ledger, keep, jobs=taken.jobs, subtopics=taken.subtopics), pairs


@asynccontextmanager
async def placed(output: Path, mode: str = "dpo", **settings: Any) -> AsyncIterator[Place]:
    config = configured(
        output__folder=str(output),
        generation__num_subtopics=8,
        generation__num_prompts_per_subtopic=5,
        generation__dataset_mode=mode,
        **settings,
    )
    async with await Ledger.open(ledger_url(config)) as ledger:
        yield Place(config, ledger, output)


def shuffled(lines: list[str]) -> list[str]:
    """In the order of completion, which is any."""
    mixed = list(lines)
    random.Random(7).shuffle(mixed)
    return mixed


async def test_rows_that_the_checkpoint_does_not_list_are_paid_for_too(tmp_path: Path) -> None:
    lines = shuffled(rows_of_all("dpo", JOBS[:24]))
    folder = write_session(tmp_path, checkpoint(JOBS, range(20)), lines)
    async with placed(tmp_path) as place:
        taken = await place.take_over(folder)
        assert (taken.pairs, taken.duplicates, taken.damaged, taken.rowless, taken.strangers) == (
            24,
            0,
            0,
            0,
            0,
        )
        assert taken.lines() == ["24 pairs were taken over as paid for"]
        assert taken.subtopics == tuple(subtopic_name(index) for index in range(8))
        assert taken.jobs == JOBS
        assert await count_calls(place.ledger) == 48
        found, pairs = await place.survey(taken)
    assert found.reused == {Purpose.CHOSEN: 24, Purpose.REJECTED: 24}
    assert found.to_pay == {Purpose.CHOSEN: 16, Purpose.REJECTED: 16}
    assert found.done == 24
    for job in JOBS[:24]:
        pair = pairs[job.id]
        assert pair is not None
        assert pair.rejected is not None
        assert (pair.job, pair.chosen.content, pair.rejected.content) == (
            job,
            chosen_text(job),
            rejected_text(job),
        )


@pytest.mark.parametrize("mode", ["dpo", "kto"])
async def test_rows_that_were_written_twice_are_dropped_and_the_first_one_counts(
    tmp_path: Path, mode: str
) -> None:
    again = rows_of_all(mode, JOBS[:3], chosen="Something else was bought a second time, for the same job.")
    folder = write_session(tmp_path, checkpoint(JOBS, range(10)), rows_of_all(mode, JOBS[:10]) + again)
    async with placed(tmp_path, mode) as place:
        taken = await place.take_over(folder)
        assert (taken.pairs, taken.duplicates, taken.rowless) == (10, len(again), 0)
        assert f"{len(again)} rows were there twice and are dropped" in taken.lines()
        _, pairs = await place.survey(taken)
    first = pairs[0]
    assert first is not None
    assert first.chosen.content == chosen_text(JOBS[0])


@pytest.mark.parametrize("size", [1, 10, 60, 90])
async def test_a_torn_last_line_is_no_row_and_costs_the_others_nothing(tmp_path: Path, size: int) -> None:
    [torn] = rows("dpo", JOBS[5])
    folder = write_session(
        tmp_path, checkpoint(JOBS, range(6)), rows_of_all("dpo", JOBS[:5]), tail=torn[:size]
    )
    async with placed(tmp_path) as place:
        taken = await place.take_over(folder)
        found, _ = await place.survey(taken)
    assert (taken.pairs, taken.damaged, taken.rowless) == (5, 1, 1)
    assert found.to_pay == {Purpose.CHOSEN: 35, Purpose.REJECTED: 35}


@pytest.mark.parametrize(
    ("mode", "settings"),
    [("dpo", {}), ("mo-dpo", {}), ("sharegpt", {}), ("alpaca", {})],
)
async def test_a_row_glued_to_a_torn_one_is_read(tmp_path: Path, mode: str, settings: dict[str, Any]) -> None:
    [torn], [glued], [after] = (rows(mode, job) for job in JOBS[:3])
    folder = write_session(tmp_path, checkpoint(JOBS, range(3)), [torn[: len(torn) // 2] + glued, after])
    if mode in {"sharegpt", "alpaca"}:
        mode, settings = "sft", {"generation__sft_format": mode}
    async with placed(tmp_path, mode, **settings) as place:
        taken = await place.take_over(folder)
        _, pairs = await place.survey(taken)
    assert (taken.pairs, taken.damaged, taken.rowless) == (2, 1, 1)
    assert sorted(pairs) == [1, 2]


async def test_of_a_kto_pair_with_only_its_first_row_the_other_answer_is_paid_for(tmp_path: Path) -> None:
    lines = rows_of_all("kto", JOBS[:10])
    folder = write_session(tmp_path, checkpoint(JOBS, range(10)), lines[:-1])
    async with placed(tmp_path, "kto") as place:
        taken = await place.take_over(folder)
        found, _ = await place.survey(taken)
    assert (taken.pairs, taken.rowless) == (9, 1)
    assert found.reused == {Purpose.CHOSEN: 10, Purpose.REJECTED: 9}
    assert found.to_pay == {Purpose.CHOSEN: 30, Purpose.REJECTED: 31}


@pytest.mark.parametrize("sft_format", ["sharegpt", "alpaca"])
@pytest.mark.parametrize("topics", [True, False])
async def test_sft_rows_are_taken_over_in_both_formats(
    tmp_path: Path, sft_format: str, *, topics: bool
) -> None:
    lines = shuffled(rows_of_all(sft_format, JOBS[:24], topics=topics))
    folder = write_session(tmp_path, checkpoint(JOBS, range(20)), lines)
    async with placed(tmp_path, "sft", generation__sft_format=sft_format) as place:
        taken = await place.take_over(folder)
        found, pairs = await place.survey(taken)
    assert (taken.pairs, found.done) == (24, 24)
    assert (found.reused, found.to_pay) == ({Purpose.CHOSEN: 24}, {Purpose.CHOSEN: 16})
    assert {number: pair and pair.chosen.content for number, pair in pairs.items()} == {
        job.id: chosen_text(job) for job in JOBS[:24]
    }


async def test_mo_dpo_jobs_that_are_marked_done_and_have_no_row_are_done_again_and_it_says_so(
    tmp_path: Path,
) -> None:
    folder = write_session(tmp_path, checkpoint(JOBS, range(20)), shuffled(rows_of_all("mo-dpo", JOBS[:12])))
    async with placed(tmp_path, "mo-dpo") as place:
        taken = await place.take_over(folder)
        found, pairs = await place.survey(taken)
    assert (taken.pairs, taken.rowless) == (12, 8)
    assert "8 jobs were marked done and have no whole row; they are done again" in taken.lines()
    assert found.reused == {Purpose.CHOSEN: 12, Purpose.REJECTED: 12, Purpose.JUDGE: 24}
    assert found.to_pay == {Purpose.CHOSEN: 28, Purpose.REJECTED: 28, Purpose.JUDGE: 56}
    pair = pairs[3]
    assert pair is not None
    assert pair.chosen_scores is not None
    assert pair.rejected_scores is not None
    assert (pair.chosen_scores.criteria["creativity"].score, pair.rejected_scores.total) == (5, 8 / 3)
    assert pair.chosen_scores.criteria["creativity"].reasoning == "Handled with care."


async def test_mo_dpo_rows_without_scores_are_judged_and_nothing_else(tmp_path: Path) -> None:
    lines = rows_of_all("mo-dpo", JOBS[:5]) + rows_of_all("mo-dpo", JOBS[5:10], scored=False)
    folder = write_session(tmp_path, checkpoint(JOBS[:10], range(10)), lines)
    async with placed(tmp_path, "mo-dpo") as place:
        taken = await place.take_over(folder)
        found, _ = await place.survey(taken)
    assert (taken.pairs, taken.rowless) == (5, 5)
    assert +found.to_pay == {Purpose.JUDGE: 10}


async def test_rows_of_strangers_stay_in_the_file_that_is_kept(tmp_path: Path) -> None:
    stranger = rows("dpo", go_jobs(9)[42])
    folder = write_session(tmp_path, checkpoint(JOBS, [0]), [*rows("dpo", JOBS[0]), *stranger])
    before = (folder / DATASET).read_bytes()
    async with placed(tmp_path) as place:
        taken = await place.take_over(folder)
        assert await count_calls(place.ledger) == 2
    assert (taken.pairs, taken.strangers) == (1, 1)
    assert f"1 rows belong to no job of the session; they stay in {ORIGINAL}" in taken.lines()
    assert (folder / ORIGINAL).read_bytes() == before == (folder / DATASET).read_bytes()


async def test_taking_over_twice_is_taking_over_once_even_when_the_dataset_was_begun_anew(
    tmp_path: Path,
) -> None:
    folder = write_session(tmp_path, checkpoint(JOBS, range(20)), rows_of_all("dpo", JOBS[:24]))
    async with placed(tmp_path) as place:
        once = await place.take_over(folder)
        (folder / DATASET).write_text("")
        twice = await place.take_over(folder)
        assert await count_calls(place.ledger) == 48
        found, _ = await place.survey(twice)
    assert once == twice
    assert found.done == 24


async def test_a_take_over_that_was_cut_off_is_repeated(tmp_path: Path) -> None:
    folder = write_session(tmp_path, checkpoint(JOBS, range(20)), rows_of_all("dpo", JOBS[:24]))
    before = (folder / DATASET).read_bytes()
    # A copy that was cut off leaves a hidden file at most, and some of the calls may be there.
    (folder / f".{ORIGINAL}.cut.part").write_bytes(before[:100])
    async with placed(tmp_path) as place:
        part = write_session(tmp_path / "part", checkpoint(JOBS, []), rows_of_all("dpo", JOBS[:7]))
        await place.take_over(part)
        assert await count_calls(place.ledger) == 14
        taken = await place.take_over(folder)
        assert await count_calls(place.ledger) == 48
    assert taken.pairs == 24
    assert (folder / ORIGINAL).read_bytes() == before


async def test_a_copy_that_cannot_be_finished_leaves_nothing_that_looks_like_one(tmp_path: Path) -> None:
    folder = write_session(tmp_path, checkpoint(JOBS, [0]), rows("dpo", JOBS[0]))
    (folder / ORIGINAL).symlink_to(folder / "nowhere" / "else")
    (folder / DATASET).unlink()
    (folder / DATASET).mkdir()
    async with placed(tmp_path) as place:
        with pytest.raises(SessionError, match="cannot be taken over"):
            await place.take_over(folder)
        assert await count_calls(place.ledger) == 0
    assert not (folder / ORIGINAL).exists()


@pytest.mark.parametrize(
    "chosen", ["Too short.", "I'm sorry, but I can't help with that. " * 5, "and then the"]
)
async def test_a_chosen_answer_that_was_accepted_there_is_accepted_here(tmp_path: Path, chosen: str) -> None:
    folder = write_session(tmp_path, checkpoint(JOBS, [0]), rows("dpo", JOBS[0], chosen=chosen))
    async with placed(tmp_path) as place:
        taken = await place.take_over(folder)
        found, pairs = await place.survey(taken)
    pair = pairs[0]
    assert pair is not None
    assert pair.chosen.content == chosen.strip()
    assert found.to_pay == {Purpose.CHOSEN: 39, Purpose.REJECTED: 39}


async def test_a_blank_rejected_answer_is_asked_for_again(tmp_path: Path) -> None:
    folder = write_session(tmp_path, checkpoint(JOBS, [0]), rows("dpo", JOBS[0], rejected="  "))
    async with placed(tmp_path) as place:
        taken = await place.take_over(folder)
        found, _ = await place.survey(taken)
    assert (taken.pairs, taken.rowless) == (0, 1)
    assert found.to_pay == {Purpose.CHOSEN: 39, Purpose.REJECTED: 40}


async def test_without_a_dataset_the_jobs_alone_are_taken_over(tmp_path: Path) -> None:
    folder = write_session(tmp_path, checkpoint(JOBS, range(20)))
    (folder / DATASET).unlink()
    async with placed(tmp_path) as place:
        taken = await place.take_over(folder)
    assert (taken.jobs, taken.pairs, taken.rowless) == (JOBS, 0, 20)
    assert not (folder / ORIGINAL).exists()


async def test_of_a_session_without_all_its_prompts_only_the_subtopics_are_taken_over(tmp_path: Path) -> None:
    document = checkpoint(JOBS, [], phase="prompts", prompts_complete=False)
    folder = write_session(tmp_path, document)
    async with placed(tmp_path) as place:
        taken = await place.take_over(folder)
        found, _ = await place.survey(taken)
    assert taken.jobs is None
    assert taken.subtopics == tuple(subtopic_name(index) for index in range(8))
    assert not found.reused
    assert +found.to_pay == {Purpose.PROMPTS: 8, Purpose.CHOSEN: 40, Purpose.REJECTED: 40}


async def test_without_a_checkpoint_nothing_can_be_taken_over(tmp_path: Path) -> None:
    folder = write_session(tmp_path, checkpoint(JOBS, []), rows_of_all("dpo", JOBS[:2]))
    (folder / "checkpoint.json").unlink()
    async with placed(tmp_path) as place:
        with pytest.raises(SessionError, match="no checkpoint"):
            await place.take_over(folder)
