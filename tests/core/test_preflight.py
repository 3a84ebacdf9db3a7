"""Models are checked before a run buys anything: what is asked, what is known already, what ends the run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from tasks.core.errors import BudgetError, EndpointError, ModelError, RunInterrupted
from tasks.core.generation.subtopics import find_subtopics
from tasks.core.ledger.sessions import SessionRow, count_calls, put_session, spent_by
from tasks.core.models import Purpose
from tasks.core.preflight import MOST_TRIES, checked_first, trials_of
from tasks.core.questions import kinds_of
from tasks.core.traffic.stop import Stop
from tests.core.running import NOBODY, TEMPLATES, ChatServer, Reply, configured, running

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.core.generation.run import Run
    from tests.core.running import Answer, Chat

SMALL_ANSWERS: dict[Purpose, Answer] = {
    Purpose.SUBTOPICS: '["red", "blue"]',
    Purpose.CHOSEN: "It is wide.",
    Purpose.REJECTED: "It is wet.",
    Purpose.JUDGE: '{"clarity": 4}',
}
JUDGED: dict[str, Any] = {"generation__dataset_mode": "mo-dpo"}


async def flawless(chat: Chat) -> Answer:
    return SMALL_ANSWERS[chat.purpose] if chat.small else named(chat)


def named(chat: Chat) -> list[str]:
    """As many subtopics as are asked for."""
    wanted = int(chat.text.split()[0])
    return [f"{chat.sample} {number}" for number in range(wanted)]


def with_small(**answers: Answer) -> Any:
    """A script that answers small questions of the named purposes otherwise."""

    async def script(chat: Chat) -> Answer:
        return answers.get(chat.purpose, await flawless(chat)) if chat.small else named(chat)

    return script


async def begun(folder: Path, url: str, *, stop: Stop | None = None, **settings: Any) -> Run:
    """Check the models, and find the subtopics."""
    async with running(folder, url, stop=stop, **settings) as run:
        async with checked_first(run):
            await find_subtopics(run)
        return run


def smalls(server: ChatServer) -> set[tuple[Purpose, str]]:
    return {(chat.purpose, chat.body["model"]) for chat in server.asked if chat.small}


def test_each_form_of_each_model_is_asked_once() -> None:
    def forms(**settings: Any) -> list[tuple[str, tuple[Purpose, ...], str]]:
        config = configured(**settings)
        trials = trials_of(config, kinds_of(config))
        return [(trial.model.model_name, trial.purposes, trial.shape) for trial in trials]

    lists, writes = (Purpose.SUBTOPICS, Purpose.PROMPTS), (Purpose.CHOSEN, Purpose.REJECTED)
    assert forms(**JUDGED) == [
        ("strong", lists, "items"),
        ("strong", writes[:1], ""),
        ("weak", writes[1:], ""),
        ("critic", (Purpose.JUDGE,), "scores"),
    ]
    one = {f"models__{role}__model_name": "one" for role in ("main", "rejected", "judge")}
    assert forms(**JUDGED, **one) == [
        ("one", lists, "items"),
        ("one", writes, ""),
        ("one", (Purpose.JUDGE,), "scores"),
    ]
    # What a server may refuse for one of them tells two forms apart; so does the key that is sent.
    for setting in ({"models__rejected__temperature": 0.1}, {"models__rejected__api_key_env": "OTHER"}):
        assert len(forms(**one, **setting)) == 3


def test_the_question_of_a_form_has_a_system_message_if_any_of_its_purposes_has_one() -> None:
    config = configured(prompt_templates=TEMPLATES | {"prompt_system_prompt": "Be brief."})
    assert [trial.kind.purpose for trial in trials_of(config, kinds_of(config))] == [
        Purpose.PROMPTS,
        Purpose.CHOSEN,
        Purpose.REJECTED,
    ]


async def test_models_are_asked_before_anything_is_bought_and_their_answers_are_kept(tmp_path: Path) -> None:
    async with ChatServer(flawless) as server:
        run = await begun(tmp_path, server.base_url, **JUDGED)
        assert [chat.small for chat in server.asked] == [True] * 4 + [False] * (len(server.asked) - 4)
        assert smalls(server) == {
            (Purpose.SUBTOPICS, "strong"),
            (Purpose.CHOSEN, "strong"),
            (Purpose.REJECTED, "weak"),
            (Purpose.JUDGE, "critic"),
        }
        assert run.budget.run.usage().calls == len(server.asked)

        # The same again, and a larger one, which buys: all models are known.
        asked = len(server.asked)
        await begun(tmp_path, server.base_url, **JUDGED)
        assert len(server.asked) == asked
        await begun(tmp_path, server.base_url, **JUDGED, generation__num_subtopics=5)
        assert len(server.asked) > asked
        assert not any(chat.small for chat in server.asked[asked:])


async def test_a_run_that_buys_nothing_asks_nothing(tmp_path: Path) -> None:
    async with ChatServer(flawless) as server:
        await begun(tmp_path, server.base_url, execution__preflight=False)
        assert not smalls(server)
        asked = len(server.asked)
        await begun(tmp_path, server.base_url)
        assert len(server.asked) == asked


@pytest.mark.parametrize(
    ("recorded", "then", "asked"),
    [
        ({}, {}, set()),
        # The same name at another address, and another name.
        ({"base_url": NOBODY}, {}, {"strong"}),
        ({}, {"models__main__model_name": "new"}, {"new"}),
    ],
)
async def test_what_the_ledger_knows_of_a_model_is_not_asked(
    tmp_path: Path, recorded: dict[str, str], then: dict[str, Any], asked: set[str]
) -> None:
    """A list came from the main model in an earlier session; nothing else is known."""
    async with ChatServer(flawless) as server:
        async with running(tmp_path, server.base_url) as run:
            settings = run.config.model_dump(mode="json")
            settings["models"]["main"] |= recorded
            rows = {
                "s": orjson.dumps({"created": 1.0, "settings": settings}).decode(),
                "torn": f'{{"settings": "{server.base_url}"',
                "strange": f'{{"settings": ["{server.base_url}"]}}',
            }
            for session, packed in rows.items():
                await put_session(run.ledger, SessionRow(session, session, "", packed))
            await find_subtopics(run)
        await begun(tmp_path, server.base_url, generation__num_subtopics=5, **then)
        found = smalls(server)
        assert {model for purpose, model in found if purpose is Purpose.SUBTOPICS} == asked
        assert {purpose for purpose, _ in found} >= {Purpose.CHOSEN, Purpose.REJECTED}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_a_judge_that_refuses_ends_the_run_before_the_first_subtopic(
    tmp_path: Path, status: int
) -> None:
    async with ChatServer(with_small(judge=Reply(status=status))) as server:
        with pytest.raises(ModelError) as raised:
            await begun(tmp_path, server.base_url, **JUDGED)
        assert raised.value.exit_code == 2
        said = str(raised.value)
        assert said.startswith(
            f"critic at {server.base_url} cannot be used for scores (judge): HTTP {status}"
        )
        assert said.count("critic") == 1
        assert "nothing but small questions was paid for" in said
        assert all(chat.small for chat in server.asked)


async def test_several_models_that_cannot_be_used_are_named_in_one_message(tmp_path: Path) -> None:
    together = asyncio.Event()

    async def script(chat: Chat) -> Answer:
        if chat.purpose in {Purpose.REJECTED, Purpose.JUDGE}:
            if server.in_flight(Purpose.REJECTED, Purpose.JUDGE) == 2:
                together.set()
            await together.wait()
            return Reply(status=401)
        return await flawless(chat)

    async with ChatServer(script) as server:
        with pytest.raises(ModelError) as raised:
            await begun(tmp_path, server.base_url, **JUDGED)
        first, second = str(raised.value).splitlines()
        assert first.startswith("weak at ")
        assert second.startswith("critic at ")


async def test_a_form_on_which_the_user_insists_and_that_is_refused_is_named(tmp_path: Path) -> None:
    async def script(chat: Chat) -> Answer:
        return Reply(status=400) if "response_format" in chat.body else await flawless(chat)

    refusing: dict[str, Any] = {"models__main__structured_output": "json_schema"}
    async with ChatServer(script) as server:
        with pytest.raises(ModelError, match=r"strong at .* for a list \(subtopics, prompts\)"):
            await begun(tmp_path, server.base_url, **refusing)


async def test_a_server_that_brings_no_answer_ends_the_run_as_it_does_later_on(tmp_path: Path) -> None:
    async with ChatServer(with_small(chosen=Reply(status=503), subtopics=Reply(status=503))) as server:
        with pytest.raises(EndpointError, match=r"strong at .* brought no answer in 3 attempts: HTTP 503"):
            await begun(tmp_path, server.base_url)
        assert all(chat.small for chat in server.asked)


async def test_what_passes_is_tried_again(tmp_path: Path) -> None:
    async def script(chat: Chat) -> Answer:
        if sum(other.purpose is chat.purpose for other in server.asked) == 1:
            return Reply(status=503)
        return await flawless(chat)

    async with ChatServer(script) as server:
        await begun(tmp_path, server.base_url)
        assert sum(chat.small for chat in server.asked) == 6


async def test_prose_in_place_of_a_list_is_no_reason_to_stop(tmp_path: Path) -> None:
    async with ChatServer(with_small(subtopics="Red, and others.", judge="I like it.")) as server:
        await begun(tmp_path, server.base_url, **JUDGED)
        assert sum(chat.small for chat in server.asked) == 4


@pytest.mark.parametrize(
    ("nothing", "said"),
    [
        (Reply(""), "the answer is empty"),
        (Reply("<think>Hm", finish_reason="length"), "raise max_output_tokens"),
        (Reply("", finish_reason="content_filter"), "the server withheld the answer"),
    ],
)
async def test_a_model_that_comes_to_no_answer_cannot_be_used(
    tmp_path: Path, nothing: Reply, said: str
) -> None:
    async with ChatServer(with_small(rejected=nothing)) as server:
        for _ in range(2):
            with pytest.raises(ModelError, match=said):
                await begun(tmp_path, server.base_url)
        # Kept answers of a run before say nothing of a model that may have been mended: others are asked for.
        assert sum(chat.purpose is Purpose.REJECTED for chat in server.asked) == 2 * MOST_TRIES
        assert all(chat.small for chat in server.asked)


async def test_a_model_that_was_mended_can_be_used(tmp_path: Path) -> None:
    async with ChatServer(with_small(rejected="")) as server:
        with pytest.raises(ModelError):
            await begun(tmp_path, server.base_url)
        server.script = flawless
        await begun(tmp_path, server.base_url)


async def test_an_answer_that_is_empty_once_is_asked_for_again(tmp_path: Path) -> None:
    async def script(chat: Chat) -> Answer:
        return "" if chat.small and chat.sample == 0 else await flawless(chat)

    async with ChatServer(script) as server:
        await begun(tmp_path, server.base_url)
        assert sum(chat.small for chat in server.asked) == 6


async def test_small_questions_count_for_the_budget(tmp_path: Path) -> None:
    async with ChatServer(flawless) as server:
        with pytest.raises(BudgetError):
            await begun(tmp_path, server.base_url, budget__max_calls=3)
        assert [chat.small for chat in server.asked] == [True] * 3
        async with running(tmp_path, server.base_url) as run:
            assert (await spent_by(run.ledger, "s")).usage().calls == 3 == await count_calls(run.ledger)


async def test_a_run_that_is_stopped_meanwhile_says_why(tmp_path: Path) -> None:
    stop = Stop()

    async def script(chat: Chat) -> Answer:
        stop.request(RunInterrupted(15))
        return await flawless(chat)

    async with ChatServer(script) as server:
        with pytest.raises(RunInterrupted):
            await begun(tmp_path, server.base_url, stop=stop)
        assert all(chat.small for chat in server.asked)


async def test_a_run_that_is_cancelled_meanwhile_leaves_no_question_behind(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def script(_chat: Chat) -> Answer:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async with ChatServer(script) as server:
        work = asyncio.create_task(begun(tmp_path, server.base_url))
        await asked.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
