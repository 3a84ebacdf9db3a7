"""How the calls of each purpose reach their model: lanes, keys, and the form of requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tasks.core.chat.negotiation import LEARNED, Negotiation
from tasks.core.chat.transport import Manner
from tasks.core.config.settings import all_models, provider_of
from tasks.core.exchange.attempt import RetryPolicy
from tasks.core.questions import JUDGEMENTS
from tasks.core.traffic.concurrency import AdaptiveLimit
from tasks.core.traffic.lane import Lane
from tasks.core.traffic.quota import Allowance, Pace, Quota

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import SecretStr

    from tasks.core.chat.negotiation import Learned
    from tasks.core.config.settings import Config, ModelConfig
    from tasks.core.exchange.request import ChatRequest, Form
    from tasks.core.models import Purpose
    from tasks.core.progress import Progress
    from tasks.core.traffic.stop import Stop

MEGABYTE = 1024 * 1024

CALLS_OF_A_JOB = 4
"""A job asks for two answers at once, and the judge for two more."""


@dataclass(frozen=True, slots=True)
class Access:
    """How the calls of one purpose reach their model.

    Attributes:
        lane: Passed by every attempt.
        policy: When an attempt is made again.
        negotiation: The form of requests that the model's server takes.
        plain: The manner of an attempt before anything is negotiated.
        made: Manners that were made, by their form.
    """

    lane: Lane
    policy: RetryPolicy
    negotiation: Negotiation
    plain: Manner
    made: dict[Form, Manner] = field(default_factory=dict)

    def manner(self, request: ChatRequest) -> Manner:
        """The manner of the next attempt at a request."""
        form = self.negotiation.form(request)
        if form not in self.made:
            self.made[form] = self.negotiation.manner(request, self.plain)
        return self.made[form]


class Gateway:
    """Makes the accesses of a run; roles that ask one model share its lane and what was negotiated."""

    def __init__(self, config: Config, stop: Stop, progress: Progress, *, learned: Learned = LEARNED) -> None:
        """Make a gateway that begins with what was learned about the models."""
        self._learned = learned
        self._config = config
        self._stop = stop
        self._progress = progress
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._negotiations: dict[tuple[str, ...], Negotiation] = {}
        self._requests: dict[str, tuple[Quota, Pace]] = {}
        self._tokens: dict[str, Quota] = {}

    def share(self, sharers: int) -> None:
        """Keep to one part of every limit, where so many processes share them."""
        for quota in (*(quota for quota, _ in self._requests.values()), *self._tokens.values()):
            quota.share(sharers)

    def rest(self, now: float, seconds: float) -> None:
        """Ask nobody for so long where anything is limited: what others asked lately counts.

        Args:
            now: The time by the event loop's clock.
            seconds: How long.
        """
        quotas = [quota for quota, _ in self._requests.values()]
        if any(quota.limited for quota in (*quotas, *self._tokens.values())):
            for _, pace in self._requests.values():
                pace.rest(now, seconds)

    def access(
        self,
        purpose: Purpose,
        model: ModelConfig,
        api_key: SecretStr | None,
        headers: Mapping[str, SecretStr],
    ) -> Access:
        """The access to a model for calls of a purpose."""
        # Only a judge has a timeout of its own, as in VellumForge2.
        timeout = model.judge_timeout_seconds if purpose in JUDGEMENTS else model.http_timeout_seconds
        return Access(
            lane=self._lane(model),
            policy=RetryPolicy(max_retries=model.max_retries, max_backoff=model.max_backoff_seconds),
            negotiation=self._negotiation(model),
            plain=Manner(
                api_key,
                timeout,
                headers=headers,
                max_bytes=self._config.execution.max_answer_megabytes * MEGABYTE,
            ),
        )

    def _negotiation(self, model: ModelConfig) -> Negotiation:
        form = (model.structured_output, model.max_tokens_parameter, str(model.use_streaming))
        key = (*_place(model), *form, model.unsupported)
        if key not in self._negotiations:
            self._negotiations[key] = negotiation = Negotiation(
                model.structured_output,
                model.max_tokens_parameter,
                use_streaming=model.use_streaming,
                model=model.model_name,
                wanted=frozenset(model.model_fields_set),
                adapts=model.unsupported == "adapt",
                learned=self._learned,
                key=key,
            )
            self._stop.listen(negotiation.release)
        return self._negotiations[key]

    @property
    def left_out(self) -> tuple[str, ...]:
        """What the models were found not to take, each in one line."""
        lines = (line for negotiation in self._negotiations.values() for line in negotiation.left_out)
        return tuple(dict.fromkeys(lines))

    def _lane(self, model: ModelConfig) -> Lane:
        place = _place(model)
        if place not in self._lanes:
            execution = self._config.execution
            jobs = self._config.generation.concurrency
            endless = model.max_retries < 0
            self._lanes[place] = Lane(
                f"{model.model_name} at {place[0]}",
                self._allowance(model),
                AdaptiveLimit(
                    CALLS_OF_A_JOB * jobs,
                    # Who asks for many jobs at once expects the server to take them.
                    first=jobs // 4,
                    adaptive=execution.adaptive_concurrency,
                ),
                stop=self._stop,
                progress=self._progress,
                patience=float("inf") if endless else 60 * execution.patience_minutes,
                longest_wait=60 * execution.patience_minutes,
            )
        return self._lanes[place]

    def _allowance(self, model: ModelConfig) -> Allowance:
        """The quotas of the model, or of its provider where one is configured, in their place."""
        provider = provider_of(model.base_url)
        shared, requests = self._limit(model, self._config.provider_rate_limits, "rate_limit_per_minute")
        key = provider if shared else " ".join(_place(model))
        quota, pace = self._requests.setdefault(key, (requests, Pace()))
        shared, tokens = self._limit(model, self._config.provider_token_limits, "tokens_per_minute")
        key = provider if shared else " ".join(_place(model))
        return Allowance(quota, self._tokens.setdefault(key, tokens), pace)

    def _limit(self, model: ModelConfig, table: Mapping[str, int], setting: str) -> tuple[bool, Quota]:
        """Whether the table has a limit for the model's provider; and that limit, else the model's."""
        shared = table.get(provider_of(model.base_url))
        per_minute = self._lowest(model, setting) if shared is None else shared
        return shared is not None, Quota(per_minute, self._config.provider_burst_percent)

    def _lowest(self, model: ModelConfig, setting: str) -> int:
        """Of two limits for one model the lower one counts."""
        same = [other for other in all_models(self._config).values() if _place(other) == _place(model)]
        return min((limit for other in same if (limit := getattr(other, setting))), default=0)


def _place(model: ModelConfig) -> tuple[str, str]:
    """Where a model is: its address without a slash at the end, and its name."""
    return model.base_url.rstrip("/"), model.model_name
