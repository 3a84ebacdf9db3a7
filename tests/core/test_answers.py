"""Which answers can be used: a table of texts, and that any text at all is either taken or named unusable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.answers import (
    MIN_CHOSEN_LENGTH,
    OPENING,
    REFUSAL_PHRASES,
    read_chosen,
    read_rejected,
    refusal_phrase,
)
from tasks.core.errors import UnusableAnswerError
from tasks.core.llm.types import Answer
from tasks.core.models import Text

if TYPE_CHECKING:
    from collections.abc import Callable

PROSE = "The keeper lit the lamp at dusk, and then he waited for the ships that did not come."
CUT = "The keeper lit the lamp at dusk, and then he waited for the ships that did not co"
LONG = f"{PROSE}\n\n" * 4


def cause_of(content: str, finish_reason: str = "stop") -> str:
    """Why a chosen answer cannot be used, "" when it can."""
    try:
        text = read_chosen(Answer(content, finish_reason=finish_reason))
    except UnusableAnswerError as error:
        return error.cause
    assert text == Text(content.strip(), truncated=finish_reason == "length")
    return ""


@pytest.mark.parametrize(
    "content",
    [
        PROSE,
        PROSE[:-1] + "!",
        PROSE[:-1] + "?",
        PROSE[:-1] + "…",
        f'"{PROSE}"',
        f"“{PROSE}”",
        f"«{PROSE}»",
        f"({PROSE})",
        f"*{PROSE}*",
        f"  \n{PROSE}\n\n",
        f"{PROSE} 🌊",
        f"{PROSE}\n\n🌊⚓️",
        f"{PROSE}\n\n```python\nprint('fog')\n```",
        f"{PROSE}\n\n# The lamp",
        f"{PROSE}\n\n- fog horns\n- lamps",
        f"{PROSE}\n\n* fog horns\n* lamps",
        f"{PROSE}\n\n1. fog horns\n2) lamps",
        f"{PROSE}\n\n| lamp | fog |\n|--|--|\n| 1 | 2 |",
        f"{PROSE}\n\n<b>The end</b>",
        f"{PROSE}\n\n$$x^2$$",
        f"{PROSE}\n\nYours truly,\nThe Keeper",
        "The lamp is lit\nThe sea is wide\nThe keeper sits\nAnd waits for tide",
        "灯台守は夕暮れに灯をともし、それから帰って来ない船をいつまでも待っていた。" * 2,
        "灯台守は夕暮れに灯をともし、それから帰って来ない船をいつまでも待っていた" * 2,
        "守灯塔的人在黄昏点亮了灯，然后等待那些再也没有回来的船，一直等到天亮" * 2,  # noqa: RUF001 - Chinese commas
        "등대지기는 해 질 녘에 등불을 켜고 돌아오지 않는 배들을 아침까지 기다렸다" * 2,
        "أشعل حارس المنارة المصباح عند الغسق وانتظر السفن التي لم تعد حتى الصباح" * 2,
        "ผู้ดูแลประภาคารจุดตะเกียงยามพลบค่ำและรอเรือที่ไม่กลับมา" * 2,
        f'{LONG}"Speak," said the machine. "As an AI, I cannot help with that. I must decline."',
        f"{LONG}I can\N{RIGHT SINGLE QUOTATION MARK}t write any more today, he wrote, and put down his pen.",
    ],
)
def test_texts_that_can_be_used(content: str) -> None:
    assert cause_of(content) == ""
    assert cause_of(content, "end_turn") == ""


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (f"As an AI, I keep away from ships. {PROSE}", "refused"),
        (f"I'm sorry, but I can't help with that. {PROSE}", "refused"),
        (
            f"I\N{RIGHT SINGLE QUOTATION MARK}m sorry, but I can\N{RIGHT SINGLE QUOTATION MARK}t. {PROSE}",
            "refused",
        ),
        (f"I\N{RIGHT SINGLE QUOTATION MARK}m unable to help with that. {PROSE}", "refused"),
        (f"{PROSE} I CANNOT GENERATE what you ask for.", "refused"),
        (f"  \n\n I won't be able to do that. {PROSE}", "refused"),
        ("I must decline.", "refused"),
        ("", "empty"),
        (" \n\t\N{NO-BREAK SPACE}", "empty"),
        ("x" * (MIN_CHOSEN_LENGTH - 2) + ".", "too_short"),
        (PROSE[: MIN_CHOSEN_LENGTH - 1] + " " * 40, "too_short"),
        (CUT, "incomplete"),
        (f"{PROSE} And then,", "incomplete"),
        (f"{PROSE} And then —", "incomplete"),
        (f"{PROSE} And then (", "incomplete"),
        (f"{PROSE} And then;", "incomplete"),
        (f"{PROSE}\n\n{CUT}", "incomplete"),
        ("Смотритель зажёг лампу в сумерках и стал ждать кораблей, которые не верну", "incomplete"),
        (f"{PROSE} In the year 1881", "incomplete"),
    ],
)
def test_texts_that_cannot_be_used(content: str, cause: str) -> None:
    assert cause_of(content) == cause


def test_a_text_of_the_least_length_can_be_used() -> None:
    assert cause_of("x" * (MIN_CHOSEN_LENGTH - 1) + ".") == ""


@pytest.mark.parametrize(
    ("content", "finish_reason", "cause"),
    [
        (CUT, "stop", "incomplete"),
        (CUT, "", "incomplete"),
        (CUT, "length", ""),
        (PROSE, "", ""),
        (PROSE, "length", ""),
        # Without the model's word that it was done, a line that looks open is.
        (f"{PROSE}\nThe Keeper", "stop", ""),
        (f"{PROSE}\nThe Keeper", "", "incomplete"),
        (f"{PROSE}\n- fog horns", "stop", ""),
        (f"{PROSE}\n- fog horns", "", "incomplete"),
        (PROSE, "content_filter", "refused"),
        ("", "stop", "empty"),
        ("", "", "empty"),
        ("", "length", "token_exhaustion"),
        (" \n ", "length", "token_exhaustion"),
        # The token limit excuses an open end and nothing else.
        ("As an AI, I keep away from", "length", "refused"),
        ("The keeper", "length", "too_short"),
    ],
)
def test_how_the_model_says_it_ended_matters(content: str, finish_reason: str, cause: str) -> None:
    assert cause_of(content, finish_reason) == cause


@given(
    st.sampled_from(REFUSAL_PHRASES),
    st.sampled_from([str.lower, str.upper, str.title]),
    st.sampled_from("'\N{RIGHT SINGLE QUOTATION MARK}"),
    st.integers(0, OPENING - 30),
)
def test_each_phrase_is_found_in_the_opening_in_any_spelling(
    phrase: str,
    spell: Callable[[str], str],
    apostrophe: str,
    before: int,
) -> None:
    spoken = spell(phrase).replace("'", apostrophe)
    assert refusal_phrase("." * before + spoken) in REFUSAL_PHRASES
    assert refusal_phrase("." * OPENING + spoken) == ""


@pytest.mark.parametrize("content", ["As an AI, no.", "x", CUT, "-", "I can't"])
def test_rejected_answers_are_taken_whatever_they_say(content: str) -> None:
    answer = Answer(f" {content}\n", reasoning=" So be it.\n", finish_reason="stop")
    assert read_rejected(answer) == Text(content, reasoning="So be it.")


@pytest.mark.parametrize(("finish_reason", "cause"), [("stop", "empty"), ("length", "token_exhaustion")])
def test_rejected_answers_are_not_empty(finish_reason: str, cause: str) -> None:
    answer = Answer(" \n", reasoning="Let me think.", finish_reason=finish_reason)
    with pytest.raises(UnusableAnswerError) as raised:
        read_rejected(answer)
    assert raised.value.cause == cause


@given(
    st.text() | st.text().map(PROSE.__add__) | st.text("a \n,").map(PROSE.__add__),
    st.text(),
    st.sampled_from(["", "stop", "length", "tool_calls"]),
)
def test_any_answer_is_taken_or_named_unusable(content: str, reasoning: str, finish_reason: str) -> None:
    answer = Answer(content, reasoning=reasoning, finish_reason=finish_reason)
    for read in (read_chosen, read_rejected):
        try:
            text = read(answer)
        except UnusableAnswerError as error:
            assert (error.cause != "", "\n" in str(error)) == (True, False)  # noqa: PT017 - or it is taken
        else:
            assert text.content == content.strip() != ""
            assert text.truncated == (finish_reason == "length")
