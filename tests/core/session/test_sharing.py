"""How work and means are divided among shards."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.core.chat.budget import SessionBudget
from tasks.core.config.settings import Config
from tasks.core.cost import Bill, Usage
from tasks.core.session.adoption import unpack_jobs
from tasks.core.session.ledger import divided, plan_of, read_bill, write_bill
from tasks.core.traffic.stop import Stop
from tests.core.running import configured, some_jobs

LEDGER = "postgresql+asyncpg://me@127.0.0.1/ledger"


def shared(shards: int = 3, **settings: Any) -> Config:
    return configured(output__ledger=LEDGER, execution__shards=shards, **settings)


def spent(calls: int) -> Bill:
    bill = Bill()
    bill.add("strong", "chosen", Usage(calls, 10 * calls, 0))
    return bill


@pytest.mark.parametrize("jobs", [3, 4, 10, 11])
async def test_every_job_is_in_one_shard_and_in_order(jobs: int) -> None:
    config = shared()
    parts = divided(config, SessionBudget(config, Stop(), Bill()), some_jobs(jobs))
    found = [unpack_jobs(packed)[1] or [] for _, packed in parts]
    assert [job for part in found for job in part] == some_jobs(jobs)
    sizes = [len(part) for part in found]
    assert max(sizes) - min(sizes) <= 1


async def test_what_is_left_of_the_budget_is_divided() -> None:
    price = {"input": 100_000, "output": 0}
    config = shared(
        budget__max_calls=100, budget__max_tokens=1000, budget__max_usd=7.0, pricing={"strong": price}
    )
    parts = divided(config, SessionBudget(config, Stop(), spent(10)), some_jobs(9))
    for settings, _ in parts:
        budget = Config.model_validate_json(settings).budget
        assert (budget.max_calls, budget.max_tokens) == (30, 300)
        # 10 calls of 10 tokens at 0.1 dollars a token leave nothing of seven dollars.
        assert budget.max_usd == 0.0


async def test_settings_arrive_as_they_were_and_limits_whole() -> None:
    config = shared(
        generation__concurrency=7,
        models__main={"base_url": "http://127.0.0.1:9/v1", "model_name": "m", "rate_limit_per_minute": 90},
    )
    (settings, _), *_ = divided(config, SessionBudget(config, Stop(), Bill()), some_jobs(3))
    assert Config.model_validate_json(settings) == config
    assert json.loads(settings)["models"]["main"]["rate_limit_per_minute"] == 90


def test_another_prompt_number_or_setting_is_another_plan() -> None:
    plans = {
        plan_of(shared(), some_jobs(4), "ledger"),
        plan_of(shared(), some_jobs(5), "ledger"),
        plan_of(shared(2), some_jobs(4), "ledger"),
        plan_of(shared(generation__concurrency=7), some_jobs(4), "ledger"),
        plan_of(shared(), some_jobs(4), "another"),
    }
    assert len(plans) == 5
    assert plan_of(shared(), some_jobs(4), "ledger") in plans


def test_a_bill_is_read_as_it_was_written() -> None:
    assert list(read_bill(write_bill(spent(4)))) == list(spent(4))
    assert list(read_bill("")) == []
