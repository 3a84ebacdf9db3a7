"""A schema that a server takes and does not keep to is given up after two answers in a row."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tasks.core.chat.negotiation import Learned
from tasks.core.demo.http import Response
from tasks.core.exchange.request import response_format
from tests.core.refusing import Refusing
from tests.core.test_refused_parameters import a_run, pairs_of

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.core.demo.http import Request

WHITE = '{"items":' + "\n" * 500
PLAIN: dict[str, Any] = {"max_retries": 1}


class White(Refusing):
    """A server that answers a schema with white space up to the token limit, while it is broken."""

    broken = True

    def _chat(self, request: Request) -> Response:
        if not self.broken or "response_format" not in json.loads(request.body):
            return super()._chat(request)
        self.bodies.append(json.loads(request.body))
        choice = {"message": {"role": "assistant", "content": WHITE}, "finish_reason": "length"}
        return Response(200, json.dumps({"choices": [choice]}).encode())


class Unkept(Refusing):
    """A server that fails at JSON whenever it is asked for it, and says so."""

    def _refusal(self, body: dict[str, Any]) -> tuple[str, str] | None:
        if "response_format" not in body:
            return None
        error = {"message": "Failed to generate JSON.", "code": "json_validate_failed"}
        return "json", json.dumps({"error": error})


@pytest.mark.parametrize("server", [White(()), Unkept(())])
async def test_a_run_comes_about(tmp_path: Path, server: Refusing) -> None:
    learned = Learned()
    async with server, a_run(tmp_path, server.base_url, learned, {"max_retries": 3}) as run:
        assert len(await pairs_of(run)) == 4
        formed = sum("response_format" in body for body in server.bodies)
        # Two for each step, and for the judge those that were under way then: 8 texts in two steps.
        assert formed <= 2 * 2 + 2 * (8 + 2)
        server.bodies.clear()
    async with a_run(tmp_path, server.base_url, learned, {"max_retries": 3}) as run:
        assert len(await pairs_of(run)) == 4
        assert run.progress.paid.total() == 0


@pytest.mark.parametrize("explain", [False, True])
def test_the_schema_says_what_is_wanted(explain: bool) -> None:  # noqa: FBT001 - a case
    items = response_format("json_schema", "items", least=7)
    assert items is not None
    assert items["json_schema"]["schema"]["properties"]["items"]["minItems"] == 7
    plain = response_format("plain_schema", "items", least=7)
    assert plain is not None
    assert "minItems" not in str(plain)
    scores = response_format("json_schema", "scores", criteria=("wit", "style"), explain=explain)
    assert scores is not None
    assert scores["json_schema"]["strict"]
    schema = scores["json_schema"]["schema"]
    assert schema["required"] == ["wit", "style"]
    score = {"type": "integer", "minimum": 1, "maximum": 5}
    wit = schema["properties"]["wit"]
    assert (wit["properties"]["score"] if explain else wit) == score
