"""The demo's configuration: a small DPO dataset from the demo model server on loopback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.core.config.load import load_config

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.core.config.settings import Config

DEMO_PORT = 18111
"""The same port each time, where it is free: the address is part of what an answer is kept under."""

DEMO_URL = f"http://127.0.0.1:{DEMO_PORT}/v1"

DEMO_LATENCY_MS = 40.0
"""A little, so that the progress can be seen."""

DEMO_PLAIN_LENGTH = 3.1
"""So that the weak model's answers are about as long as the strong one's: length is no merit."""

_TEXT = """
[generation]
main_topic = "Lighthouses and the people who keep them"
num_subtopics = 4
num_prompts_per_subtopic = 3
concurrency = 8
dataset_mode = "dpo"
enable_checkpointing = true

[models.main]
base_url = "{base_url}"
model_name = "demo-strong"
rate_limit_per_minute = 0

[models.rejected]
base_url = "{base_url}"
model_name = "demo-weak"
rate_limit_per_minute = 0

[execution]
preflight = false
"""


def demo_settings(base_url: str, overrides: Mapping[str, Any]) -> Config:
    """The demo's configuration.

    Args:
        base_url: Where the demo's model server is.
        overrides: Settings by dotted key that win over the demo's own.

    Raises:
        ConfigError: An override cannot be used.
    """
    text = _TEXT.format(base_url=base_url)
    return load_config(None, overrides=overrides, environ={}, text=text).config
