"""Marks of machinery in answers: in every mark-up, whole and cut anywhere, none gets into a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from hypothesis import assume, given
from hypothesis import strategies as st

from tasks.core.answers.chatter import chatter_of, without_chatter
from tasks.core.answers.marks import SPELLED, special_token, without_tokens
from tasks.core.answers.thinking import Thought, reported_reasoning, split_thinking, think_tag
from tasks.core.answers.usable import read_chosen, read_rejected
from tasks.core.chat.http import ChatHttp
from tasks.core.errors import UnusableAnswerError
from tasks.core.exchange.request import Answer
from tasks.core.generation.pairs import make_pairs
from tasks.core.rows.formats import rows_of, with_reasoning
from tests.core.answers.markups import ANSWER, CLEAN, EVERY, REASONING, THOUGHT, TOKENS
from tests.core.chat.attempts import sent
from tests.core.chat.scripted import Scripted, completion, http
from tests.core.chat.test_streaming import EVENTS, chunk, stream
from tests.core.running import ChatServer, running, some_jobs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tasks.core.models import Pair
    from tests.core.running import Chat

shared_loop = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[ChatHttp]:
    async with ChatHttp(max_connections=4) as shared:
        yield shared


def test_there_are_enough_of_them() -> None:
    assert len(REASONING) >= 20
    assert len(TOKENS) >= 20


@pytest.mark.parametrize("text", EVERY.values(), ids=EVERY)
def test_the_whole_of_it_is_the_answer_and_the_thought(text: str) -> None:
    thought = split_thinking(text)
    assert thought.answer == ANSWER
    assert thought.reasoning.startswith(THOUGHT if THOUGHT in text else "")
    assert not think_tag(thought.answer + thought.reasoning)
    assert not special_token(thought.answer)
    assert not special_token(thought.reasoning)
    # What was split once is split for good.
    assert split_thinking(thought.answer) == Thought(ANSWER)


@pytest.mark.parametrize("text", EVERY.values(), ids=EVERY)
def test_cut_at_every_character_no_mark_and_no_thought_is_an_answer(text: str) -> None:
    for length in range(len(text)):
        cut = text[:length]
        thought = split_thinking(cut, cut=True)
        assert ANSWER.startswith(thought.answer), cut
        try:
            said = read_rejected(Answer(cut, finish_reason="length"))
        except UnusableAnswerError as error:
            assert error.cause == "token_exhaustion"  # noqa: PT017 - or it is an answer
        else:
            assert ANSWER.startswith(said.content)


# Marks in words are words, when nothing says that the text is cut off.
IN_WORDS = ("bare", "granite")


@pytest.mark.parametrize("name", [name for name in EVERY if not any(word in name for word in IN_WORDS)])
def test_it_need_not_be_known_that_a_text_is_cut(name: str) -> None:
    text = EVERY[name]
    for length in range(len(text)):
        cut = text[:length]
        # A single bracket may be all that was to be said.
        assert ANSWER.startswith(split_thinking(cut).answer) or len(cut.strip()) == 1, cut


# Without a beginning their ends are words of XML or of English.
ONLY_WHOLE = {"exaone", "reasoning", "scratchpad", "granite", "granite in short", "bare harmony with a call"}


@pytest.mark.parametrize("name", [name for name in REASONING if name not in ONLY_WHOLE])
def test_without_its_beginning_all_before_the_end_is_thought(name: str) -> None:
    text = REASONING[name]
    tail = text[text.index(THOUGHT) :]
    assert split_thinking(tail).answer == ANSWER


@pytest.mark.parametrize("text", EVERY.values(), ids=EVERY)
@shared_loop
async def test_over_http_streamed_and_not(client: ChatHttp, text: str) -> None:
    whole = stream(
        chunk(role="assistant"), *(chunk(content=letter) for letter in text), chunk("stop"), "[DONE]"
    )
    end = len(text) - 3
    half = stream(*(chunk(content=letter) for letter in text[:end]), chunk("length"), "[DONE]")
    cut = completion(
        choices=[{"message": {"role": "assistant", "content": text[:end]}, "finish_reason": "length"}]
    )
    async with Scripted([http(200, whole, EVENTS), completion(text)]) as server:
        for streaming in (True, False):
            answer = await sent(client, server, streaming=streaming)
            # The ledger keeps it as it came.
            assert answer.content == text
            assert read_chosen(answer).content == read_rejected(answer).content == ANSWER
    async with Scripted([http(200, half, EVENTS), cut]) as server:
        for streaming in (True, False):
            answer = await sent(client, server, streaming=streaming)
            assert (answer.content, answer.truncated) == (text[:end], True)
            assert ANSWER.startswith(read_rejected(answer).content)


async def test_rows_have_no_marks_and_those_of_an_older_ledger_lose_them(tmp_path: Path) -> None:
    texts = list(EVERY.values())
    pairs: list[Pair] = []

    async def marked(chat: Chat) -> str:
        return texts[int(chat.subject[1:])]

    async with ChatServer(marked) as server:
        for _ in range(2):
            async with running(tmp_path, server.base_url, generation__enable_reasoning_capture=True) as run:
                jobs = some_jobs(len(texts))
                outcome = await make_pairs(run, jobs, lambda _, pair: pairs.append(pair) if pair else None)
                assert (outcome.kept, outcome.failures) == (len(texts), ())
                rows = [
                    row for pair in pairs for row in rows_of(run.config, with_reasoning(run.config, pair))
                ]
        # The second time all answers were those of the ledger, where they stand as they came.
        assert len(server.asked) == 2 * len(texts)
    assert {(row["chosen"].split("</think>\n\n")[-1], row["rejected"]) for row in rows} == {(ANSWER, ANSWER)}
    assert not any(special_token(row["chosen"]) for row in rows)


@pytest.mark.parametrize("text", CLEAN)
def test_a_clean_text_stays_as_it_is(text: str) -> None:
    assert split_thinking(text) == Thought(text)
    assert special_token(text) == ""
    assert without_chatter(text) == text


BRACKETS = "<[◁＜⟨〈【"  # noqa: RUF001


HEADERS = ("Here", "analysis", "assistant", "commentary")
"""What is left of a header when its brackets are gone; Hypothesis tries the words that stand in the code."""


@given(st.text())
def test_a_text_without_brackets_is_never_changed(text: str) -> None:
    text = "".join(letter for letter in text if letter not in BRACKETS)
    assume(not any(header in text for header in HEADERS))
    assert split_thinking(text) == Thought(text.strip())
    assert special_token(text) == ""


@given(st.lists(st.sampled_from(CLEAN) | st.text("abc ,.\n>]/|()\"'", max_size=20)))
def test_clean_texts_make_a_clean_text(pieces: list[str]) -> None:
    text = "\n\n".join(["The keeper.", *pieces, "The end."])
    assert split_thinking(text) == Thought(text)


@given(st.sampled_from(list(EVERY.values())), st.text("ab \n.", max_size=10))
def test_blanks_and_words_beside_marks_are_kept(text: str, more: str) -> None:
    said = f"{ANSWER} {more}.".strip()
    assert split_thinking(f"\n{text.replace(ANSWER, said)} \n").answer == said


MARKS = [
    *SPELLED,
    "<|im_end|>",
    "<|im_start|>",
    "assistant",
    "user",
    "<|end|>",
    "<|channel|>",
    "<|message|>",
    "final",
]
MARKS += [
    "<|start|>",
    "analysis",
    "assistantfinal",
    "Here is my thought process:",
    "`",
    "```",
    "<",
    "[",
    "\n",
    ".",
    " a ",
]


@given(st.lists(st.sampled_from(MARKS)).map("".join), st.booleans())
def test_whatever_stands_together_nothing_is_made_up(text: str, cut: bool) -> None:  # noqa: FBT001
    thought = split_thinking(text, cut=cut)
    assert thought.answer == thought.answer.strip()
    letters = "".join(text.split())
    kept = "".join((thought.answer + thought.reasoning).split())
    assert all(kept.count(letter) <= letters.count(letter) for letter in set(kept))
    assert split_thinking(thought.answer).answer in thought.answer
    special_token(text)
    reported_reasoning(text)


@pytest.mark.parametrize(
    ("text", "token"),
    [
        (f"{ANSWER}<|im_end|>\n<|im_start|>user\nAnd then? {ANSWER}", "<|im_end|>"),
        (f"{ANSWER}</s>[INST] And then? [/INST] {ANSWER}", "</s>"),
        (f"{ANSWER} [/INST] {ANSWER}", "[/INST]"),
        (f"{ANSWER}<end_of_turn>\n<start_of_turn>user\nAnd then?\n{ANSWER}", "<end_of_turn>"),
        (f"<|user|>\nWhy?\n<|assistant|>\n{ANSWER}", "<|user|>"),
        (f"<|im_start|>user\nWhy?<|im_end|>\n{ANSWER}", "<|im_start|>"),
        (f"{ANSWER}<｜end▁of▁sentence｜>{ANSWER}", "<｜end▁of▁sentence｜>"),  # noqa: RUF001
        (f"<|channel|>final<|message|>{ANSWER}<|end|><|start|>user<|message|>Why?<|end|>", "<|start|>"),
    ],
)
def test_a_token_inside_is_a_defect_and_stays(text: str, token: str) -> None:
    answer = split_thinking(text).answer
    assert special_token(answer) == token
    assert answer.count(ANSWER) == text.count(ANSWER)


@pytest.mark.parametrize(
    ("text", "reasoning"),
    [
        ("a bell", "a bell"),
        ("<think>a bell</think>", "a bell"),
        ("a bell</think>", "a bell"),
        ("<|channel|>analysis<|message|>a bell<|end|>", "a bell"),
        ("a bell<|im_end|>", "a bell"),
    ],
)
def test_reported_reasoning_has_no_marks_either(text: str, reasoning: str) -> None:
    assert reported_reasoning(text) == reasoning
    assert read_rejected(Answer(ANSWER, reasoning=text)).reasoning == reasoning


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "<|im_end|>",
            "</s>",
            "<s>",
            "<think ",
            "<thought>",
            "x<thought>",
            "</thought>",
            "<|",
            "[",
            "[|a",
            "◁",
            "` <think>",
        ),
        *(
            "<|start|>",
            "<|channel|>final",
            "<|message|>",
            "<|end|>",
            "<|start|>user",
            "assistantfinal",
            "analysisThe ",
            "```",
        ),
        *(
            "Here is my thought process: ",
            "<a:",
            "<pad> ",
            " ",
            "\n",
            "Sure, here is the ",
            "I hope this helps! ",
            "\n\nEnjoy!",
            "Let's start over.\n",
            "\n\nI hope this helps!",
        ),
        *("Dear ", "---\n", "<think>\n---\n"),
    ],
)
def test_a_long_text_takes_no_longer_a_character_than_a_short_one(piece: str) -> None:
    # With anything but linear time this would outlast the test's time limit.
    text = f"{ANSWER}\n{piece * 30_000}"
    for cut in (True, False):
        assert len(split_thinking(text, cut=cut).answer) <= len(text)
    assert len(without_tokens(text)) <= len(text)
    assert special_token(text) in text
    assert chatter_of(text)[0] == ""
    assert sum(map(len, chatter_of(piece * 30_000))) <= len(text)
