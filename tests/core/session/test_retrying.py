"""Asking again for some of what failed: what is found to be missing, what is asked, what is left alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tasks.core.errors import UsageError
from tasks.core.generation.prompts import Subtopic, complete_prompts, jobs_of, write_prompts
from tasks.core.generation.run import PLAIN, Policy
from tasks.core.generation.subtopics import find_subtopics
from tasks.core.models import QUESTION_REFUSED as REFUSED
from tasks.core.models import Failure, Phase, Purpose
from tasks.core.session.record import SessionRecord
from tasks.core.session.resuming import Resumption
from tasks.core.session.retrying import plan_further, plan_retry, read_only
from tests.core.running import ChatServer, Reply, listed_failures, running, settled

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.core.session.retrying import Retry
    from tests.core.running import Answer, Chat, Script

REFUSAL = "I'm sorry, but I can't help with that. As an AI, I keep away from the sea and all that is in it."
FIRST, SECOND, LAST = "p0 of t0", "p1 of t0", "p1 of t1"
TRIES = "models__main__max_retries"
FURTHER = "further"
"""In place of failures that are named: a retry without any."""
JUDGED: dict[str, Any] = {"generation__dataset_mode": "mo-dpo"}


async def writing(chat: Chat) -> Answer:
    """Models with which nothing is wrong."""
    match chat.purpose:
        case Purpose.SUBTOPICS:
            return ["t0", "t1"]
        case Purpose.PROMPTS:
            return [f"p{number} of {chat.subject}" for number in range(2)]
        case Purpose.JUDGE:
            return json.dumps({"style": 4, "depth": 4})
        case _:
            return f"{chat.purpose} of {chat.subject}: the keeper lit the lamp, and all the ships came home."


def failing(what: dict[tuple[Purpose, str], int]) -> Script:
    """The same models, where calls of this purpose about this text are answered with this status."""

    async def script(chat: Chat) -> Answer:
        for (purpose, text), status in what.items():
            if chat.purpose is purpose and text in chat.text:
                return Reply(status=status)
        return await writing(chat)

    return script


def allowing(number: int) -> dict[str, Any]:
    """So many further tries are allowed."""
    return {TRIES: number}


def policy_of(retry: Retry) -> Policy:
    return Policy(further=retry.further, left_alone=retry.left_alone or {})


async def worked(
    folder: Path, server: ChatServer, *only: str, pairs: int = 4, **settings: Any
) -> tuple[list[tuple[Purpose, str]], list[tuple[str, str]]]:
    """Run the pipeline for some pairs; returns the calls that were made and the failures at its end."""
    asked = len(server.asked)
    async with running(folder, server.base_url, **settings) as run:
        session = Resumption(folder, SessionRecord("s", 0.0, {}), None, foreign=False)
        policy = PLAIN
        if only == (FURTHER,):
            policy = policy_of(await plan_further(session, run.config, run.ledger))
        elif named := read_only(only):
            policy = policy_of(await plan_retry(named, session, run.config, run.ledger))
    async with running(folder, server.base_url, policy=policy, **settings) as run:
        names = await find_subtopics(run)
        found = await write_prompts(run, [Subtopic(index, name) for index, name in enumerate(names)])
        jobs = jobs_of(run, (await complete_prompts(run, found)).found)

        outcomes = await settled(run, jobs[:pairs], lambda _job, _pair: None)
    calls = [(chat.purpose, chat.subject) for chat in server.asked[asked:]]
    return calls, sorted((item.item, item.cause) for outcome in outcomes for item in outcome.failures)


async def listed(folder: Path, server: ChatServer) -> list[tuple[str, str]]:
    async with running(folder, server.base_url) as run:
        return [(row["item"], row["cause"]) for row in await listed_failures(run)]


async def test_a_job_that_is_left_alone_is_asked_nothing_at_all(tmp_path: Path) -> None:
    """Four calls fail here that are on no list, because another of their jobs is."""
    first, last = f"of {FIRST}:", f"of {LAST}:"
    broken = {
        (Purpose.CHOSEN, SECOND): 400,
        (Purpose.REJECTED, SECOND): 400,
        (Purpose.JUDGE, first): 400,
        (Purpose.JUDGE, last): 500,
    }
    async with ChatServer(failing(broken)) as server:
        _, failures = await worked(tmp_path, server, **JUDGED)
        assert failures == [("job 0", REFUSED), ("job 1", REFUSED), ("job 3", "http_500")]
        server.script = writing
        calls, left = await worked(tmp_path, server, "cause=http_500", **JUDGED)
        assert [purpose for purpose, _ in calls] == [Purpose.JUDGE] * 2
        assert left == failures[:2]
        calls, left = await worked(tmp_path, server, "purpose=chosen", **JUDGED)
        assert sorted(purpose for purpose, _ in calls) == ["chosen", "judge", "judge", "rejected"]
        assert left == failures[:1]
        assert sorted(await listed(tmp_path, server)) == failures
        calls, left = await worked(tmp_path, server, "purpose=judge", f"cause={REFUSED}", **JUDGED)
        assert ([purpose for purpose, _ in calls], left) == ([Purpose.JUDGE] * 2, [])
        with pytest.raises(UsageError, match="no failure that is still missing"):
            await worked(tmp_path, server, f"cause={REFUSED}", **JUDGED)


async def test_a_failure_that_more_tries_have_mended_is_none(tmp_path: Path) -> None:
    """Both first answers were of no use; one of the second failed, and that is what there is."""

    async def refusing(chat: Chat) -> Answer:
        if chat.purpose is Purpose.CHOSEN and chat.subject in {FIRST, SECOND}:
            if not chat.sample:
                return REFUSAL
            if chat.subject == SECOND:
                return Reply(status=400)
        return await writing(chat)

    async with ChatServer(refusing) as server:
        _, failures = await worked(tmp_path, server, **allowing(0))
        assert failures == [("job 0", "refused"), ("job 1", "refused")]
        _, failures = await worked(tmp_path, server, **allowing(1))
        assert failures == [("job 1", REFUSED)]
        with pytest.raises(
            UsageError, match=r"no failure with cause=refused; there are: cause=question_refused \(1\)$"
        ):
            await worked(tmp_path, server, "cause=refused", **allowing(1))
        server.script = writing
        calls, left = await worked(tmp_path, server, f"cause={REFUSED}", **allowing(1))
        assert (calls, left) == ([(Purpose.CHOSEN, SECOND)], [])


def refusing(samples: int, *prompts: str) -> Script:
    """Models that refuse so many samples of the chosen answers to these prompts."""

    async def script(chat: Chat) -> Answer:
        refused = chat.purpose is Purpose.CHOSEN and chat.subject in prompts and chat.sample < samples
        return REFUSAL if refused else await writing(chat)

    return script


@pytest.mark.parametrize(("tries", "more"), [(0, 1), (2, 2)])
@pytest.mark.parametrize("only", [(FURTHER,), ("cause=refused",)])
async def test_further_samples_are_asked_for_where_every_allowed_try_is_spent(
    tmp_path: Path, tries: int, more: int, only: tuple[str, ...]
) -> None:
    """A resume asks for nothing; each retry for as many as are allowed, and what it brought stays."""
    settings: dict[str, Any] = {TRIES: tries}
    spent = [("job 0", "refused"), ("job 1", "refused")]
    async with ChatServer(refusing(tries + 1 + more + 1, FIRST, SECOND)) as server:
        _, failures = await worked(tmp_path, server, **settings)
        assert failures == spent
        assert await worked(tmp_path, server, **settings) == ([], spent)
        calls, failures = await worked(tmp_path, server, *only, **settings)
        assert sorted(calls) == sorted(
            (Purpose.CHOSEN, text) for text in (FIRST, SECOND) for _ in range(more)
        )
        assert failures == spent
        calls, failures = await worked(tmp_path, server, *only, **settings)
        # The first of these is refused too, and the second, if it is allowed, is not.
        assert len(calls) == 2 * min(2, more)
        assert failures == (spent if more == 1 else [])
        calls, failures = await worked(tmp_path, server, FURTHER, **settings)
        assert (len(calls), failures) == (2 if more == 1 else 0, [])
        # What came is found by whoever walks the session, with any number of tries.
        assert await worked(tmp_path, server, **allowing(0)) == ([], [])


async def test_only_those_that_are_named_are_asked_further(tmp_path: Path) -> None:
    async def script(chat: Chat) -> Answer:
        if chat.purpose is Purpose.CHOSEN and not chat.sample and chat.subject in {FIRST, LAST}:
            return REFUSAL if chat.subject == FIRST else "No."
        return await writing(chat)

    async with ChatServer(script) as server:
        _, failures = await worked(tmp_path, server, **allowing(0))
        assert failures == [("job 0", "refused"), ("job 3", "too_short")]
        calls, failures = await worked(tmp_path, server, "cause=too_short", **allowing(0))
        assert (calls, failures) == ([(Purpose.CHOSEN, LAST)], [("job 0", "refused")])


async def test_where_something_else_is_missing_a_retry_is_a_resume(tmp_path: Path) -> None:
    """Else what is replaced meanwhile would come twice."""
    async with ChatServer(refusing(1, FIRST)) as server:
        _, failures = await worked(tmp_path, server, pairs=2, **allowing(0))
        assert failures == [("job 0", "refused")]
        calls, failures = await worked(tmp_path, server, FURTHER, **allowing(0))
        assert {text for _, text in calls}.isdisjoint({FIRST, SECOND})
        assert failures == [("job 0", "refused")]
        calls, failures = await worked(tmp_path, server, FURTHER, **allowing(0))
        assert (calls, failures) == ([(Purpose.CHOSEN, FIRST)], [])


async def test_what_was_never_asked_is_no_failure(tmp_path: Path) -> None:
    async with ChatServer(failing({(Purpose.CHOSEN, FIRST): 400})) as server:
        _, failures = await worked(tmp_path, server, pairs=2)
        assert failures == [("job 0", REFUSED)]
        with pytest.raises(UsageError, match=r"never were asked for \(job 2 and 1 more\)"):
            await worked(tmp_path, server, f"cause={REFUSED}")


@pytest.mark.parametrize("word", ["timeout", "colour=red", "cause=", "=timeout", "CAUSE=timeout"])
def test_words_that_name_nothing_are_refused(word: str) -> None:
    with pytest.raises(UsageError, match="--only takes"):
        read_only(["cause=timeout", word])


def test_of_one_key_any_name_holds_and_of_several_keys_all() -> None:
    only = read_only(["cause=timeout", "phase=pairs", "cause=http_500"])
    assert only is not None
    named = [
        (phase, cause)
        for phase in (Phase.PROMPTS, Phase.PAIRS)
        for cause in ("timeout", "http_500", REFUSED)
        if only.names(Failure(phase, "it", Purpose.CHOSEN, cause, "no"))
    ]
    assert named == [(Phase.PAIRS, "timeout"), (Phase.PAIRS, "http_500")]
    assert read_only([]) is None
