"""Servers as people report them, through the command line: all rows come about, and hold no machinery."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from tasks.core.demo.chat import read_chat
from tasks.core.demo.http import Response
from tasks.core.demo.server import DemoServer
from tasks.core.demo.text import Kind
from tests.flows.command import RUN_IN_EACH, config, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tasks.core.demo.http import Request
    from tests.flows.command import User

    Refusal = Callable[[dict[str, Any], int], tuple[int, dict[str, Any]] | None]
    Change = Callable[[dict[str, Any], str, dict[str, Any]], None]

MACHINERY = re.compile(r"<\||\|>|\[/?THINK\]|</?think|Need a story|difficulty|[{}]|can't help with that")
ITEMS = Kind.SUBTOPICS.value, Kind.PROMPTS.value
WHITE = '{"items":' + "\n" * 2000


class Shaped(DemoServer):
    """The demo model behind a server of one shape."""

    def __init__(self, refuse: Refusal, change: Change) -> None:
        super().__init__()
        self._refuse = refuse
        self._change = change
        self._number = 0

    def _chat(self, request: Request) -> Response:
        body = json.loads(request.body)
        self._number += 1
        if (refusal := self._refuse(body, self._number)) is not None:
            return Response(refusal[0], json.dumps(refusal[1]).encode())
        response = super()._chat(request)
        document = json.loads(response.body)
        if "choices" in document:
            self._change(body, read_chat(request.body).kind.value, document["choices"][0])
            response.body = json.dumps(document).encode()
        return response


@contextmanager
def serving(server: Shaped) -> Iterator[str]:
    """The server in a thread of its own; gives its base URL."""
    ready, end = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with server:
            ready.set()
            await end.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait()
    try:
        yield server.base_url
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()
        loop.close()


def takes_all(_body: dict[str, Any], _number: int) -> None:
    """Nothing is refused."""


def as_it_is(_body: dict[str, Any], _kind: str, _choice: dict[str, Any]) -> None:
    """Nothing is changed."""


def the_default_alone(body: dict[str, Any], _number: int) -> tuple[int, dict[str, Any]] | None:
    for name, code in (("temperature", "unsupported_value"), ("top_p", "unsupported_parameter")):
        if body.get(name, 1) != 1 or (name == "top_p" and name in body):
            message = f"Unsupported value: '{name}' does not support {body[name]} with this model."
            message += " Only the default (1) value is supported."
            return 400, {
                "error": {"message": message, "type": "invalid_request_error", "param": name, "code": code}
            }
    return None


def the_judge_alone(body: dict[str, Any], number: int) -> tuple[int, dict[str, Any]] | None:
    return the_default_alone(body, number) if "judge" in body["model"] else None


def one_of_two(body: dict[str, Any], _number: int) -> tuple[int, dict[str, Any]] | None:
    if not {"temperature", "top_p"} <= set(body):
        return None
    message = "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
    return 400, {"type": "error", "error": {"type": "invalid_request_error", "message": message}}


def no_system(body: dict[str, Any], _number: int) -> tuple[int, dict[str, Any]] | None:
    if all(message["role"] != "system" for message in body["messages"]):
        return None
    fields = {"type": "BadRequestError", "param": None, "code": 400}
    return 400, {"object": "error", "message": "System role not supported", **fields}


def no_endpoint(body: dict[str, Any], _number: int) -> tuple[int, dict[str, Any]] | None:
    if "response_format" not in body:
        return None
    message = (
        "No endpoints found that support the requested parameters. To learn more about provider routing,"
    )
    return 404, {"error": {"message": f"{message} visit the documentation.", "code": 404}}


def no_json() -> Refusal:
    """About half of the questions, each once: else one might be refused as often as it may be tried."""
    refused = set()
    message = "Failed to generate JSON. Please adjust your prompt. See 'failed_generation' for more details."
    fields = {"type": "invalid_request_error", "code": "json_validate_failed", "failed_generation": "{"}

    def refuse(body: dict[str, Any], number: int) -> tuple[int, dict[str, Any]] | None:
        question = json.dumps(body["messages"])
        if "response_format" not in body or number % 2 or question in refused:
            return None
        refused.add(question)
        return 400, {"error": {"message": message, **fields}}

    return refuse


def white_space(body: dict[str, Any], _kind: str, choice: dict[str, Any]) -> None:
    if body.get("response_format", {}).get("type") == "json_schema":
        choice["message"]["content"] = WHITE
        choice["finish_reason"] = "length"


def in_reasoning(_body: dict[str, Any], kind: str, choice: dict[str, Any]) -> None:
    if kind != Kind.PROSE.value:
        message = choice["message"]
        message["reasoning_content"], message["content"] = message["content"], None


def harmony(_body: dict[str, Any], _kind: str, choice: dict[str, Any]) -> None:
    final = f"<|start|>assistant<|channel|>final<|message|>{choice['message']['content']}<|return|>"
    choice["message"]["content"] = f"<|channel|>analysis<|message|>Need a story.<|end|>{final}"


def brackets(_body: dict[str, Any], _kind: str, choice: dict[str, Any]) -> None:
    choice["message"]["content"] = f"[THINK]Need a story.[/THINK]{choice['message']['content']}"


def objects(_body: dict[str, Any], kind: str, choice: dict[str, Any]) -> None:
    if kind in ITEMS:
        items = json.loads(choice["message"]["content"])
        described = [{"difficulty": "easy", "question": item} for item in items]
        choice["message"]["content"] = json.dumps(described)


def refusals() -> Change:
    asked = 0

    def change(_body: dict[str, Any], kind: str, choice: dict[str, Any]) -> None:
        nonlocal asked
        asked += kind == Kind.PROMPTS.value
        if kind == Kind.PROMPTS.value and asked % 3 == 1:
            choice["message"]["content"] = "[\"I'm sorry, but I can't help with that.\"]"

    return change


SHAPES: dict[str, tuple[Refusal, Change]] = {
    "temperature of 1 alone": (the_default_alone, as_it_is),
    "one of two": (one_of_two, as_it_is),
    "no system role": (no_system, as_it_is),
    "no endpoint for a format": (no_endpoint, as_it_is),
    "JSON that does not come about": (no_json(), as_it_is),
    "white space without end": (takes_all, white_space),
    "lists in the reasoning": (takes_all, in_reasoning),
    "harmony": (takes_all, harmony),
    "thinking in brackets": (takes_all, brackets),
    "objects for items": (takes_all, objects),
    "a refusal for a list": (takes_all, refusals()),
    "a judge's temperature of 1 alone": (the_judge_alone, as_it_is),
}


def test_a_run_comes_about(user: User) -> None:
    """One after the other in one process, each in a folder and with servers of its own."""
    models = "max_retries = 3\nmax_backoff_seconds = 0.1\ntop_p = 0.9"
    with ExitStack() as servers:
        for shape, behaviour in SHAPES.items():
            url = servers.enter_context(serving(Shaped(*behaviour)))
            (user.folder / shape).mkdir()
            text = config(url, mode="mo-dpo", subtopics=2, prompts=2, models=models)
            user.write(f"{shape}/config.toml", text)
        ended = user.run(*SHAPES, program=RUN_IN_EACH)
    assert json.loads(ended.out.splitlines()[-1]) == dict.fromkeys(SHAPES, 0), ended
    wrong = []
    for shape in SHAPES:
        (session,) = user.sessions(f"{shape}/output")
        rows = rows_of(session)
        texts = [row[name] for row in rows for name in ("prompt", "chosen", "rejected")]
        wrong += [(shape, text) for text in texts if MACHINERY.search(text)]
        wrong += [(shape, row["prompt"]) for row in rows if len(row["prompt"]) <= 20]
        wrong += [] if len(rows) == 4 else [(shape, f"{len(rows)} rows")]
    assert not wrong
