"""Whatever a server refuses, and whenever: the run stops in order or comes about; a resume finishes it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.core.errors import EndpointError, PhaseError, UsageError
from tasks.core.generation.prompts import complete_prompts, jobs_of, numbered, write_prompts
from tasks.core.generation.run import Policy, open_run
from tasks.core.generation.subtopics import find_subtopics
from tasks.core.generation.waves import make_exactly
from tasks.core.ledger.failures import failures_of
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import ledger_url
from tasks.core.models import QUESTION_REFUSED, Failure, Phase, Purpose
from tasks.core.progress import Progress
from tasks.core.secrets import Keys
from tasks.core.session.resuming import check_resumption, find_resumption, settled_refusals
from tasks.core.session.session import open_session
from tasks.core.summary import is_complete
from tasks.core.traffic.stop import Stop
from tests.core.running import ChatServer, Reply, configured, settled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.core.running import Answer, Chat

WANTED = 6
LIMITS: dict[str, Any] = {
    "generation__num_subtopics": 3,
    "generation__num_prompts_per_subtopic": 2,
    "generation__max_prompts_per_pair": 4.0,
    "generation__min_success_rate": 0.1,
    "generation__concurrency": 4,
    "models__main__max_retries": 1,
    "models__rejected__max_retries": 1,
    "execution__patience_minutes": 0.003,
}

ACCOUNTS = (
    (422, "Budget has been exceeded! Current cost: 5.01, max budget: 5.0"),
    (400, "API key expired. Please renew the API key."),
    (400, "ExceededBudget: crossed the spend limit of this key"),
    (403, "Your account has been suspended."),
    (403, "This organization has been disabled."),
    (429, "Budget has been exceeded for this user"),
    (402, "Payment Required"),
    (400, "You exceeded your current quota, please check your plan and billing details."),
    (500, "The API key has expired"),
    (503, "This account is deactivated"),
)
"""What concerns the endpoint, in whatever status it comes."""

CONTENTS = (
    (400, "The response was filtered: content management policy"),
    (403, "Your input was flagged by moderation"),
    (422, "The prompt violates our safety guidelines (safety system)"),
    (400, "This model's maximum context length is 4096 tokens"),
    (451, "unavailable for legal reasons"),
)


@dataclass
class Ended:
    """How a run ended: its rows, whether its session is complete, and what ended it before its last line."""

    rows: list[str]
    complete: bool
    error: Exception | None = None
    lost: Counter[str] = field(default_factory=Counter)


async def go(output: Path, url: str, name: str = "", **changes: Any) -> tuple[str, Ended]:
    """Run all phases in a session, a new one or this one; returns its name as well."""
    config = configured(url, output__folder=str(output), **(LIMITS | changes))
    progress, stop = Progress(), Stop()
    resumption = find_resumption(output / name) if name else None
    async with await Ledger.open(ledger_url(config)) as ledger:
        if resumption is not None:
            await check_resumption(resumption, config, ledger, accept_changes=False)
        with open_session(
            config, progress, text="", overridden={}, ledger=ledger.id, resumption=resumption
        ) as session:
            ended = Ended([], complete=False)
            left_alone = await settled_refusals(session.record, config, ledger)
            async with open_run(
                config,
                Keys({}, {}),
                session=session.record.id,
                ledger=ledger,
                stop=stop,
                progress=progress,
                policy=Policy(replaces=True, left_alone=left_alone),
            ) as run:
                try:
                    names = await find_subtopics(run)
                    found = await write_prompts(run, numbered(config, names))
                    await run.list_failures(entry.failure for entry in found if entry.failure)
                    candidates = await complete_prompts(run, found)
                    jobs = jobs_of(run, candidates.found)
                    made = await make_exactly(
                        run, candidates, jobs, lambda some: settled(run, some, session.keep), candidates.more
                    )
                    ended.complete = is_complete(run, made, taken_over=False)
                    ended.lost = Counter(made.lost)
                except (EndpointError, PhaseError) as error:
                    ended.error = error
                await session.finish(complete=ended.complete)
            ended.rows = (session.folder / "dataset.jsonl").read_text(encoding="utf-8").splitlines()
            return session.name, ended


class Refusing:
    """A script of flawless models, behind something that refuses requests.

    Attributes:
        refuse: What a request is refused with, by its number from 1 and its text; None lets it through.
        number: Requests so far, small ones for control among them.
        bought: How often each question was answered.
    """

    def __init__(self, refuse: Callable[[int, str], Reply | None]) -> None:
        self.refuse = refuse
        self.number = 0
        self.bought: Counter[tuple[str, str, int]] = Counter()

    async def __call__(self, chat: Chat) -> Answer:
        self.number += 1
        if (reply := self.refuse(self.number, f"{chat.purpose} {chat.text}")) is not None:
            return reply
        self.bought[chat.purpose, chat.text, chat.round << 16 | chat.sample] += 1
        match chat.purpose:
            case Purpose.SUBTOPICS:
                return [f"subtopic {chat.sample} {letter}" for letter in "abc"]
            case Purpose.PROMPTS:
                return [f"prompt {chat.round}{number} of {chat.subject}" for number in (1, 2)]
            case _:
                return f"{chat.purpose} of {chat.subject}: the keeper lit the lamp, and all ships came home."

    def control(self) -> Reply:
        """The answer to a small question: refused like any other."""
        self.number += 1
        return self.refuse(self.number, "control") or Reply('["red", "green"]')


class Server(ChatServer):
    """The server of such a script."""

    def __init__(self, refusing: Refusing) -> None:
        super().__init__(refusing)
        self.refusing = refusing

    def control(self) -> Reply:
        """The answer to a small question, which may be refused like any other."""
        return self.refusing.control()


async def finished(output: Path, refuse: Callable[[int, str], Reply | None]) -> tuple[Ended, Ended]:
    """A run behind this, and its resume once it is mended where it did not come about."""
    refusing = Refusing(refuse)
    async with Server(refusing) as server:
        name, first = await go(output, server.base_url)
        last = first
        if not first.complete:
            assert first.error is not None or len(first.rows) < WANTED
            refusing.refuse = lambda _number, _text: None
            _, last = await go(output, server.base_url, name)
        assert last.error is None
        assert last.complete
        assert len(last.rows) == len(set(last.rows)) == WANTED
        with pytest.raises(UsageError, match="is complete"):
            await go(output, server.base_url, name)
        assert set(refusing.bought.values()) == {1}
    return first, last


def after(first: int, last: int, reply: Reply) -> Callable[[int, str], Reply | None]:
    """Refuse the requests from one number to another."""
    return lambda number, _text: reply if first <= number <= last else None


FOR_GOOD = 10**9
REQUESTS = 1 + 3 + 2 * WANTED


@pytest.mark.parametrize("first", [1, 9, REQUESTS])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 418, 422, 451, 499])
async def test_whatever_a_server_refuses_for_good_once_mended_a_resume_brings_all_rows(
    tmp_path: Path, status: int, first: int
) -> None:
    ended, _ = await finished(tmp_path, after(first, FOR_GOOD, Reply(status=status)))
    assert ended.error is not None
    assert f"scripted {status}" in str(ended.error)
    # Nothing is taken for refused for good.
    assert not ended.lost


@pytest.mark.parametrize(("status", "words"), ACCOUNTS)
@pytest.mark.parametrize("first", [1, 9, REQUESTS])
async def test_budgets_and_keys_are_the_endpoints_in_whatever_status(
    tmp_path: Path, status: int, words: str, first: int
) -> None:
    ended, _ = await finished(tmp_path, after(first, FOR_GOOD, Reply(words, status=status)))
    assert isinstance(ended.error, EndpointError)
    assert words in str(ended.error)


@pytest.mark.parametrize(("status", "words"), CONTENTS)
@pytest.mark.parametrize("first", [5, 9, REQUESTS])
async def test_also_who_refuses_everything_for_its_content_is_of_no_use(
    tmp_path: Path, status: int, words: str, first: int
) -> None:
    ended, _ = await finished(tmp_path, after(first, FOR_GOOD, Reply(words, status=status)))
    assert isinstance(ended.error, EndpointError)
    assert words in str(ended.error)


@pytest.mark.parametrize("words", ["", "flagged by our content policy"])
async def test_a_question_that_alone_is_refused_is_replaced(tmp_path: Path, words: str) -> None:
    def refuse(_number: int, text: str) -> Reply | None:
        return Reply(words, status=400) if text.startswith("rejected prompt 02") else None

    first, last = await finished(tmp_path, refuse)
    assert first is last
    assert first.lost == {QUESTION_REFUSED: 3}


@pytest.mark.parametrize(
    "words",
    [
        "flagged by our usage policies. Violations may result in your account being suspended.",
        "content policy: 'the bank says that this account is blocked and closed'",
    ],
)
async def test_what_is_moderated_is_no_accounts_matter(tmp_path: Path, words: str) -> None:
    def refuse(_number: int, text: str) -> Reply | None:
        return Reply(words, status=400) if text.startswith("chosen prompt 02 of subtopic 0 a") else None

    first, last = await finished(tmp_path, refuse)
    assert first is last


async def test_what_is_refused_once_and_fails_otherwise_then_is_not_asked_for_ever(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()

    def refuse(_number: int, text: str) -> Reply | None:
        if not text.startswith("prompts 2 of subtopic 0 b"):
            return None
        seen[text] += 1
        return Reply(status=400 if seen[text] == 1 else 500)

    first, _ = await finished(tmp_path, refuse)
    assert first.lost == {}


async def test_a_question_of_which_nothing_else_is_left_is_told_from_an_endpoint_by_a_small_one(
    tmp_path: Path,
) -> None:
    """A run is cut off with the refused question left, so that no other is asked beside it."""

    def refuse(_number: int, text: str) -> Reply | None:
        return Reply(status=400) if "prompt 02 of subtopic 0 a" in text and "rejected" in text else None

    gone = after(16, FOR_GOOD, Reply(status=401))
    refusing = Refusing(lambda number, text: refuse(number, text) or gone(number, text))
    async with Server(refusing) as server:
        name, first = await go(tmp_path, server.base_url, generation__concurrency=1)
        assert isinstance(first.error, EndpointError)
        refusing.refuse = refuse
        _, last = await go(tmp_path, server.base_url, name, generation__concurrency=1)
    assert (last.complete, len(last.rows), last.lost) == (True, WANTED, {QUESTION_REFUSED: 1})


@pytest.mark.parametrize("listed", [400, 422])
async def test_what_an_older_version_took_for_refused_for_good_is_asked_once_more(
    tmp_path: Path, listed: int
) -> None:
    """Its list of failures has them by their status, its record says that the session is complete."""
    refusing = Refusing(after(9, FOR_GOOD, Reply(status=listed)))
    async with Server(refusing) as server:
        name, first = await go(tmp_path, server.base_url)
        assert not first.complete
        config = configured(server.base_url, output__folder=str(tmp_path), **LIMITS)
        record = tmp_path / name / "session.json"
        document = json.loads(record.read_text(encoding="utf-8"))
        record.write_text(json.dumps(document | {"complete": True}), encoding="utf-8")
        async with await Ledger.open(ledger_url(config)) as ledger:
            await _list_as_before(ledger, document["id"], listed)
            assert await failures_of(ledger, document["id"]) == {f"http_{listed}": 2 * WANTED}
        refusing.refuse = lambda _number, _text: None
        _, last = await go(tmp_path, server.base_url, name)
    assert (last.complete, len(last.rows)) == (True, WANTED)
    assert set(refusing.bought.values()) == {1}


async def _list_as_before(ledger: Ledger, session: str, status: int) -> None:
    cause = f"http_{status}"
    await ledger.add_failures(
        session,
        [
            Failure(Phase.PAIRS, f"job {number}", Purpose.CHOSEN, cause, "no", status, 1, f"{number:064x}")
            for number in range(2 * WANTED)
        ],
    )


STATUSES = [status for status in range(400, 500) if status not in {408, 409, 425, 429, 498}]
WINDOWS = st.tuples(
    st.integers(1, REQUESTS + 6),
    st.one_of(st.integers(0, 12), st.just(FOR_GOOD)),
    st.one_of(
        st.sampled_from([(status, "") for status in STATUSES]),
        st.sampled_from(ACCOUNTS + CONTENTS),
        st.sampled_from([(500, ""), (503, ""), (429, "")]),
    ),
)
"""The number of the first request that is refused, how many more are, and with what."""


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(windows=st.lists(WINDOWS, min_size=1, max_size=3), control=st.booleans())
def test_whatever_it_refuses_whenever_a_resume_ends_with_all_rows(
    tmp_path_factory: pytest.TempPathFactory,
    windows: list[tuple[int, int, tuple[int, str]]],
    control: bool,  # noqa: FBT001 - Hypothesis names it
) -> None:
    def refuse(number: int, text: str) -> Reply | None:
        if text == "control" and control:
            return None
        for start, length, (status, words) in windows:
            if start <= number <= start + length:
                return Reply(words, status=status)
        return None

    asyncio.run(finished(tmp_path_factory.mktemp("any"), refuse))
