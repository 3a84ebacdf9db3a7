"""Thinking told apart from the answer: a table of how models write it, and that none of it gets through."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.answers.parsing import parse_items, parse_scores
from tasks.core.answers.thinking import Thought, split_thinking
from tasks.core.answers.usable import read_chosen, read_rejected
from tasks.core.errors import UnusableAnswerError
from tasks.core.exchange.request import Answer
from tasks.core.models import Score, Text

PROSE = "The keeper lit the lamp at dusk, and then he waited for the ships that did not come."


@pytest.mark.parametrize(
    ("text", "answer", "reasoning"),
    [
        ("plain", "plain", ""),
        ("  plain \n", "plain", ""),
        ("", "", ""),
        ("a < b and <b>bold</b>", "a < b and <b>bold</b>", ""),
        ("<think>hm</think>yes", "yes", "hm"),
        ("<think>\nhm\n</think>\n\nyes\n", "yes", "hm"),
        ("<THINK>hm</Think>yes", "yes", "hm"),
        ("<thinking>hm</thinking>yes", "yes", "hm"),
        ("<think>hm</thinking>yes", "yes", "hm"),
        ("<思考>嗯</思考>是", "是", "嗯"),
        ("<think></think>yes", "yes", ""),
        ("<think>one</think><think>two</think>yes", "yes", "one\n\ntwo"),
        ("yes <think>hm</think> and no", "yes\n\nand no", "hm"),
        # Not closed.
        ("<think>hm, and then", "", "hm, and then"),
        ("yes <think>hm", "yes", "hm"),
        ("<think>one</think>yes<think>two", "yes", "one\n\ntwo"),
        # Nested.
        ("<think>a<think>b</think>c</think>yes", "yes", "a\n\nb\n\nc"),
        ("<think>a<thinking>b</thinking>c", "", "a\n\nb\n\nc"),
        # The beginning was swallowed.
        ("hm\n</think>\nyes", "yes", "hm"),
        ("a</think>b</think>yes", "yes", "a\n\nb"),
        ("a<think>b</think>c</think>yes", "yes", "b\n\na\n\nc"),
        ("hm</think>", "", "hm"),
        # The answer is inside.
        ("<think>hm<answer>yes</answer></think>", "yes", "hm"),
        ("<think>hm<answer>yes</answer>well", "yes", "hm\n\nwell"),
        ("<think>hm<answer>yes, cut", "yes, cut", "hm"),
        ("<think><answer>no</answer><answer>yes</answer></think>", "yes", "<answer>no</answer>"),
        ("<think><answer>inside</answer></think>outside", "outside", "<answer>inside</answer>"),
        ("<think>hm</think><answer>yes</answer>", "yes", "hm"),
        ("<think>hm</think><answer>yes, cut", "yes, cut", "hm"),
        ("<think>hm</think><answer>yes</answer> and more", "<answer>yes</answer> and more", "hm"),
        ("<answer>yes</answer>", "<answer>yes</answer>", ""),
        # Spoken about.
        ("Models use `<think>` tags and `</think>`.", "Models use `<think>` tags and `</think>`.", ""),
        ("<think/>yes", "<think/>yes", ""),
        ("<think>hm</ think>", "", "hm</ think>"),
    ],
)
def test_where_thinking_ends(text: str, answer: str, reasoning: str) -> None:
    assert split_thinking(text) == Thought(answer, reasoning)


PIECES = (
    "<think>",
    "</think>",
    "<Thinking>",
    "</thinking>",
    "<思考>",
    "</思考>",
    "<answer>",
    "</answer>",
    "`",
    "<",
    " ",
)
tagged = st.lists(st.sampled_from([*PIECES, *"abc"]) | st.text(max_size=4)).map("".join)


@given(tagged)
def test_no_tag_gets_into_an_answer_and_nothing_is_made_up(text: str) -> None:
    thought = split_thinking(text)
    assert not re.search(r"(?<!`)</?(?:think|thinking|思考)>", thought.answer, re.IGNORECASE)
    letters = sorted("".join(text.split()))
    kept = sorted("".join((thought.answer + thought.reasoning).split()))
    for letter in set(kept):
        assert kept.count(letter) <= letters.count(letter)


@given(st.text("abc \n", min_size=1), st.text("xyz \n"))
def test_what_was_thought_and_what_was_said_come_back(thought: str, said: str) -> None:
    assert split_thinking(f"<think>{thought}</think>{said}") == Thought(said.strip(), thought.strip())


@pytest.mark.parametrize(
    "piece", ["<think>", "</think>", "<think></think>", "<answer>", "<", "`<think>", "<think>x"]
)
def test_a_long_text_is_split_as_fast_as_a_short_one(piece: str) -> None:
    # With anything but linear time this would outlast the test's time limit.
    assert len(split_thinking(piece * 300_000).answer) <= len(piece) * 300_000


def test_an_answer_loses_its_thinking_to_its_reasoning() -> None:
    answer = Answer(f"<think>fog</think>{PROSE}", reasoning="a bell", finish_reason="stop")
    assert read_chosen(answer) == read_rejected(answer) == Text(PROSE, reasoning="a bell\n\nfog")


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (Answer("<think>and then", finish_reason="length"), "token_exhaustion"),
        (Answer("<think>and then", finish_reason="max_tokens"), "token_exhaustion"),
        (Answer("<think>and then", finish_reason="MAX_TOKENS"), "token_exhaustion"),
        (Answer("", reasoning="and then", finish_reason="length"), "token_exhaustion"),
        (Answer("<think>done</think>", finish_reason="stop"), "empty"),
        (Answer("", reasoning="done", finish_reason="stop"), "empty"),
        (Answer("", finish_reason="content_filter"), "refused"),
        (Answer("<think>is it allowed?</think>", finish_reason="content_filter"), "refused"),
    ],
)
def test_only_thinking_is_no_answer(answer: Answer, cause: str) -> None:
    for read in (read_chosen, read_rejected):
        with pytest.raises(UnusableAnswerError) as raised:
            read(answer)
        assert raised.value.cause == cause


def test_a_reported_refusal_may_be_rejected_but_not_chosen() -> None:
    answer = Answer(PROSE, finish_reason="refusal")
    assert read_rejected(answer).content == PROSE
    with pytest.raises(UnusableAnswerError, match="refusal"):
        read_chosen(answer)


def test_a_refusal_that_was_thought_of_is_none() -> None:
    answer = Answer(f"<think>I'm sorry, but I can't? No: I can.</think>{PROSE}", finish_reason="stop")
    assert read_chosen(answer).content == PROSE


@pytest.mark.parametrize(
    "text",
    [
        '<think>["not", "this"]</think>["a", "b"]',
        '["not", "this"]</think>["a", "b"]',
        '<Thinking>["not"]</Thinking>\n```json\n{"items": ["a", "b"]}\n```',
        '<think>["not"] <answer>["a", "b"]</answer></think>',
    ],
)
def test_lists_are_not_read_from_thinking(text: str) -> None:
    assert parse_items(text) == ("a", "b")


def test_scores_are_not_read_from_thinking() -> None:
    text = '<思考>{"plot": 1}</思考>{"scores": {"plot": {"score": 4, "reasoning": "good"}}}'
    assert parse_scores(text, ("plot",)).criteria == {"plot": Score(4.0, "good")}
