"""Several judges, comparisons in two orders, and checklists: what is asked and chosen, and what it takes."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from fractions import Fraction
from hashlib import sha256
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.config import rules
from tasks.core.config.load import load_config
from tasks.core.config.settings import Config, default_of, further_models
from tasks.core.config.templates import JUDGE_COMPARISON
from tasks.core.errors import ConfigError, EndpointError
from tasks.core.forecast.estimate import estimate
from tasks.core.forecast.survey import survey
from tasks.core.generation.judging import NO_AGREEMENT, judgements_of, mean_of
from tasks.core.generation.run import Policy
from tasks.core.keys import Effect, effects_in
from tasks.core.models import GivenJob, Purpose, Score, Scores
from tasks.core.questions import Questions, kinds_of
from tasks.core.rows.formats import rows_of
from tests.core.running import (
    JUDGES,
    NOBODY,
    TEMPLATES,
    ChatServer,
    Reply,
    configured,
    running,
    settled,
    some_jobs,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tasks.core.generation.run import Run
    from tasks.core.models import Job, Pair
    from tests.core.running import Answer, Chat, Script

MODEL = {"base_url": NOBODY, "model_name": "m", "rate_limit_per_minute": 0}
TOPIC = {"main_topic": "The sea", "num_subtopics": 2, "num_prompts_per_subtopic": 2, "dataset_mode": "mo-dpo"}
NAMES = ["critic", "judge_2", "judge_3"]
PANEL = ["judge", "judge_2", "judge_3"]


def panel(count: int = 3, *, mode: str = "dpo", **settings: Any) -> dict[str, Any]:
    """Settings with so many judges of different models; `judging` is given as it stands."""
    further = {f"models__{name}": MODEL | {"model_name": name, "max_retries": 0} for name in PANEL[1:count]}
    judging = {"models": PANEL[:count]} | settings.pop("judging", {})
    return {
        "generation__dataset_mode": mode,
        "judging": judging,
        "prompt_templates": TEMPLATES | JUDGES,
        **further,
        **settings,
    }


def at(url: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with all judges at one server."""
    return {
        key: value | {"base_url": url} if isinstance(value, dict) and key.startswith("models__") else value
        for key, value in settings.items()
    }


def prose(chat: Chat) -> str:
    return f"{chat.purpose} {chat.text} ".ljust(60, "x") + "."


def drawn(*words: object) -> float:
    """A number from 0 to 1 that is always the same for these words."""
    return int.from_bytes(sha256(repr(words).encode()).digest()[:6], "big") / 2**48


def script(judged: Callable[[Chat], Answer]) -> Script:
    async def answer(chat: Chat) -> Answer:
        if chat.purpose in {Purpose.CHOSEN, Purpose.REJECTED}:
            return prose(chat)
        return judged(chat)

    return answer


async def made(run: Run, jobs: list[Job]) -> tuple[dict[int, Pair | None], dict[int, str]]:
    found: dict[int, Pair | None] = {}
    outcomes = await settled(run, jobs, lambda job, pair: found.update({job.id: pair}))
    assert [failure for outcome in outcomes for failure in outcome.failures] == []
    return found, {number: cause for outcome in outcomes for number, cause in outcome.lost.items()}


def nothing(_job: Job, _pair: Pair | None) -> None:
    """Keep none."""


# A panel


def score(chat: Chat) -> int:
    """Two judges that see what is there, and one that throws dice."""
    if chat.body["model"] == "judge_3":
        return 1 + int(5 * drawn("dice", chat.subject))
    side = 4 if chat.subject.startswith("chosen") else 2
    return side - (drawn(chat.body["model"], chat.subject) < 0.3)


