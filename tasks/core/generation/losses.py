"""Counts the jobs that yield no usable pair while a run pays for them: a run that brings nothing stops early.

What counts is what this run asked for, and what asking again would not change: an answer that every allowed
try brought and that cannot be used, a question that was refused, a pair that the user's own thresholds keep
out. A job whose answers all came from the ledger cost nothing and does not count, or a resume would stop at
the same place for ever. A call that failed and may come about later does not count either: that is for the
patience with an endpoint.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.core.errors import LossError
from tasks.core.printable import printable_line

if TYPE_CHECKING:
    from tasks.core.config.settings import Config
    from tasks.core.models import Purpose
    from tasks.core.traffic.stop import Stop

log = logging.getLogger("vellumforge.losses")

FIRST = 20
"""Finished jobs of this run before which nothing is made of what they came to."""

BEGUN = 22
"""Jobs that may be begun at once, however few are worked on at a time, before the judge has given scores."""

NEVER = 1.0
"""The value of `execution.stop_at_loss` with which a run is never stopped."""

EXCERPT = 300
"""Characters of an answer in a message."""

_ITEM, _MESSAGE = 60, 300

HELP = {
    "bad_scores": "another judge, structured_output for it, or a rubric that asks for JSON alone",
    "empty": "a higher max_output_tokens, or a model that answers and does not only think",
    "incomplete": "a higher max_output_tokens",
    "no_list": "a prompt template that asks for a JSON list alone, or structured_output",
    "question_refused": "another model or provider, or prompts that it takes",
    "refused": "another model or another wording of the template",
    "token_exhaustion": "a higher max_output_tokens",
    "too_short": "a template that asks for longer answers",
    "length_ratio": "a higher candidates.max_length_ratio, or templates that ask both sides for one length",
    "no_margin": "a lower candidates.min_margin, more candidates, models that differ more, or other judges",
    "no_agreement": "a lower judging.agree, or judges that are nearer to each other",
    "off_policy": "more candidates, or no candidates.on_policy",
    "same_answer": "more candidates, or a higher temperature",
    "filtered": "other thresholds in judge_filtering, or other models",
}
"""What helps against a cause, in words that end a sentence."""

_LINT = "lint_"


@dataclass(frozen=True, slots=True)
class Loss:
    """A job that yielded no usable pair.

    Attributes:
        item: What it was, e.g. `job 17`.
        purpose: The purpose of the call that failed.
        cause: The stable word.
        message: What was wrong, as text.
        answer: What the model answered; "" when no answer came.
    """

    item: str
    purpose: Purpose
    cause: str
    message: str
    answer: str = ""

    def example(self) -> str:
        """The loss as an example, on one line that may be shown anywhere."""
        told = f"{printable_line(self.item, _ITEM)}, {self.purpose}: {printable_line(self.message, _MESSAGE)}"
        return f"{told}; the model answered: {quoted(self.answer)}" if self.answer else told


def quoted(answer: str, most: int = EXCERPT) -> str:
    """The beginning of an answer in quotation marks, on one line that may be shown anywhere."""
    shown = printable_line(answer, most)
    cut = "…" if len(answer.strip()) > len(shown) >= most else ""
    return f'"{shown}{cut}"'


def what_helps(cause: str) -> str:
    """What helps against a cause; "" when nothing is known."""
    if cause.startswith(_LINT):
        return f"lint.drop without {cause.removeprefix(_LINT)}, or other models"
    return HELP.get(cause, "")


class Losses:
    """What the jobs of a run came to, as far as this run asked for them; stops it when they bring nothing.

    Attributes:
        examples: The first loss of each cause, wherever its answer came from.
    """

    def __init__(self, config: Config, stop: Stop) -> None:
        self.examples: dict[str, Loss] = {}
        self._share = config.execution.stop_at_loss
        self._stop = stop
        self._finished = 0
        self._causes: Counter[str] = Counter()
        self._sides: Counter[str] = Counter()
        self._doubts: dict[int, Loss] = {}

    def doubt(self, job: int, loss: Loss) -> None:
        """Note a job of which a server refused a question once: it counts as lost until it is worked on.

        Else the other half of every pair would be paid for before it is known that there is none.
        """
        self._doubts[job] = loss
        self._count(loss, failed=True)

    def work_on(self, job: int) -> None:
        """Note that a job is worked on, again if it was in doubt."""
        if (loss := self._doubts.pop(job, None)) is not None:
            self._finished -= 1
            self._causes[loss.cause] -= 1
            self._sides[loss.purpose] -= 1

    def keep(self, *, asked: bool) -> None:
        """Note a job with a pair; `asked`: whether this run asked a server for any of it."""
        self._finished += asked

    def lose(self, loss: Loss, *, asked: bool, failed: bool) -> None:
        """Note a job without a pair, and stop the run when too many of them have the same reason.

        Args:
            loss: The job.
            asked: Whether this run asked a server for any of it; else it is only an example.
            failed: Whether one half of it, or its scores, failed; else the whole pair was kept out.
        """
        first = self.examples.setdefault(loss.cause, loss) is loss
        if not asked:
            return
        if first:
            log.info("the first prompt that yielded no usable pair (%s): %s", loss.cause, loss.example())
        self._count(loss, failed=failed)

    def _count(self, loss: Loss, *, failed: bool) -> None:
        self._finished += 1
        self._causes[loss.cause] += 1
        self._sides[loss.purpose] += failed
        if self._finished < FIRST or self._share >= NEVER:
            return
        by_cause, by_side = self._causes[loss.cause], self._sides[loss.purpose]
        if max(by_cause, by_side) >= self._share * self._finished and not self._stop.requested:
            error = LossError(self._reason(loss, by_side if by_side > by_cause else 0))
            log.info("%s", error)
            self._stop.request(error)

    def _reason(self, loss: Loss, of_side: int) -> str:
        """Why the run stops.

        Args:
            loss: The job that was the last one.
            of_side: How many jobs failed at the same call, where the causes differ; else 0.
        """
        causes = Counter({loss.cause: self._causes[loss.cause]})
        if of_side:
            causes = self._causes
        words = ", ".join(f"{count:,} {cause}" for cause, count in causes.most_common())
        lost = of_side or causes.total()
        where = f" by the {loss.purpose} call" if of_side else ""
        first = f"{lost:,} of the first {self._finished:,} prompts yielded no usable pair{where}: {words}"
        lines = [f"the run stops, for it brings nothing: {first}", f"for example {loss.example()}"]
        if helps := what_helps(loss.cause):
            lines.append(f"what helps: {helps}")
        lines.append("to go on all the same: --set execution.stop_at_loss=1")
        return "; ".join(lines)


class Trial:
    """Holds jobs back from being begun until the judge has given scores once.

    Generating does not wait for the judge, so that one which cannot be read would be found out only when
    thousands of answers wait for it. Until then no more jobs are at work than can be at a time.

    Attributes:
        over: Whether jobs are begun as they come.
    """

    def __init__(self, config: Config, stop: Stop, *, judged: bool) -> None:
        self._places = config.generation.concurrency
        self.over = not judged or config.execution.stop_at_loss >= NEVER
        self._begun = self._ended = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._stop = stop
        if not self.over:
            stop.listen(self.end)

    async def begin(self) -> None:
        """Wait until a job may be begun."""
        while not (self.over or self._begun < max(BEGUN, self._ended + self._places)):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        self._stop.check()
        self._begun += 1

    def finish(self, *, judged: bool) -> None:
        """Note that a begun job has ended; `judged`: that it has scores which were asked for in this run."""
        self._ended += 1
        if judged:
            self.end()
        while self._waiting and not self.over:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                break

    def end(self) -> None:
        """Let all jobs be begun from now on."""
        self.over = True
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
