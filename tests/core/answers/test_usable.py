"""Which answers can be used: a table of texts, and that any text at all is either taken or named unusable."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.answers.usable import (
    MIN_CHOSEN_LENGTH,
    OPENING,
    REFUSAL_PHRASES,
    is_refusal,
    items_in,
    read_chosen,
    read_items,
    read_rejected,
    read_scores,
    refusal_phrase,
)
from tasks.core.errors import UnusableAnswerError
from tasks.core.exchange.request import Answer
from tasks.core.models import Score, Scores, Text

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


SORRY = "I'm sorry, but I can't help with that."


@pytest.mark.parametrize(
    "text",
    [
        SORRY,
        SORRY.replace("'", "\N{RIGHT SINGLE QUOTATION MARK}"),
        "I'm sorry, I cannot generate prompts on that topic.",
        "Sorry, I can't.",
        "As an AI language model, I cannot create such content.",
        "I'm sorry, but as an AI I cannot generate the text that you have asked for.",
        "I cannot assist with that request.",
        "I can't write stories about real people.",
        "I'm unable to provide a list of subtopics on this.",
        "I won't help with this.",
        "I cannot provide any prompts for this topic.",
        "I must decline.",
        "Unfortunately, I am not able to create content of that kind.",
        "I apologize, but I can't fulfill this request.",
        "I understand your interest, but I cannot create content that promotes harm.",
        " \n**I can't help with that**",
    ],
)
def test_sentences_that_refuse(text: str) -> None:
    assert is_refusal(text)
    assert is_refusal(f"{text}\n\n{LONG}")
    assert not is_refusal(f'Write a dialogue in which a robot says: "{text}"')
    assert not is_refusal(f'"{text}" the robot says. Continue the story.')


@pytest.mark.parametrize(
    "text",
    [
        "",
        PROSE,
        "Write a dialogue in which a robot says: I cannot help with that",
        "As an AI researcher in 2150, you discover that the lamp speaks. Write her diary.",
        "As an AI on a ship, I wake up to silence. Continue my log.",
        "I cannot write to her, thinks the keeper. Continue.",
        "I cannot help with the harvest this year, writes the aunt. Answer her letter.",
        "I can't help falling in love: rewrite the song for a keeper.",
        "I won't write this letter again.",
        "I'm sorry: a letter from a keeper to his son",
        "Sorry sailors: I can't swim",
        "Unfortunately, the lamp went out. Tell what follows.",
        'Explain why a model that says "I can\'t provide that" is tiresome.',
        "sorry " * 100,
        "as an ai " * 100,
        "i cannot write " + "any " * 100,
    ],
)
def test_sentences_that_refuse_nothing(text: str) -> None:
    assert not is_refusal(text)


def listed(answer: Answer) -> tuple[str, ...] | str:
    """The list in an answer, or why there is none."""
    try:
        items = read_items(answer, "prompts")
    except UnusableAnswerError as error:
        assert items_in(answer) == ()
        return error.cause
    assert items_in(answer) == items
    return items


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer('["a", "b"]'), ("a", "b")),
        (Answer('["a", "b"]', reasoning='["c"]'), ("a", "b")),
        (Answer("", reasoning='["a", "b"]', finish_reason="stop"), ("a", "b")),
        (Answer(" \n", reasoning='{"items": ["a", "b"]}'), ("a", "b")),
        (Answer("", reasoning='```json\n["a",\n"b"]\n```\n'), ("a", "b")),
        (Answer("", reasoning='["a"]\n["b"]'), ("a", "b")),
        (Answer("", reasoning='Not ["x", "y"], rather:\n\n["a", "b"]'), ("a", "b")),
        (Answer("", reasoning='["a", "b"]\n\nThat should do.'), ("a", "b")),
        (Answer('<think>Perhaps so: ["a", "b"]</think>', finish_reason="stop"), ("a", "b")),
        (Answer("", reasoning='["a", "b", "an item that was cu', finish_reason="length"), ("a", "b")),
        # Drafts, quotations of the question, and lists of thoughts.
        (Answer("", reasoning='They want ["first", "second"]. So I look for two.'), "no_list"),
        (Answer("", reasoning='Perhaps ["x", "y"]', finish_reason="length"), "token_exhaustion"),
        (Answer("", reasoning="1. Look at the question.\n2. Answer it."), "no_list"),
        (Answer("Here you are:", reasoning='["a", "b"]'), "no_list"),
        (Answer(f'["{SORRY}"]'), "refused"),
        (Answer(f'{{"prompts": ["{SORRY}", "I cannot assist with that request."]}}'), "refused"),
        (Answer(f'["a", "{SORRY}", "b"]'), ("a", "b")),
        (Answer('["A robot says: I cannot help with that"]'), ("A robot says: I cannot help with that",)),
        (Answer(f'[{{"prompt": "{SORRY}"}}]'), "refused"),
        (Answer("", reasoning=f'["{SORRY}"]'), "refused"),
        (Answer(SORRY), "refused"),
        (Answer(f'{{"error": "{SORRY}"}}'), "refused"),
        (Answer(f"{SORRY} I can offer:\n- a poem\n- a letter"), "refused"),
        (Answer(f'{SORRY} But these:\n["a", "b"]'), ("a", "b")),
        (Answer("It is against the rules.", finish_reason="refusal"), "refused"),
        (Answer("", finish_reason="content_filter"), "refused"),
        (Answer('["a", "b"]', finish_reason="content_filter"), ("a", "b")),
        (Answer("What a pity that it rains."), "no_list"),
        (Answer(""), "no_list"),
        (Answer("{"), "no_list"),
        (Answer('{"items":' + "\n" * 99, finish_reason="length"), "no_list"),
        (Answer("\n" * 99, finish_reason="length"), "token_exhaustion"),
        (Answer("", finish_reason="length"), "token_exhaustion"),
        (Answer("<think>and then", finish_reason="length"), "token_exhaustion"),
    ],
)
def test_lists_and_why_there_is_none(answer: Answer, expected: tuple[str, ...] | str) -> None:
    assert listed(answer) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer('{"plot": {"score": 4, "reasoning": "good"}}'), Scores({"plot": Score(4, "good")})),
        (Answer("", reasoning='So I say: {"plot": 4}'), Scores({"plot": Score(4, "")})),
        (Answer('<think>{"plot": 4}</think>'), Scores({"plot": Score(4, "")})),
        (Answer("**Plot**: 4/5 - good"), Scores({"plot": Score(4, "good")})),
        (Answer("", reasoning="Plot: 4/5, I think."), "bad_scores"),
        (Answer("", reasoning='They want {"plot": 3}. Let me see.'), "bad_scores"),
        (Answer("It is rather good."), "bad_scores"),
        (Answer("{"), "bad_scores"),
        (Answer('{"plot":' + "\n" * 99, finish_reason="length"), "bad_scores"),
        (Answer(" \n" * 99, finish_reason="length"), "token_exhaustion"),
        (Answer("", reasoning="Hm.", finish_reason="length"), "token_exhaustion"),
    ],
)
@pytest.mark.parametrize("criteria", [None, ("plot",)])
def test_scores_and_why_there_are_none(
    answer: Answer, criteria: tuple[str, ...] | None, expected: Scores | str
) -> None:
    try:
        found: Scores | str = read_scores(answer, criteria)
    except UnusableAnswerError as error:
        found = error.cause
    assert found == expected


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r\t"), min_size=1), min_size=1))
def test_a_list_is_read_alike_from_the_answer_and_from_the_reasoning(items: list[str]) -> None:
    text = json.dumps(items)
    assert (
        items_in(Answer(text))
        == items_in(Answer("", reasoning=text))
        == items_in(Answer("", reasoning=f"So:\n{text}"))
    )


@given(st.text(), st.text(), st.sampled_from(["", "stop", "length", "refusal"]))
def test_any_answer_at_all_is_a_list_or_has_a_cause(content: str, reasoning: str, finish: str) -> None:
    found = listed(Answer(content, reasoning, finish))
    assert found
    assert isinstance(found, tuple) or found in {"refused", "no_list", "token_exhaustion"}
