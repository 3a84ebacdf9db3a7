"""Who shares a lane, a limit and what was negotiated: by model and address, and by provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from tasks.core.chat.access import CALLS_OF_A_JOB, MEGABYTE, Gateway
from tasks.core.config.settings import Config
from tasks.core.models import Purpose
from tasks.core.progress import Progress
from tasks.core.traffic.stop import Stop
from tests.core.chat.scripted import question
from tests.core.traffic.test_quota import starts

if TYPE_CHECKING:
    from tasks.core.chat.access import Access
    from tasks.core.traffic.quota import Quota

OPENAI = "https://api.openai.com/v1"
HERE = "http://127.0.0.1:8000/v1"


def model(base_url: str, name: str, per_minute: int = 0, **fields: Any) -> dict[str, Any]:
    return {"base_url": base_url, "model_name": name, "rate_limit_per_minute": per_minute} | fields


def accesses(main: dict[str, Any], rejected: dict[str, Any], **settings: Any) -> tuple[Access, Access]:
    config = Config.model_validate(
        {
            "generation": {
                "main_topic": "Tea",
                "num_subtopics": 1,
                "num_prompts_per_subtopic": 1,
                "concurrency": 8,
            },
            "models": {"main": main, "rejected": rejected},
        }
        | settings
    )
    gateway = Gateway(config, Stop(), Progress())
    assert config.models.rejected is not None
    return (
        gateway.access(Purpose.CHOSEN, config.models.main, SecretStr("key"), {}),
        gateway.access(Purpose.REJECTED, config.models.rejected, None, {"x-title": SecretStr("Tea")}),
    )


def quotas(*both: Access) -> list[Quota]:
    return [access.lane._allowance.requests for access in both]


def test_each_model_has_its_own_lane_and_limit() -> None:
    both = accesses(model(OPENAI, "a", 60), model(OPENAI, "b", 600))
    assert both[0].lane is not both[1].lane
    assert both[0].lane._allowance.pace is not both[1].lane._allowance.pace
    main, rejected = quotas(*both)
    assert starts(main, [0.0] * 10)[-1] == pytest.approx(1.0)
    assert starts(rejected, [0.0] * 91)[-1] == pytest.approx(0.1)


def test_two_roles_of_one_model_share_its_lane_and_the_lower_of_their_limits() -> None:
    for slash in ("", "/"):
        main, rejected = accesses(model(OPENAI, "a", 600), model(OPENAI + slash, "a", 60))
        assert main.lane is rejected.lane
        assert starts(main.lane._allowance.requests, [0.0] * 10)[-1] == pytest.approx(1.0)


def test_a_limit_of_the_provider_stands_in_for_those_of_its_models() -> None:
    both = accesses(
        model(OPENAI, "a", 6),
        model("https://eu.api.openai.com/v1/", "b"),
        provider_rate_limits={"openai": 60},
    )
    # Lanes of their own, because one model may be slow and the other not.
    assert both[0].lane is not both[1].lane
    assert both[0].lane._allowance.pace is both[1].lane._allowance.pace
    main, rejected = quotas(*both)
    assert main is rejected
    assert starts(main, [0.0] * 10) == pytest.approx([0.0] * 9 + [1.0])


def test_a_limit_of_one_provider_leaves_another_alone() -> None:
    main, rejected = quotas(
        *accesses(model(OPENAI, "a", 60), model(HERE, "b"), provider_rate_limits={"openai": 600})
    )
    assert starts(main, [0.0] * 90) == [0.0] * 90
    assert starts(rejected, [0.0] * 100) == [0.0] * 100


def test_a_provider_limit_of_zero_lifts_the_limits_of_its_models() -> None:
    main, rejected = quotas(
        *accesses(model(HERE, "a", 1), model(HERE + "/", "b", 1), provider_rate_limits={HERE: 0})
    )
    assert main is rejected
    assert starts(main, [0.0] * 100) == [0.0] * 100


def test_tokens_are_limited_by_model_or_by_provider_apart_from_requests() -> None:
    both = accesses(
        model(OPENAI, "a", 60, tokens_per_minute=1000),
        model(OPENAI, "b", 60, tokens_per_minute=1000),
        provider_token_limits={"openai": 5000},
        provider_burst_percent=20,
    )
    assert quotas(*both)[0] is not quotas(*both)[1]
    tokens = both[0].lane._allowance.tokens
    assert tokens is both[1].lane._allowance.tokens
    assert starts(tokens, [0.0] * 3, amount=500.0) == pytest.approx([0.0, 0.0, 6.0])


def test_roles_share_what_was_negotiated_only_where_they_ask_alike() -> None:
    main, rejected = accesses(model(OPENAI, "a"), model(OPENAI, "a"))
    assert main.negotiation is rejected.negotiation
    for other in (model(OPENAI, "b"), model(OPENAI, "a", use_streaming=True), model(HERE, "a")):
        main, rejected = accesses(model(OPENAI, "a"), other)
        assert main.negotiation is not rejected.negotiation


def test_the_manner_of_an_attempt_is_the_models() -> None:
    main, rejected = accesses(
        model(OPENAI, "a", http_timeout_seconds=33),
        model(OPENAI, "b", use_streaming=True, max_tokens_parameter="max_completion_tokens"),
        execution={"max_answer_megabytes": 3},
    )
    manner = main.manner(question())
    assert manner.api_key == SecretStr("key")
    assert (manner.timeout, manner.streaming, manner.max_bytes) == (33, False, 3 * MEGABYTE)
    manner = rejected.manner(question(schema="items"))
    assert manner.api_key is None
    assert manner.headers == {"x-title": SecretStr("Tea")}
    assert (manner.streaming, manner.token_limit, manner.structure) == (
        True,
        "max_completion_tokens",
        "json_schema",
    )


@pytest.mark.parametrize(("adaptive", "most"), [(True, 16), (False, CALLS_OF_A_JOB * 8)])
def test_concurrency_is_found_out_unless_it_is_not_to_be(adaptive: bool, most: int) -> None:  # noqa: FBT001 - a case
    main, _ = accesses(model(OPENAI, "a"), model(OPENAI, "b"), execution={"adaptive_concurrency": adaptive})
    assert main.lane._limit.limit == most


def test_only_a_model_with_an_end_of_retries_loses_patience() -> None:
    main, rejected = accesses(
        model(OPENAI, "a", max_retries=-1), model(OPENAI, "b"), execution={"patience_minutes": 3}
    )
    assert (main.lane._patience, rejected.lane._patience) == (float("inf"), 180.0)