async def test_a_panel_agrees_as_counted_by_hand(tmp_path: Path) -> None:
    jobs = some_jobs(60)
    settings = panel(judging={"agree": 2}, mode="mo-dpo")

    def judged(chat: Chat) -> Answer:
        return json.dumps({"depth": {"score": score(chat), "reasoning": "so"}})

    async with ChatServer(script(judged)) as server:
        async with running(tmp_path, server.base_url, **at(server.base_url, settings)) as run:
            found, lost = await made(run, jobs)
            assert server.count(Purpose.JUDGE) == 2 * 3 * len(jobs)
            opinions, config = run.progress.opinions, run.config
        said = {
            (chat.body["model"], chat.subject): score(chat)
            for chat in server.asked
            if chat.purpose is Purpose.JUDGE
        }
        agreed = 0
        for job in jobs:
            sides = [
                [value for (_, of), value in sorted(said.items()) if of.startswith(f"{side} {job.prompt} ")]
                for side in ("chosen", "rejected")
            ]
            votes = [good > bad for good, bad in zip(*sides, strict=True)]
            worse = [good < bad for good, bad in zip(*sides, strict=True)]
            agreed += all(votes) or all(worse)
            pair = found[job.id]
            assert (pair is None) == (sum(votes) < 2)
            assert lost.get(job.id) == (NO_AGREEMENT if sum(votes) < 2 else None)
            if pair is None:
                continue
            (row,) = rows_of(config, pair)
            assert row["chosen_score_total"] == pytest.approx(fmean(sides[0]))
            assert row["preference_margin"] == pytest.approx(fmean(sides[0]) - fmean(sides[1]))
            assert row["agreement"] == pytest.approx(sum(votes) / 3)
            assert "flipped" not in row
            assert [item["judge"] for item in row["judges"]] == PANEL
            assert sorted(item["chosen"] for item in row["judges"]) == sorted(sides[0])
            assert row["chosen_scores"]["depth"]["reasoning"] == "judge: so\njudge_2: so\njudge_3: so"
        assert (opinions.pairs, opinions.agreed, opinions.judges) == (len(jobs), agreed, 3)
        assert 0 < agreed < len(jobs)
        assert opinions.lines() == [
            f"the 3 judges prefer the same side in {agreed} of 60 pairs ({agreed / 60:.0%})"
        ]

        # Another number asks nothing, and estimate knew.
        settings["judging"] |= {"agree": 3}
        asked = len(server.asked)
        async with running(tmp_path, server.base_url, **at(server.base_url, settings)) as run:
            assert (await survey(run.config, run.ledger, jobs=jobs)).to_pay.total() == 0
            stricter, _ = await made(run, jobs)
        assert len(server.asked) == asked
        assert {number for number, pair in stricter.items() if pair} < {
            number for number, pair in found.items() if pair
        }


async def test_a_judge_that_cannot_be_read_leaves_the_answer_without_scores(tmp_path: Path) -> None:
    def judged(chat: Chat) -> Answer:
        return "I like it." if chat.body["model"] == "judge_2" else '{"depth": 4}'

    jobs = some_jobs(1)
    async with ChatServer(script(judged)) as server:
        settings = at(server.base_url, panel(2, mode="mo-dpo", models__judge__max_retries=0))
        async with running(tmp_path, server.base_url, **settings) as run:
            (outcome,) = await settled(run, jobs, nothing)
    (failure,) = outcome.failures
    assert (failure.purpose, failure.cause) == (Purpose.JUDGE, "bad_scores")


async def test_criteria_that_only_some_judges_have_do_not_count(tmp_path: Path) -> None:
    said = {
        "critic": {"depth": 5, "style": 1},
        "judge_2": {"depth": 3, "wit": 1},
        "judge_3": {"depth": 1},
    }
    async with ChatServer(script(lambda chat: json.dumps(said[chat.body["model"]]))) as server:
        settings = at(server.base_url, panel(mode="mo-dpo"))
        async with running(tmp_path, server.base_url, **settings) as run:
            found, _ = await made(run, some_jobs(1))
            said["judge_3"] = {"pace": 1}
            other, _ = await made(run, some_jobs(2)[1:])
    pair, alone = found[0], other[1]
    assert pair is not None
    assert pair.chosen_scores is not None
    assert {name: item.score for name, item in pair.chosen_scores.criteria.items()} == {"depth": 3.0}
    assert pair.chosen_scores.judges == (("judge", 5.0), ("judge_2", 3.0), ("judge_3", 1.0))
    assert alone is not None
    assert alone.chosen_scores is not None
    assert list(alone.chosen_scores.criteria) == ["overall"]
    assert alone.chosen_scores.total == pytest.approx(fmean((3, 2, 1)))


# Comparisons


