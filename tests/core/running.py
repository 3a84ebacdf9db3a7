"""Runs for tests: a real `Run` over a ledger in a temporary folder, against a chat server with a script.

The script is an async function from a chat request to its answer; it sees the request's purpose, text and
sample, which decide every answer. A request that it has no answer for (None) fails the test on leaving
the server.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from sqlalchemy import select

from tasks.core.chat.negotiation import Learned
from tasks.core.config.settings import Config
from tasks.core.demo.http import RequestParser
from tasks.core.exchange.request import ChatRequest
from tasks.core.generation.pairs import make_pairs, settle
from tasks.core.generation.prompts import SAMPLES_A_ROUND
from tasks.core.generation.run import PLAIN, open_run
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import connect, failures, ledger_url
from tasks.core.models import CallKind, Job, Purpose
from tasks.core.progress import Progress
from tasks.core.questions import Questions
from tasks.core.secrets import Keys
from tasks.core.traffic.stop import Stop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from tasks.core.generation.pairs import PairsOutcome
    from tasks.core.generation.run import Policy, Run
    from tasks.core.models import Pair

PATIENCE = 60
"""Seconds after which something that is waited for is taken to have failed to come."""

NOBODY = "http://127.0.0.1:9/v1"
"""An address where nobody listens, for tests that make no call."""

# Each begins with the purpose, by which the server knows what it is asked for.
TEMPLATES = {
    "subtopic_generation": "subtopics {{.NumSubtopics}}{{if .IsRetry}} but {{.ExcludeSubtopics}}{{end}}",
    "prompt_generation": "prompts {{.NumPrompts}} of {{.SubTopic}}",
    "chosen_generation": "chosen {{.Prompt}}",
    "rejected_generation": "rejected {{.Prompt}}",
    "judge_rubric": "judge {{.StoryText}}",
}
JUDGES = {
    "judge_comparison": "comparison {{.AnswerA}} | {{.AnswerB}}",
    "judge_checklist": "checklist {{.Prompt}}",
    "judge_checks": "checks {{.StoryText}}\n{{.Checklist}}",
}
"""Templates of the other ways to judge."""
_SCHEMAS = {
    Purpose.SUBTOPICS: "items",
    Purpose.PROMPTS: "items",
    Purpose.JUDGE: "scores",
    Purpose.COMPARISON: "comparison",
    Purpose.CHECKLIST: "items",
    Purpose.CHECKS: "checks",
}
_SAMPLES = [round_number * SAMPLES_A_ROUND + sample for round_number in range(6) for sample in range(40)]


def configured(url: str = NOBODY, **settings: Any) -> Config:
    """A valid configuration with short templates and no pauses.

    Args:
        url: Base URL of all three models.
        settings: By dotted key with `__` for the dots, e.g. `generation__num_subtopics=4`.
    """
    model = {"base_url": url, "rate_limit_per_minute": 0, "max_backoff_seconds": 0.0, "max_retries": 2}
    document: dict[str, Any] = {
        "generation": {
            "main_topic": "The sea",
            "num_subtopics": 2,
            "num_prompts_per_subtopic": 2,
            "over_generation_buffer": 0.0,
            "max_prompts_per_pair": 1.0,
            "similarity_threshold": 1.0,
            "dataset_mode": "dpo",
        },
        "models": {
            "main": model | {"model_name": "strong"},
            "rejected": model | {"model_name": "weak"},
            "judge": model | {"model_name": "critic", "enabled": True},
        },
        "prompt_templates": dict(TEMPLATES),
    }
    for key, value in settings.items():
        *sections, name = key.split("__")
        table = document
        for section in sections:
            table = table.setdefault(section, {})
        table[name] = value
    return Config.model_validate(document)


def kind(purpose: Purpose) -> CallKind:
    """The kind of call with which a plain configuration asks for this."""
    sections = dict.fromkeys((Purpose.JUDGE, Purpose.COMPARISON, Purpose.CHECKLIST, Purpose.CHECKS), "judge")
    return CallKind(purpose, (sections | {Purpose.REJECTED: "rejected"}).get(purpose, "main"))


_QUESTIONS = Questions(configured())
_SMALL: dict[str, list[Purpose]] = {}
"""The texts of small questions, and what they may be asked for."""
for _purpose in Purpose:
    _SMALL.setdefault(_QUESTIONS.small(kind(_purpose), 0).messages[-1][1], []).append(_purpose)


@asynccontextmanager
async def running(
    folder: Path,
    url: str,
    *,
    stop: Stop | None = None,
    learned: Learned | None = None,
    policy: Policy = PLAIN,
    **settings: Any,
) -> AsyncIterator[Run]:
    """A run over the ledger in `folder`, which the first one makes and the next ones find.

    Nobody waits for a first answer unless `learned` says so: these scripts wait for several requests at once.
    """
    config = configured(url, output__folder=str(folder), **settings)
    async with (
        await Ledger.open(ledger_url(config)) as ledger,
        open_run(
            config,
            Keys({}, {}),
            session="s",
            ledger=ledger,
            stop=stop or Stop(),
            progress=Progress(),
            policy=policy,
            learned=learned or Learned(alone=0.0),
        ) as run,
    ):
        yield run


async def listed_failures(run: Run) -> list[dict[str, Any]]:
    """The ledger's list of failures, in the order in which they were listed."""
    engine = connect(ledger_url(run.config))
    try:
        async with engine.connect() as connection:
            rows = await connection.execute(select(failures).order_by(failures.c.id))
            return [dict(row) for row in rows.mappings()]
    finally:
        await engine.dispose()


