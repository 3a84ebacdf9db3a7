"""Chatter around answers: what is cut, that nothing else is, and that everything sees the same text."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.answers.chatter import chatter_of, without_chatter
from tasks.core.answers.usable import MIN_CHOSEN_LENGTH, Reading, read_chosen
from tasks.core.demo.text import prose
from tasks.core.exchange.request import Answer
from tasks.core.forecast.survey import survey
from tasks.core.generation.pairs import make_pairs
from tasks.core.models import Purpose, Text
from tasks.core.rows.transformed import find_mode, read_row
from tasks.core.transform.session import Transform
from tests.core.answers.markups import CLEAN
from tests.core.running import ChatServer, running, some_jobs

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.core.models import Job, Pair
    from tests.core.running import Chat

STORY = "The keeper climbed the stairs. He lit the lamp.\n\nThen he waited for ships that did not come."

OPENINGS = (
    "Sure, here is the story:",
    "Sure! Here's a short story about a lighthouse keeper:",
    "Sure thing! I can do that. Here is the poem:",
    "Certainly! Below is a short story about fog.",
    "Certainly! Here are three ideas you asked for:",
    "Of course! I'd be happy to help.",
    "Of course. Here is a 500-word essay on tides:",
    "Absolutely! Here is the rewritten version you asked for:",
    "Okay, here\N{RIGHT SINGLE QUOTATION MARK}s the continuation:",
    "Certainly, I can write that for you.",
    "**Here is the story:**",
    "Here's a poem about the sea:",
    "Here is my response:",
    "Here is the revised essay you requested:",
    "Below is the essay:",
    "As requested, here is the poem:",
    "Let's start over",
    "Let's start over.",
    "Great question!",
    "Thank you for your prompt!",
)
ENDINGS = (
    "I hope this helps!",
    "I hope this helps! \N{SMILING FACE WITH SMILING EYES}",
    "I hope this helps! Enjoy!",
    "*I hope this story meets your needs.*",
    "I hope you enjoyed this story! Let me know if you'd like another version.",
    "Would you like me to continue the story?",
    "Would you like me to rewrite it in another tone?",
    "Do you want me to add more details?",
    "Shall I continue?",
    "Let me know if you'd like me to change anything.",
    "Let me know if you need any changes!",
    "Let me know if you would like any adjustments.",
    "Let me know if you want me to expand on this.",
    "Let me know if this works for you.",
    "Let me know what you think!",
    "Please let me know if you have any other questions.",
    "If you'd like, I can write another version.",
    "If you have any questions, feel free to ask!",
    "If you need any further help, just let me know!",
    "Feel free to ask if you have any questions.",
    "Is there anything else I can help you with?",
    "I'd be happy to expand on any part of it.",
)
LETTER = "Dear Ann,\n\nthe boat leaves on Monday, and there is room for one more."
TRICKY = (
    f'"Sure," she said, "here is the story:"\n\n{STORY}',
    f'"Sure, here is the story:"\n\n{STORY}',
    f"Sure,\n\n{STORY}",
    f"Sure, he thought.\n\n{STORY}",
    f"Sure. The boat was late.\n\n{STORY}",
    f"Certainly\n\n{STORY}",
    f"Of course it rained.\n\n{STORY}",
    f"Of course, here is where it gets strange:\n\n{STORY}",
    f"Here is the house that Jack built:\n\n{STORY}",
    f"Here is the house that Jack built.\n\n{STORY}",
    f"Here is what nobody tells you about lighthouses:\n\n{STORY}",
    "Here are the steps:\n\n1. Trim the wick.\n2. Light the lamp.",
    f"Here was the story, and here it ended.\n\n{STORY}",
    f"Let's Start Over\n\n{STORY}",
    f"Let's start over, she said.\n\n{STORY}",
    f"Let me know if you see the ship.\n\n{STORY}",
    f"Great keepers ask no questions.\n\n{STORY}",
    f"{LETTER}\n\nLet me know if you can come.",
    f"{LETTER}\n\nPlease let me know if you have any questions.",
    f"{LETTER}\n\nI hope this helps.",
    f"{STORY}\n\nLet me know if you can come.",
    f"Subject: Ships\n\n{STORY}\n\nLet me know if you have any questions.",
    f"{STORY}\n\nWould you like me to stay?",
    f'{STORY}\n\n"I hope this helps," he said.',
    f"{STORY}\n\nI hope it rains.",
    f"{STORY}\n\nI hope this helps! It was the last thing that he ever wrote.",
    f"{STORY}\n\nIf you want to live, you can follow me.",
    f"{STORY}\n\nFeel free to be lost.",
    f"{STORY}\n\nEnjoy!",
    f"{STORY}\n\nThank you.",
    f"{STORY}\n\n---\n\nAnother night.",
    f"---\n\n{STORY}",
    "I hope this helps!",
    "Sure, here is the story:",
    *CLEAN,
)


@pytest.mark.parametrize("opening", OPENINGS)
def test_an_opening_is_cut(opening: str) -> None:
    for between in ("\n", "\n\n", "\n\n---\n\n", "\n***\n"):
        text = opening + between + STORY
        assert without_chatter(text) == STORY
        assert chatter_of(text)[0].startswith(opening)
    # Only as a first line of its own.
    for text in (f"{opening} {STORY}", f"{STORY}\n\n{opening}\n\n{STORY}", f'"{opening}"\n\n{STORY}'):
        assert without_chatter(text) == text


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_ending_is_cut(ending: str) -> None:
    for between in ("\n\n", "\n\n---\n\n", "\n***\n\n"):
        text = STORY + between + ending
        assert without_chatter(text) == STORY
        assert chatter_of(text)[1].endswith(ending)
    for text in (
        f"{STORY} {ending}",
        f"{STORY}\n{ending}",
        f"{STORY}\n\n{ending}\n\n{STORY}",
        f'{STORY}\n\n"{ending}"',
    ):
        assert without_chatter(text) == text


@given(st.sampled_from(OPENINGS), st.sampled_from(ENDINGS))
def test_both_are_cut_and_cutting_twice_is_cutting_once(opening: str, ending: str) -> None:
    text = f"{opening}\n\n{STORY}\n\n{ending}"
    assert without_chatter(text) == without_chatter(without_chatter(text)) == STORY
    assert chatter_of(text) == (opening, ending)


def test_several_lines_of_chatter_are_cut_at_once() -> None:
    text = "\n\n".join([OPENINGS[5], OPENINGS[0], "---", STORY, "***", ENDINGS[0], ENDINGS[4]])
    assert without_chatter(text) == STORY
    assert chatter_of(text) == (
        f"{OPENINGS[5]}\n\n{OPENINGS[0]}\n\n---",
        f"***\n\n{ENDINGS[0]}\n\n{ENDINGS[4]}",
    )


@pytest.mark.parametrize("text", TRICKY)
def test_what_is_nearly_chatter_is_kept(text: str) -> None:
    assert without_chatter(text) == text


def test_of_a_thousand_clean_answers_none_is_cut() -> None:
    for number in range(1_500):
        text = prose(f"lighthouse {number}", number.to_bytes(4), plain=bool(number % 2))
        assert without_chatter(text) == text
        assert chatter_of(text) == ("", "")


@given(st.text("SureHrithstoy,:.!\n -ILmkfplsad", max_size=300))
def test_the_middle_of_a_text_is_never_touched(middle: str) -> None:
    text = f"The keeper rose.\n{middle}\nThe end"
    assert without_chatter(text) == text
    assert middle.strip() in without_chatter(
        f"{OPENINGS[0]}\n\nIt was so.\n{middle}\nIt was.\n\n{ENDINGS[0]}"
    )


def test_an_answer_of_which_too_little_would_be_left_stays() -> None:
    reading = Reading(cut_chatter=True)
    short, enough = "It rained.", "x" * (MIN_CHOSEN_LENGTH - 1) + "."
    for left, kept in ((short, False), (enough, True)):
        text = f"{OPENINGS[1]}\n\n{left}"
        answer = Answer(text, finish_reason="stop")
        expected = left if kept else text
        assert reading.chosen(answer).content == reading.rejected(answer).content == expected
        assert reading.given(Text(text, "hm")) == Text(expected, "hm")
        assert Reading().chosen(answer) == read_chosen(answer) == Text(text)


async def chatting(chat: Chat) -> str:
    if chat.purpose is Purpose.JUDGE:
        return json.dumps({"style": 4})
    return f"<think>Hm.</think>Sure, here is the story:\n\n{STORY}\n\nI hope this helps!<|im_end|>"


@pytest.mark.parametrize("cut", [True, False])
async def test_judge_rows_and_surveys_see_the_same_text(tmp_path: Path, *, cut: bool) -> None:
    settings: dict[str, Any] = {"generation__dataset_mode": "mo-dpo", "generation__cut_chatter": cut}
    (job,) = some_jobs(1)
    kept: list[Pair | None] = []

    def keep(_: Job, pair: Pair | None) -> None:
        kept.append(pair)

    async with ChatServer(chatting) as server:
        async with running(tmp_path, server.base_url, **settings) as run:
            await make_pairs(run, [job], keep)
        judged = {chat.text for chat in server.asked if chat.purpose is Purpose.JUDGE}
        async with running(tmp_path, server.base_url, **settings) as run:
            found = await survey(run.config, run.ledger, keep, jobs=[job])
    expected = STORY if cut else f"Sure, here is the story:\n\n{STORY}\n\nI hope this helps!"
    assert judged == {expected}
    assert (found.done, found.to_pay.total()) == (1, 0)
    for pair in kept:
        assert pair is not None
        assert pair.rejected is not None
        assert (pair.chosen.content, pair.rejected.content) == (expected, expected)
        assert pair.chosen.reasoning == "Hm."


async def test_the_ledger_keeps_the_chatter_so_that_the_setting_may_change(tmp_path: Path) -> None:
    (job,) = some_jobs(1)
    kept: list[Pair] = []
    async with ChatServer(chatting) as server:
        for cut in (False, True, False):
            async with running(tmp_path, server.base_url, generation__cut_chatter=cut) as run:
                await make_pairs(run, [job], lambda _, pair: kept.append(pair) if pair else None)
        assert len(server.asked) == 2
    assert ["I hope" in pair.chosen.content for pair in kept] == [True, False, True]
    assert kept[0] == kept[2]


async def test_a_transform_cuts_what_it_is_given_and_what_it_makes(tmp_path: Path) -> None:
    mode = find_mode("regen-rejected")
    given_row = {"prompt": "p0", "chosen": f"{STORY}\n\nI hope this helps!", "rejected": "no"}
    row = read_row(given_row, place=0, line=1, mode=mode, split=False)
    async with (
        ChatServer(chatting) as server,
        running(tmp_path, server.base_url, generation__cut_chatter=True) as run,
    ):
        done = await Transform(run, mode).work([row])
    written = json.loads(done.plain)
    assert (written["chosen"], written["rejected"]) == (STORY, STORY)
    assert replace(row).chosen == Text(given_row["chosen"])