async def test_a_judge_that_always_says_the_first_one_flips_on_every_pair(tmp_path: Path) -> None:
    jobs = some_jobs(20)
    async with ChatServer(script(lambda _: '{"better": "A"}')) as server:
        settings = at(server.base_url, panel(1, judging={"mode": "pairwise"}))
        async with running(tmp_path, server.base_url, **settings) as run:
            found, lost = await made(run, jobs)
            opinions = run.progress.opinions
        assert server.count(Purpose.COMPARISON) == 2 * len(jobs)
        assert server.count(Purpose.JUDGE) == 0, "where nothing else needs scores, none are asked for"
        assert set(found.values()) == {None}
        assert set(lost.values()) == {"no_margin"}
        assert opinions.lines() == ["20 of 20 opinions (100%) flipped with the order of the answers"]

        # In one order, half of the pairs are the other way round: what stands first is drawn.
        settings["judging"] = {"mode": "pairwise", "swap": False}
        asked = len(server.asked)
        async with running(tmp_path, server.base_url, **settings) as run:
            one_way, lost = await made(run, jobs)
        assert len(server.asked) == asked, "one of the two orders was asked before"
        assert lost == {}
        firsts = {pair.chosen.content.startswith("chosen") for pair in one_way.values() if pair}
        assert firsts == {True, False}


async def test_the_side_that_is_preferred_becomes_chosen(tmp_path: Path) -> None:
    """Two judges of three decide; what is no answer is never chosen."""

    def better(model: str, one: str, other: str) -> str:
        best = max((one, other), key=lambda text: drawn(model, text.strip()))
        return "A" if best is one else "B"

    def judged(chat: Chat) -> Answer:
        if chat.purpose is Purpose.JUDGE:
            return '{"depth": 4}' if chat.subject.startswith("chosen") else '{"depth": 2}'
        one, other = chat.text.split(" | ")
        said = better(chat.body["model"], one, other)
        forms = {"critic": '{{"winner": "{}"}}', "judge_2": "[[{}]]", "judge_3": "Answer {} is better."}
        return forms[chat.body["model"]].format(said)

    async def answer(chat: Chat) -> Answer:
        if chat.purpose is Purpose.REJECTED and chat.text in {"p1", "p2", "p3"}:
            return "I'm sorry, but I can't help with that: it is against what I may do."
        return await script(judged)(chat)

    jobs = some_jobs(40)
    async with ChatServer(answer) as server:
        settings = at(server.base_url, panel(mode="mo-dpo", judging={"mode": "pairwise"}))
        async with running(tmp_path, server.base_url, **settings) as run:
            found, lost = await made(run, jobs)
            config, known = run.config, await survey(run.config, run.ledger, jobs=jobs)
    assert known.to_pay.total() == 0
    assert known.opinions == run.progress.opinions
    turned = 0
    for job in jobs:
        sides = (
            {
                side: next(text for text in texts_of(server) if text.startswith(f"{side} {job.prompt} "))
                for side in ("chosen", "rejected")
            }
            if job.id not in {1, 2, 3}
            else None
        )
        pair = found[job.id]
        if sides is None:
            assert (pair is None) == (lost.get(job.id) == "no_margin")
            if pair is not None:
                assert pair.chosen.content.startswith("chosen")
            continue
        votes = sum(drawn(name, sides["chosen"]) > drawn(name, sides["rejected"]) for name in NAMES)
        assert pair is not None
        assert pair.chosen.content == sides["chosen" if votes >= 2 else "rejected"]
        (row,) = rows_of(config, pair)
        assert row["agreement"] == pytest.approx(max(votes, 3 - votes) / 3)
        assert row["flipped"] == 0
        assert row["preference_margin"] == (2 if votes >= 2 else -2), "the scores go with their sides"
        turned += votes < 2
    assert 0 < turned < len(jobs)


def texts_of(server: ChatServer) -> list[str]:
    return [prose(chat) for chat in server.asked if chat.purpose in {Purpose.CHOSEN, Purpose.REJECTED}]


async def test_what_is_kept_out_anyway_is_not_compared(tmp_path: Path) -> None:
    def judged(chat: Chat) -> Answer:
        assert chat.purpose is Purpose.JUDGE
        return '{"depth": 3}'

    async with ChatServer(script(judged)) as server:
        settings = panel(1, judging={"mode": "pairwise"}, candidates__min_margin=0.5)
        async with running(tmp_path, server.base_url, **settings) as run:
            _, lost = await made(run, some_jobs(3))
    assert set(lost.values()) == {"no_margin"}


# Checklists

QUESTIONS = ["Is it there?", "Is it true?", "Is it short?", "Is it kind?"]


