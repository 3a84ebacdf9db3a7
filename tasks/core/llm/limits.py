"""Requests a minute, for each model and provider.

A provider's limit, where one is configured, stands in for the limits of its models and is shared by them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tasks.core.config.models import provider_of

if TYPE_CHECKING:
    from tasks.core.config.models import Config, ModelConfig
    from tasks.core.llm.stop import Stop


class RateLimiter:
    """A token bucket kept as one number: the time at which the bucket will be full again.

    Requests are let through in the order in which they came; each knows at once how long it waits, so
    ten thousand waiting requests cost ten thousand timers and nothing else.
    """

    def __init__(self, per_minute: int, burst_percent: int) -> None:
        """Make a limiter.

        Args:
            per_minute: Requests a minute; 0 for no limit.
            burst_percent: How many may come at once, in percent of a minute's requests; at least one.
        """
        self._interval = 60.0 / per_minute if per_minute else 0.0
        self._tolerance = self._interval * max(0.0, per_minute * burst_percent / 100 - 1)
        self._full_at = 0.0

    def reserve(self, now: float) -> float:
        """Take the next place in the queue; returns the seconds until its turn."""
        self._full_at = max(self._full_at, now) + self._interval
        return max(0.0, self._full_at - self._interval - self._tolerance - now)

    async def acquire(self, stop: Stop) -> None:
        """Wait for this request's turn.

        Raises:
            RunInterrupted: The run was told to stop while waiting.
        """
        if self._interval and (delay := self.reserve(asyncio.get_running_loop().time())):
            await stop.sleep(delay)


class Limits:
    """The limiters of a configuration, one for each model or provider."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._limiters: dict[str, RateLimiter] = {}

    def of(self, model: ModelConfig) -> RateLimiter:
        """The limiter that every attempt at this model passes.

        Two roles of one model share its limiter; of two limits the lower one counts.
        """
        provider = provider_of(model.base_url)
        shared = self._config.provider_rate_limits.get(provider)
        name = provider if shared is not None else f"{model.base_url} {model.model_name}"
        if name not in self._limiters:
            per_minute = self._lowest(model) if shared is None else shared
            self._limiters[name] = RateLimiter(per_minute, self._config.provider_burst_percent)
        return self._limiters[name]

    def _lowest(self, model: ModelConfig) -> int:
        models = self._config.models
        limits = [
            other.rate_limit_per_minute
            for other in (models.main, models.rejected, models.judge)
            if other is not None
            and (other.base_url, other.model_name) == (model.base_url, model.model_name)
            and other.rate_limit_per_minute
        ]
        return min(limits, default=0)
