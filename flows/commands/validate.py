"""The command `vellumforge2 validate`: what is wrong, what will be sent, and whether the models answer."""

from __future__ import annotations

import asyncio
import os
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from flows.checking import DEFAULT_CONFIG, check_run, with_blocks
from flows.pages.secret_blocks import read_blocks
from flows.process import settings as environment
from flows.process.run import HOME
from flows.process.server import EmbeddedServer
from flows.process.terminal import tell, tell_json
from tasks.core.exchange.limit_headers import NO_ADVICE
from tasks.core.preflight import ping_all, sample_requests, targets_of
from tasks.core.printable import printable_line
from tasks.core.questions import models_of
from tasks.core.secrets import variables_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flows.checking import CheckedRequest
    from flows.request import FlowRequest
    from tasks.core.exchange.limit_headers import Advice
    from tasks.core.exchange.request import ChatRequest
    from tasks.core.models import CallKind
    from tasks.core.preflight import Ping, Target

SHOWN: Final = 160
"""Characters of a message that are shown."""

NO_ANSWER: Final = 3
"""Exit code when a model does not answer."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found out.

    Attributes:
        source: The configuration file.
        checked: What it asks for, checked.
        requests: A request for each kind of call, with sample values.
        targets: The distinct models that are asked.
        pings: What each of them showed; empty where none was asked.
    """

    source: str
    checked: CheckedRequest
    requests: Mapping[CallKind, ChatRequest]
    targets: Sequence[Target]
    pings: Sequence[Ping]

    @property
    def code(self) -> int:
        """The exit code."""
        return NO_ANSWER if any(ping.error for ping in self.pings) else 0


def validate_here(request: FlowRequest, *, ping: bool, json: bool) -> int:
    """Check what a run would be asked to do, and print what was found.

    Args:
        request: What is asked for.
        ping: Whether each model is asked a few small questions, which are paid for.
        json: Whether one JSON object is printed.

    Returns:
        0, or 3 when a model does not answer.

    Raises:
        UsageError: Something given cannot be used.
    """
    checked = asyncio.run(check_run(request))
    targets = targets_of(checked.config)
    pings: list[Ping] = []
    if ping:
        if any(model.api_key_block for model in models_of(checked.config).values()):
            # Only Prefect knows the keys; the rest of what was given is sound.
            checked = _with_blocks(checked, request)
        pings = asyncio.run(ping_all(checked.config, targets, checked.keys))
    found = Findings(
        request.config or DEFAULT_CONFIG, checked, sample_requests(checked.config), targets, pings
    )
    if json:
        tell_json(_document(found))
    else:
        tell(*_lines(found))
    return found.code


def _with_blocks(checked: CheckedRequest, request: FlowRequest) -> CheckedRequest:
    """The same, with the keys in Prefect's blocks: from the configured server, or one of our own."""
    home = environment.set_defaults(Path(checked.config.output.folder) / HOME)
    server = None if environment.configured_api_url() else EmbeddedServer(home)
    with server or nullcontext():
        if server is not None:
            os.environ.update(server.client_settings)
            server.wait_ready()
        return asyncio.run(with_blocks(checked, request, read_blocks))


def _document(found: Findings) -> dict[str, Any]:
    config = found.checked.config
    document: dict[str, Any] = {
        "config": found.source,
        "dataset_mode": config.generation.dataset_mode,
        "warnings": found.checked.warnings,
        "models": [
            {
                "model": target.model.model_name,
                "base_url": target.model.base_url,
                "purposes": target.purposes,
                "key": found.checked.keys.origin_of(target.model) or None,
                "headers": list(target.model.headers),
            }
            for target in found.targets
        ],
        "requests": [
            {"purpose": kind.purpose, "endpoint": request.endpoint, "body": request.body()}
            for kind, request in found.requests.items()
        ],
    }
    if found.pings:
        for model, ping in zip(document["models"], found.pings, strict=True):
            model["ping"] = asdict(ping)
    return document


def _lines(found: Findings) -> list[str]:
    generation = found.checked.config.generation
    count = generation.wanted_pairs
    each = generation.num_prompts_per_subtopic
    given = found.checked.config.input.prompts
    size = (
        f"{count:,} prompts of {printable_line(given, 200)}"
        if given
        else f"{count:,} pairs from {generation.num_subtopics:,} subtopics"
        if generation.target_pairs
        else f"{generation.num_subtopics:,} x {each:,} = {count:,} prompts"
    )
    lines = [f"{found.source} is valid: mode {generation.dataset_mode}, {size}"]
    lines += [f"warning: {warning}" for warning in found.checked.warnings]
    lines += ["", "Models:"]
    for target in found.targets:
        model = target.model
        lines += [
            f"  {model.model_name} at {model.base_url}: {', '.join(target.purposes)}",
            f"    {_key(found.checked, target)}",
        ]
        if model.headers:
            lines.append(f"    further headers: {', '.join(model.headers)}")
    lines += ["", "Requests, with sample values:"]
    for kind, request in found.requests.items():
        lines.append(f"  {kind.purpose}: {request.model}: {_parameters(request)}")
        lines += [f"    {role}: {_short(content)}" for role, content in request.messages]
    if found.pings:
        lines += ["", "Ping (a small question in each form; no answer is kept in the ledger):"]
        for target, ping in zip(found.targets, found.pings, strict=True):
            lines += _ping_lines(target, ping)
    return lines


def _key(checked: CheckedRequest, target: Target) -> str:
    origin = checked.keys.origin_of(target.model)
    if origin:
        return f"key: {origin}"
    return f"no key: none of {', '.join(variables_of(target.model))} is set, and none is sent"


def _parameters(request: ChatRequest) -> str:
    return ", ".join(f"{name} = {orjson.dumps(value).decode()}" for name, value in request.parameters.items())


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}… ({len(text):,} characters)"


def _ping_lines(target: Target, ping: Ping) -> list[str]:
    name = target.model.model_name
    if ping.error:
        return [f"  {name}: does not answer: {ping.error}"]
    reported = f" as {_short(ping.reported)}" if ping.reported else ""
    lines = [
        f"  {name}: answers in {ping.seconds:.2f} s{reported}; {ping.tokens:,} tokens paid for",
        f"    forms: {'; '.join(ping.forms)}",
        f"    streaming: {ping.streaming}",
        f"    JSON: {ping.structure}",
        f"    reasoning: {'comes beside the answers' if ping.reasoning else 'none came'}",
    ]
    lines += [f"    {_short(line)}" for line in ping.left_out]
    if ping.advice != NO_ADVICE:
        lines.append(f"    limits: {', '.join(_limits(ping.advice))}")
    return lines


def _limits(advice: Advice) -> list[str]:
    found = []
    for kind, limit, left, reset in (
        ("requests", advice.limit_requests, advice.remaining_requests, advice.reset_requests),
        ("tokens", advice.limit_tokens, advice.remaining_tokens, advice.reset_tokens),
    ):
        parts = [f"{limit:,} {kind}" if limit is not None else kind if (left, reset) != (None, None) else ""]
        parts += [f"{left:,} left"] if left is not None else []
        parts += [f"all back in {reset:g} s"] if reset is not None else []
        found += [" ".join(filter(None, parts))] if any(parts) else []
    if advice.retry_after is not None:
        found.append(f"a pause of {advice.retry_after:g} s asked for")
    return found