async def test_the_share_of_yes_is_the_score(tmp_path: Path) -> None:
    def judged(chat: Chat) -> Answer:
        if chat.purpose is Purpose.CHECKLIST:
            return QUESTIONS[:3] if chat.text == "p1" else QUESTIONS
        assert chat.purpose is Purpose.CHECKS
        numbers = [line.partition(".")[0] for line in chat.text.splitlines()[1:]]
        good = chat.subject.startswith("chosen")
        return json.dumps({number: "yes" if good or number == "1" else "no" for number in numbers})

    jobs = some_jobs(4)
    async with ChatServer(script(judged)) as server:
        settings = at(server.base_url, panel(2, mode="mo-dpo", judging={"mode": "checklist"}))
        config = configured(server.base_url, **settings)
        async with running(tmp_path, server.base_url, **settings) as run:
            before = await survey(run.config, run.ledger, jobs=jobs)
            found, _ = await made(run, jobs)
            after = await survey(run.config, run.ledger, jobs=jobs)
        assert server.count(Purpose.CHECKLIST) == len(jobs), "one list for all answers to a prompt"
        assert server.count(Purpose.CHECKS) == 2 * 2 * len(jobs)
        assert server.count(Purpose.JUDGE) == 0
    assert +before.unpaid == +after.paid, "what it would take was known before"
    for job in jobs:
        pair = found[job.id]
        assert pair is not None
        (row,) = rows_of(config, pair)
        count = 3 if job.prompt == "p1" else 4
        assert row["chosen_score_total"] == 5
        assert row["rejected_score_total"] == pytest.approx(1 + 4 / count)
        assert list(row["chosen_scores"]) == ["checklist"]
        reasons = row["rejected_scores"]["checklist"]["reasoning"]
        assert reasons.startswith("judge: yes: Is it there?\nno: Is it true?")


# What it takes


@pytest.mark.parametrize("mode", ["score", "pairwise", "checklist"])
@pytest.mark.parametrize("swap", [True, False])
async def test_what_judging_takes_is_known_before(tmp_path: Path, mode: str, *, swap: bool) -> None:
    """From nothing, and with a part of each pair paid for."""
    rng = random.Random(f"{mode} {swap}")
    reached = 0

    def judged(chat: Chat) -> Answer:
        if chat.purpose is Purpose.JUDGE:
            return '{"depth": 4}'
        if chat.purpose is Purpose.CHECKLIST:
            return QUESTIONS
        if chat.purpose is Purpose.CHECKS:
            return json.dumps({str(number): True for number in range(1, 5)})
        return json.dumps({"better": "A" if chat.text.startswith("chosen") else "B"})

    async def answer(chat: Chat) -> Answer:
        nonlocal reached
        if rng.random() < 0.35 and reached < 40:
            reached += 1
            return Reply("not now", status=500)
        return await script(judged)(chat)

    jobs = some_jobs(12)
    async with ChatServer(answer) as server:
        settings = at(
            server.base_url,
            panel(2, mode="mo-dpo", judging={"mode": mode, "swap": swap}, models__judge__max_retries=0),
        )
        settings |= {f"models__{role}__max_retries": 0 for role in ("main", "rejected")}
        for _ in range(12):
            async with running(tmp_path, server.base_url, **settings) as run:
                before = await survey(run.config, run.ledger, jobs=jobs)
                asked = len(server.asked)
                told = estimate(run.config, before, {}).to_pay
                assert told == before.to_pay.total()
                expected = judgements_of(run.config, 2)
                assert before.paid + before.unpaid == {
                    kind: len(jobs) * expected.get(kind, 1)
                    for kind in kinds_of(run.config)
                    if kind.purpose not in {Purpose.SUBTOPICS, Purpose.PROMPTS}
                }
                failing = reached
                with suppress(EndpointError):  # Of a model that has not answered yet.
                    await settled(run, jobs, nothing)
                if reached == failing:
                    assert len(server.asked) - asked == told
                    break
        else:
            raise AssertionError("it never came to its end")


def test_a_judge_sees_what_was_said_before() -> None:
    templates = TEMPLATES | {"judge_comparison": JUDGE_COMPARISON}
    config = configured(**panel(1, judging={"mode": "pairwise"}, prompt_templates=templates))
    before = (("user", "Is it blue?"), ("assistant", "Yes."))
    job = GivenJob(0, "", "", "And at night?", system="Be brief.", history=before, kept={})
    asked = Questions(config).comparison(job, "Dark.", "Black.", 0, "judge").messages[-1][1]
    assert "system: Be brief.\n\nuser: Is it blue?\n\nassistant: Yes.\n\nuser: And at night?" in asked


# Settings