async def settled(
    run: Run, jobs: Sequence[Job], keep: Callable[[Job, Pair | None], None]
) -> list[PairsOutcome]:
    """What becomes of some jobs, worked on once, and those that a server refuses once more."""

    async def make(some: Sequence[Job]) -> list[PairsOutcome]:
        return [await make_pairs(run, some, keep)]

    return await settle(jobs, make)


def some_jobs(number: int) -> list[Job]:
    """Jobs 0, 1, …, whose prompts are `p0`, `p1` and so on."""
    return [Job(place, "The sea", "Tides", f"p{place}") for place in range(number)]


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat request as the server sees it.

    Attributes:
        purpose: The first word of the user message.
        text: The rest of it.
        round: Of prompts: 0, or the number of the round that asks for what is short.
        sample: The try within the round; of subtopics: the number of the chunk.
        body: The whole JSON body.
        small: Whether it is a small question, by which a model is checked; then it has no text.
    """

    purpose: Purpose
    text: str
    round: int
    sample: int
    body: dict[str, Any] = field(hash=False)
    small: bool = False

    @property
    def subject(self) -> str:
        """Of prompts: the subtopic. Of a judge: the text to be scored. Else the whole text."""
        first = self.text.partition("\n")[0]
        return first.partition(" of ")[2] if self.purpose is Purpose.PROMPTS else first


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the server; `status` other than 200 makes it an error, whose words are the content."""

    content: str = ""
    finish_reason: str | None = "stop"
    reasoning: str | None = None
    status: int = 200

    def render(self) -> bytes:
        """The whole HTTP response."""
        message = {"role": "assistant", "content": self.content, "reasoning_content": self.reasoning}
        choice = {"message": message, "finish_reason": self.finish_reason}
        document: dict[str, Any] = {
            "choices": [choice],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3},
        }
        if self.status != 200:
            document = {"error": {"message": self.content or f"scripted {self.status}"}}
        content = json.dumps(document).encode()
        return f"HTTP/1.1 {self.status} -\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


Answer: TypeAlias = "Reply | str | list[str] | None"
Script: TypeAlias = "Callable[[Chat], Awaitable[Answer]]"


