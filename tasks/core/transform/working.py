"""What is asked for rows: a block of consecutive rows, as the pairs of jobs are asked for.

A call is a pure function of the row and the settings, and its answer is kept in the ledger: the same rows
again cost nothing, in whatever order their answers come.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tasks.core.answers import read_rejected, refusal_phrase
from tasks.core.errors import CallError, UnusableAnswerError
from tasks.core.judging import score_pair
from tasks.core.models import Failure, Job, Pair, Phase, Purpose
from tasks.core.run import all_of, failure_of
from tasks.core.transform.modes import KTO
from tasks.core.transform.rendering import Made, Rendering

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tasks.core.llm.types import Answer, ChatRequest
    from tasks.core.models import Text
    from tasks.core.run import Run
    from tasks.core.transform.modes import Mode
    from tasks.core.transform.rows import InputRow


@dataclass(frozen=True, slots=True)
class Transformed:
    """What became of a block of rows.

    Attributes:
        plain: The lines of its rows, in their order; those that failed have none.
        reasoning: The same with reasoning.
        rows: How many there are.
        failures: The rows that are not done, in their order.
    """

    plain: bytes
    reasoning: bytes
    rows: int
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class _Call:
    """One answer that a row lacks: how it is asked for and read, and the side that it is for."""

    side: str
    question: Callable[[int], ChatRequest]
    read: Callable[[Answer], Text]


class Transform:
    """The work of one mode. A plain class on purpose: Prefect walks through dataclasses."""

    def __init__(self, run: Run, mode: Mode) -> None:
        self.run = run
        self.mode = mode
        self._rendering = Rendering(run.config, mode)

    async def work(self, rows: Sequence[InputRow]) -> Transformed:
        """Get what some rows lack.

        Of all blocks together, `generation.concurrency` rows are asked at a time.

        Returns:
            Their lines and failures. A failed row does not stop the others.
        """
        run = self.run
        rows = [self._as_read(row) for row in rows]
        calls = [self._calls(row) for row in rows]
        first = [call.question(0) for wanted in calls for call in wanted]
        known = await run.client.recall(first)
        made = await all_of(self._make(row, wanted, known) for row, wanted in zip(rows, calls, strict=True))
        failures = tuple(item for item in made if isinstance(item, Failure))
        await run.list_failures(failures)
        lines = [
            self._rendering.lines(row, item)
            for row, item in zip(rows, made, strict=True)
            if isinstance(item, Made)
        ]
        run.progress.rows += len(lines)
        plain, reasoning = (b"".join(line[which] for line in lines) for which in (0, 1))
        return Transformed(plain, reasoning, len(lines), failures)

    def _as_read(self, row: InputRow) -> InputRow:
        """The row with its answers as the others are read: else both sides of a pair would differ in that."""
        if not self.run.reading.cut_chatter:
            return row
        chosen, rejected = (text and self.run.reading.given(text) for text in (row.chosen, row.rejected))
        return replace(row, chosen=chosen, rejected=rejected)

    def _calls(self, row: InputRow) -> list[_Call]:
        """The prose that a row lacks; what the judge says is asked for by `score_pair`."""
        questions, reading, job = self.run.questions, self.run.reading, self._job(row)
        match self.mode.purpose:
            case Purpose.REJECTED if row.kind != KTO or row.chosen is None:
                return [_Call("rejected", lambda sample: questions.rejected(job, sample), reading.rejected)]
            case Purpose.CHOSEN if row.kind != KTO or row.rejected is None:
                return [_Call("chosen", lambda sample: questions.chosen(job, sample), reading.chosen)]
            case Purpose.REASONING:
                both = self.run.config.generation.reasoning_capture_rejected
                sides = {"chosen": row.chosen, "rejected": row.rejected if both else None}
                return [
                    self._reasoning(side, job, text.content)
                    for side, text in sides.items()
                    if text is not None and not text.reasoning
                ]
            case _:
                return []

    def _reasoning(self, side: str, job: Job, answer: str) -> _Call:
        questions = self.run.questions
        return _Call(side, lambda sample: questions.reasoning(job, answer, sample), read_reasoning)

    def _job(self, row: InputRow) -> Job:
        main_topic, sub_topic = row.topics or ("", "")
        return Job(row.place, main_topic or self.run.config.generation.main_topic, sub_topic, row.prompt)

    async def _make(
        self, row: InputRow, calls: Sequence[_Call], known: Mapping[bytes, Answer | None]
    ) -> Made | Failure:
        run = self.run
        purpose = self.mode.purpose
        made = Made(row.chosen, row.rejected)
        try:
            if calls:
                async with run.generating:
                    found = await all_of(
                        run.ask_until_usable(call.question, call.read, known) for call in calls
                    )
                for call, text in zip(calls, found, strict=True):
                    made = self._with(made, call.side, text)
            if purpose is Purpose.JUDGE:
                made = await self._judged(row, made)
        except CallError as error:
            return failure_of(error, Phase.PAIRS, f"line {row.line}", purpose)
        finally:
            run.progress.done += 1
        return made

    def _with(self, made: Made, side: str, text: Text) -> Made:
        """What is there, with an answer or the reasoning of one."""
        if self.mode.purpose is not Purpose.REASONING:
            self.run.progress.truncated += text.truncated and side == "chosen"
            new: Text | None = text
        else:
            old = made.chosen if side == "chosen" else made.rejected
            new = None if old is None else replace(old, reasoning=text.content)
        return replace(made, chosen=new) if side == "chosen" else replace(made, rejected=new)

    async def _judged(self, row: InputRow, made: Made) -> Made:
        assert made.chosen is not None  # noqa: S101 - the mode takes pairs alone
        pair = await score_pair(self.run, Pair(self._job(row), made.chosen, made.rejected))
        assert pair.chosen_scores is not None  # noqa: S101 - both sides were scored
        assert pair.rejected_scores is not None  # noqa: S101 - the same
        return replace(made, scores=(pair.chosen_scores, pair.rejected_scores))


def read_reasoning(answer: Answer) -> Text:
    """The reasoning in an answer that is nothing else.

    Raises:
        UnusableAnswerError: `empty`, `refused`, `token_exhaustion`, or `incomplete` when it was cut off.
    """
    text = read_rejected(answer)
    if answer.refused:
        raise UnusableAnswerError("refused", f"the server reports a refusal ({answer.finish_reason})")
    if phrase := refusal_phrase(text.content):
        raise UnusableAnswerError("refused", f'the answer is a refusal ("{phrase}")')
    if text.truncated:
        raise UnusableAnswerError(
            "incomplete", "the reasoning stops at the token limit; raise max_output_tokens"
        )
    return text
