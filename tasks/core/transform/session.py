"""The session of a transform: its rows as they come, in order, what was skipped, and what is asked for them.

A call is a pure function of the row and the settings, and its answer is kept in the ledger: the same rows
again cost nothing, in whatever order their answers come.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

import orjson

from tasks.core import files
from tasks.core.answers.usable import read_rejected, refusal_phrase
from tasks.core.errors import CallError, SessionError, UnusableAnswerError, UsageError
from tasks.core.generation.judging import score_pair
from tasks.core.generation.run import all_of, failure_of
from tasks.core.models import Failure, Job, Pair, Phase, Purpose
from tasks.core.rows.transformed import KTO, MadeRow, Rendering
from tasks.core.session.dataset import DATASET, REASONING, journal
from tasks.core.session.folder import create_folder, locked
from tasks.core.session.ledger import UsedCalls
from tasks.core.session.record import SessionRecord, write_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tasks.core.config.settings import Config
    from tasks.core.exchange.request import Answer, ChatRequest
    from tasks.core.generation.run import Run
    from tasks.core.models import Text
    from tasks.core.rows.samples import BadLine
    from tasks.core.rows.transformed import InputRow, Mode


SKIPPED = "skipped.jsonl"


class TransformSession:
    """One folder that is being written. Rows come in their order, so that none of them is held.

    Attributes:
        folder: The folder.
        record: What is recorded of it.
        skipped: Lines that were left out.
    """

    def __init__(self, folder: Path, record: SessionRecord) -> None:
        self.folder = folder
        self.record = record
        self.skipped = 0
        self._began = time.monotonic()
        self._used = UsedCalls(folder)
        self._open: dict[str, IO[bytes]] = {}

    def note(self, key: bytes) -> None:
        """Note a call that it uses: whoever prunes the ledger does not know the input."""
        self._used.note(key)

    def add(self, done: Transformed) -> None:
        """Append the rows of the next block.

        Raises:
            SessionError: They cannot be written.
        """
        self._write(DATASET, done.plain)
        self._write(REASONING, done.reasoning)

    def skip(self, line: BadLine) -> None:
        """Note a line that is left out.

        Raises:
            SessionError: It cannot be written.
        """
        self.skipped += 1
        entry = {"line": line.line, "reason": line.reason}
        self._write(SKIPPED, orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))

    async def finish(self, *, complete: bool) -> None:
        """Make what there is durable, and record whether it is all.

        Raises:
            SessionError: The disk is full, or the folder cannot be written to.
        """
        await asyncio.to_thread(self._sync)
        seconds = time.monotonic() - self._began
        self.record = replace(self.record, complete=complete, seconds=seconds)
        await asyncio.to_thread(write_record, self.folder, self.record)

    async def hand_out(self, name: str, path: Path) -> None:
        """Put a copy of one of the files in its place, in one step.

        Raises:
            SessionError: It cannot be written there; the file in the folder is whole.
        """
        try:
            await asyncio.to_thread(self._copy, name, path)
        except OSError as error:
            raise SessionError(
                f"{path} cannot be written: {error.strerror}; the rows are in {self.folder / name}"
            ) from error

    def first_row(self) -> str:
        """The first row, without its newline; "" when there is none."""
        with (self.folder / DATASET).open(encoding="utf-8") as file:
            return file.readline().rstrip("\n")

    def close(self) -> None:
        """Close the files as they are."""
        self._used.close()
        for file in self._open.values():
            with suppress(OSError):
                file.close()

    def _write(self, name: str, content: bytes) -> None:
        try:
            if name not in self._open:
                self._open[name] = (self.folder / name).open("wb")
            self._open[name].write(content)
            self._open[name].flush()
        except OSError as error:
            raise SessionError(
                f"{self.folder / name} cannot be written: {error.strerror}; every answer is in the ledger, "
                "so run again when there is room and nothing is paid for twice"
            ) from error

    def _sync(self) -> None:
        try:
            for file in self._open.values():
                os.fsync(file.fileno())
        except OSError as error:
            raise SessionError(f"{self.folder} cannot be written: {error.strerror}") from error

    def _copy(self, name: str, path: Path) -> None:
        with (self.folder / name).open("rb") as rows, files.replaced(path) as copy:
            shutil.copyfileobj(rows, copy, 1 << 20)


@contextmanager
def open_transform(config: Config, *, command: str, ledger: str, flow_run: str) -> Iterator[TransformSession]:
    """A new session folder for a transform, locked, with its log and its record.

    Args:
        config: The configuration.
        command: The command that goes on with it.
        ledger: Id of the ledger.
        flow_run: Id of the Prefect flow run, "" when there is none.

    Raises:
        SessionError: The folder cannot be made or written.
    """
    settings = config.model_dump(mode="json", exclude_unset=True)
    record = SessionRecord(
        str(uuid.uuid4()), time.time(), settings, ledger, flow_run=flow_run, transform=command
    )
    folder = create_folder(
        Path(config.output.folder), datetime.now().astimezone(), partial(write_record, record=record)
    )
    with locked(folder), journal(folder / "session.log"):
        session = TransformSession(folder, record)
        try:
            yield session
        finally:
            session.close()


def check_outputs(outputs: list[Path], inputs: list[Path]) -> None:
    """Make sure that the outputs can be written and are none of the inputs.

    Raises:
        UsageError: They cannot, or are.
    """
    taken = {path.resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in taken:
            raise UsageError(f"{path} is given twice; every input and output is a file of its own")
        taken.add(path.resolve())
        files.check_file(path)


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
            if isinstance(item, MadeRow)
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
    ) -> MadeRow | Failure:
        run = self.run
        purpose = self.mode.purpose
        made = MadeRow(row.chosen, row.rejected)
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

    def _with(self, made: MadeRow, side: str, text: Text) -> MadeRow:
        """What is there, with an answer or the reasoning of one."""
        if self.mode.purpose is not Purpose.REASONING:
            self.run.progress.truncated += text.truncated and side == "chosen"
            new: Text | None = text
        else:
            old = made.chosen if side == "chosen" else made.rejected
            new = None if old is None else replace(old, reasoning=text.content)
        return replace(made, chosen=new) if side == "chosen" else replace(made, rejected=new)

    async def _judged(self, row: InputRow, made: MadeRow) -> MadeRow:
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