class ChatServer:
    """A chat server that answers by a script; an async context manager.

    Attributes:
        script: May be replaced between two runs.
        asked: The requests in the order of arrival.
        answered: How many were answered so far.
        most_prose: The most requests for chosen and rejected answers that were in flight at once.
        controls: How many small questions for control were asked; they are no business of the script.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[Chat] = []
        self.answered = 0
        self.most_prose = 0
        self.controls = 0
        self._in_flight: dict[Purpose, int] = dict.fromkeys(Purpose, 0)
        self._moved = asyncio.Condition()
        self._errors: list[Exception] = []
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.base_url = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        if self._errors:
            raise self._errors[0]

    def control(self) -> Reply:
        """The answer to a small question."""
        return Reply('["red", "green", "blue"]')

    def count(self, *purposes: Purpose) -> int:
        """How many requests of these purposes have arrived."""
        return sum(1 for chat in self.asked if chat.purpose in purposes)

    def in_flight(self, *purposes: Purpose) -> int:
        """How many requests of these purposes are being answered."""
        return sum(self._in_flight[purpose] for purpose in purposes)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds of this server; it is looked at after every arrival and answer."""
        async with asyncio.timeout(PATIENCE), self._moved:
            await self._moved.wait_for(condition)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        parser = RequestParser()
        try:
            with suppress(ConnectionError, asyncio.CancelledError):
                while data := await reader.read(1 << 16):
                    parser.feed(data)
                    while request := parser.next_request():
                        reply = await self._answer(request.body, request.headers["idempotency-key"])
                        writer.write(reply.render())
                        await writer.drain()
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, body: bytes, key: str) -> Reply:
        try:
            chat = self._read(json.loads(body), key)
            if chat is None:
                self.controls += 1
                return self.control()
            self.asked.append(chat)
            await self._move(chat.purpose, 1)
            try:
                answer = await self.script(chat)
            finally:
                self.answered += 1
                await self._move(chat.purpose, -1)
            assert answer is not None, f"the script has no answer to {chat}"
        except Exception as error:  # noqa: BLE001 - it is raised by the server's end, in the test itself
            self._errors.append(error)
            return Reply(status=400)
        if isinstance(answer, list):
            answer = json.dumps(answer)
        return Reply(answer) if isinstance(answer, str) else answer

    async def _move(self, purpose: Purpose, step: int) -> None:
        self._in_flight[purpose] += step
        self.most_prose = max(self.most_prose, self.in_flight(Purpose.CHOSEN, Purpose.REJECTED))
        async with self._moved:
            self._moved.notify_all()

    def _read(self, body: dict[str, Any], key: str) -> Chat | None:
        """Read a request, and find the sample whose key came with it; None for a small one for control.

        That there is one shows that the key is made of what is sent, of purpose and of sample alone.
        """
        messages = tuple((message["role"], message["content"]) for message in body["messages"])
        small = next((known for known in _SMALL if messages[-1][1].startswith(known)), "")
        if small:  # Without the hint that it may have been sent with.
            purposes, text, messages = _SMALL[small], "", (*messages[:-1], ("user", small))
        else:
            word, _, text = messages[-1][1].partition(" ")
            purposes = [Purpose(word.lower())]
        negotiated = {"model", "messages", "response_format"}
        # What changes nothing is not sent, and yet decides the key.
        parameters = {"top_p": 1.0} | {name: body[name] for name in body if name not in negotiated}
        for purpose, sample in itertools.product(purposes, _SAMPLES):
            request = ChatRequest(
                purpose=purpose,
                endpoint=self.base_url,
                model=body["model"],
                messages=messages,
                parameters=parameters,
                schema=_SCHEMAS.get(purpose, ""),
                sample=sample,
            )
            if request.key.hex() == key:
                return Chat(purpose, text, *divmod(sample, SAMPLES_A_ROUND), body, bool(small))
        if small:  # For control a sample is drawn among very many.
            return None
        raise AssertionError(f"no sample of {body} has the key {key}")