def loaded(**sections: Any) -> Any:
    table = {
        "generation": TOPIC,
        "models": {
            "main": MODEL,
            "rejected": MODEL,
            "judge": MODEL | {"enabled": True},
            "judge_2": MODEL | {"model_name": "n"},
        }
        | sections.pop("models", {}),
    } | sections
    table["models"] = {name: model for name, model in table["models"].items() if model}
    return load_config(None, table=table, environ={})


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"judging": {"models": ["judge", "judge_3"]}}, "models.judge_3"),
        ({"judging": {"models": []}}, "judging.models"),
        ({"judging": {"models": ["Judge"]}}, "judging.models"),
        ({"judging": {"models": ["judge"], "agree": 2}}, "judging.agree"),
        ({"judging": {"mode": "best"}}, "judging.mode"),
        (
            {
                "judging": {"models": ["judge", "judge_2"]},
                "models": {"judge_2": {"base_url": NOBODY, "model_name": "m"}},
            },
            "judging.models",
        ),
        (
            {"judging": {"mode": "pairwise"}, "prompt_templates": {"judge_comparison": "{{.AnswerA}}"}},
            "prompt_templates.judge_comparison",
        ),
        (
            {"judging": {"mode": "checklist"}, "prompt_templates": {"judge_checks": "{{.StoryText}}"}},
            "prompt_templates.judge_checks",
        ),
        ({"candidates": {"models": ["main", "third"]}}, "models.third"),
        ({"models": {"judge_2": {"base_url": NOBODY, "model_nam": "n"}}}, "models.judge_2.model_name"),
        ({"models": {"Judge-2": {"base_url": NOBODY, "model_name": "n"}}}, "models.Judge-2"),
    ],
)
def test_judges_that_cannot_judge_are_named(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(**sections)
    assert said in [problem.key for problem in refused.value.problems]


def test_a_judge_that_is_named_and_switched_off_is_refused() -> None:
    sections = {"main": "", "rejected": "", "judge": "enabled = true", "judge_2": "enabled = false"}
    text = "[judging]\nmodels = ['judge', 'judge_2']\n[generation]\n" + "".join(
        f"{key} = {json.dumps(value)}\n" for key, value in TOPIC.items()
    )
    for name, more in sections.items():
        text += f"[models.{name}]\nbase_url = '{NOBODY}'\nmodel_name = '{name}'\n{more}\n"
    with pytest.raises(ConfigError) as refused:
        load_config(None, text=text, environ={})
    (problem,) = refused.value.problems
    assert str(problem) == "models.judge_2: is not enabled; judging.models names it"


def test_a_further_model_has_the_settings_of_others() -> None:
    found = load_config(
        None,
        table={
            "generation": TOPIC,
            "models": {
                "main": MODEL,
                "rejected": MODEL,
                "judge": MODEL | {"enabled": True},
                "judge_2": MODEL | {"model_name": "n"},
            },
            "judging": {"models": ["judge", "judge_2"]},
        },
        overrides={"models.judge_2.temperature": "0.1"},
        environ={"VELLUMFORGE__MODELS__JUDGE_2__MAX_RETRIES": "7"},
    ).config
    judge = further_models(found)["judge_2"]
    assert (judge.temperature, judge.max_retries, judge.top_p) == (0.1, 7, default_of("models.judge_2.top_p"))
    assert Config.model_validate(found.model_dump(mode="json", exclude_unset=True)) == found


def test_a_name_that_is_nearly_that_of_a_model_is_said() -> None:
    models = {"main": MODEL, "rejcted": MODEL, "judge": MODEL | {"enabled": True}}
    with pytest.raises(ConfigError) as refused:
        load_config(
            None,
            table={"generation": TOPIC, "models": models},
            environ={},
        )
    said = [str(problem) for problem in refused.value.problems]
    assert "models.rejcted: unknown key; did you mean models.rejected?" in said


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {
                "judging": {"models": ["judge", "judge_2"]},
                "models": {"judge_2": MODEL | {"base_url": f"{NOBODY}/"}},
            },
            "judging.models",
        ),
        ({"models": {"copy": MODEL}}, "models.copy"),
        (
            {
                "candidates": {"models": ["main", "judge", "rejected"]},
                "judging": {"models": ["judge_2"]},
                "models": {"judge": None},
            },
            "models.judge",
        ),
        (
            {
                "generation": TOPIC | {"dataset_mode": "sft"},
                "candidates": {"models": ["main", "judge_2"]},
                "models": {"judge": None},
            },
            "models.judge",
        ),
        (
            {"candidates": {"models": ["main", "judge_2"], "choose": "by_model", "count": 2}},
            "candidates.choose",
        ),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_asked(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(**sections)
    assert [problem.key for problem in refused.value.problems] == [said]


def test_two_models_that_answer_once_are_enough_for_a_pair() -> None:
    loaded(candidates={"models": ["main", "judge_2"], "choose": "best_worst", "count": 1})


def test_a_model_that_also_judges_has_its_settings_in_what_it_judges() -> None:
    config = loaded(
        judging={"models": ["rejected", "judge"]}, models={"rejected": MODEL | {"model_name": "r"}}
    )
    effects = effects_in(config.config)
    assert effects["models.rejected.structure_temperature"] == Effect.JUDGE
    assert effects["models.rejected.temperature"] == Effect.PAIRS | Effect.JUDGE
    assert rules.warnings(config.config) == (
        "models.judge_2 has no effect: neither candidates.models nor judging.models uses it",
    )


async def test_what_scores_and_comparison_say_against_each_other_is_kept_out_by_a_margin(
    tmp_path: Path,
) -> None:
    """The rejected answer is preferred, which has the lower score: without a margin it becomes chosen."""

    def judged(chat: Chat) -> Answer:
        if chat.purpose is Purpose.JUDGE:
            return '{"depth": 4}' if chat.subject.startswith("chosen") else '{"depth": 2}'
        return json.dumps({"better": "B" if chat.text.startswith("chosen") else "A"})

    jobs = some_jobs(4)
    async with ChatServer(script(judged)) as server:
        for margin, kept in ((0.0, 4), (0.5, 0)):
            settings = panel(1, judging={"mode": "pairwise"}, mode="mo-dpo", candidates__min_margin=margin)
            async with running(tmp_path, server.base_url, **settings) as run:
                found, lost = await made(run, jobs)
                assert run.progress.opinions.document() == {"swapped": 4, "flipped": 0}
            assert sum(pair is not None for pair in found.values()) == kept
            assert set(lost.values()) == ({"no_margin"} if not kept else set())


async def test_a_job_whose_half_is_refused_for_good_is_left_alone(tmp_path: Path) -> None:
    async def answer(chat: Chat) -> Answer:
        if chat.purpose is Purpose.REJECTED and chat.text == "p1":
            return Reply("this may not be asked", status=400)
        return await script(lambda _: '{"better": "A"}')(chat)

    jobs = some_jobs(3)
    async with ChatServer(answer) as server:
        settings = panel(1, judging={"mode": "pairwise"})
        async with running(tmp_path, server.base_url, **settings) as run:
            outcomes = await settled(run, jobs, nothing)
        (failure,) = [failure for outcome in outcomes for failure in outcome.failures]
        assert failure.cause == "question_refused"
        asked = len(server.asked)
        policy = Policy(left_alone={bytes.fromhex(failure.request): failure})
        async with running(tmp_path, server.base_url, policy=policy, **settings) as run:
            await settled(run, jobs, nothing)
        assert len(server.asked) == asked


async def test_what_was_compared_before_scores_were_wanted_is_not_counted_again(tmp_path: Path) -> None:
    def judged(chat: Chat) -> Answer:
        if chat.purpose is Purpose.JUDGE:
            return '{"depth": 4}'
        return json.dumps({"better": "A" if chat.text.startswith("chosen") else "B"})

    jobs = some_jobs(5)
    async with ChatServer(script(judged)) as server:
        settings = panel(1, judging={"mode": "pairwise"})
        async with running(tmp_path, server.base_url, **settings) as run:
            await made(run, jobs)
        settings["generation__dataset_mode"] = "mo-dpo"
        async with running(tmp_path, server.base_url, **settings) as run:
            assert +(await survey(run.config, run.ledger, jobs=jobs)).to_pay == {Purpose.JUDGE: 2 * len(jobs)}


@given(st.lists(st.lists(st.integers(1, 5), min_size=3, max_size=3), min_size=2, max_size=7))
def test_the_mean_of_a_panel_is_what_it_is_by_fractions(given_scores: list[list[int]]) -> None:
    """A threshold that equals the mean lets it in, and a margin as large as the distance too."""
    judges = [f"judge_{number}" for number in range(len(given_scores))]
    scores = [
        Scores({name: Score(float(value), "") for name, value in zip("abc", row, strict=True)})
        for row in given_scores
    ]
    exact = Fraction(sum(map(sum, given_scores)), 3 * len(given_scores))
    found = mean_of(judges, scores)
    assert found.total == pytest.approx(float(exact), abs=1e-9)
    if (4 * exact).denominator == 1:
        assert found.total == float(exact)
