"""What a server's error means: a table of errors as servers word them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.chat.error_documents import Complaint, error_within
from tasks.core.chat.server_errors import is_crowded, read_error, refusal, verdict_of
from tasks.core.chat.transport import Manner, body_of
from tasks.core.exchange.attempt import Verdict
from tests.core.chat.attempts import KEY
from tests.core.chat.scripted import SECRET, question

PLAIN = Manner(KEY, 30.0)
SCHEMA = Manner(KEY, 30.0, structure="json_schema", streaming=True)
LIST = question(schema="items")


def said(message: str, **fields: Any) -> str:
    return json.dumps({"error": {"message": message, **fields}})


def judged(status: int, body: str, manner: Manner = PLAIN) -> Verdict:
    return verdict_of(status, read_error(body.encode(), ()), manner, body_of(LIST, manner))[0]


@pytest.mark.parametrize(
    ("message", "crowded"),
    [
        ("Max parallel request limit reached", True),
        ("Crossed TPM / RPM / Max Parallel Request Limit. current rpm: 1", True),
        ("Rate limit exceeded. Limit type: max_parallel_requests. Current limit: 1, Remaining: 0", True),
        ("Your account reached max organization concurrency: 1, please try again after 1 seconds", True),
        ("Number of concurrent connections has exceeded your rate limit", True),
        ("Too many simultaneous requests", True),
        ("Only one request at a time", True),
        ("您当前使用该API的并发数过高", True),
        ("Rate limit reached for gpt-4o in organization org on requests per min (RPM): Limit 3", False),
        ("Too Many Requests", False),
        ("You exceeded your current quota", False),
        ("", False),
    ],
)
def test_refusals_for_too_many_at_once_are_told_by_their_words(message: str, *, crowded: bool) -> None:
    for body in (said(message), json.dumps({"detail": message}), message):
        assert is_crowded(read_error(body.encode(), ())) == crowded
    error = refusal(429, read_error(said(message).encode(), ()), request=question(), manner=PLAIN)
    assert error.crowded == crowded


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (301, Verdict.GIVE_UP),
        (307, Verdict.GIVE_UP),
        (400, Verdict.GIVE_UP),
        (401, Verdict.FATAL),
        (402, Verdict.FATAL),
        (403, Verdict.FATAL),
        (404, Verdict.FATAL),
        (408, Verdict.RETRY),
        (409, Verdict.RETRY),
        (413, Verdict.GIVE_UP),
        (422, Verdict.GIVE_UP),
        (425, Verdict.RETRY),
        (429, Verdict.THROTTLED),
        (498, Verdict.THROTTLED),
        (500, Verdict.RETRY),
        (502, Verdict.RETRY),
        (503, Verdict.RETRY),
        (529, Verdict.RETRY),
        (599, Verdict.RETRY),
    ],
)
def test_a_status_alone(status: int, verdict: Verdict) -> None:
    for body in ("", "no", "{}", "<html></html>", said("no"), "[]", "[" * 100_000):
        assert judged(status, body) is verdict


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        # No credit.
        (429, said("You exceeded your current quota.", code="insufficient_quota"), Verdict.FATAL),
        (429, said("You exceeded your quota.", type="insufficient_quota", code=None), Verdict.FATAL),
        (402, said("Insufficient Balance", code="invalid_request_error"), Verdict.FATAL),
        (400, said("Your credit balance is too low to access the API."), Verdict.FATAL),
        (403, said("This account has insufficient credits."), Verdict.FATAL),
        (
            429,
            said(
                "You exceeded your current quota, check your plan and billing details",
                code="insufficient_quota",
            ),
            Verdict.FATAL,
        ),
        # What passes, though it speaks of the same.
        (
            429,
            said("Rate limit reached. Upgrade at https://x.y/settings/billing", code="rate_limit_exceeded"),
            Verdict.THROTTLED,
        ),
        (
            429,
            json.dumps(
                [
                    {
                        "error": {
                            "code": 429,
                            "message": "check your billing details",
                            "status": "RESOURCE_EXHAUSTED",
                        }
                    }
                ]
            ),
            Verdict.THROTTLED,
        ),
        (500, said("insufficient funds of memory"), Verdict.RETRY),
        # The content of this request.
        (403, said("flagged", metadata={"reasons": ["violence"], "flagged_input": "…"}), Verdict.GIVE_UP),
        (403, said("Your input was rejected by moderation"), Verdict.GIVE_UP),
        (400, said("The response was filtered", code="content_filter"), Verdict.GIVE_UP),
        (400, said("This model's maximum context length is 4096 tokens.", code="x"), Verdict.GIVE_UP),
        # The model.
        (404, said("The model `x` does not exist", code="model_not_found"), Verdict.FATAL),
        (400, said("The model `x` does not exist or you do not have access to it"), Verdict.FATAL),
        (400, said("Model Not Exist", code="invalid_request_error"), Verdict.FATAL),
        (400, said("foo/bar is not a valid model ID"), Verdict.FATAL),
        (400, said('model "x" not found, try pulling it first'), Verdict.FATAL),
        (400, said("model gpt-9.5-turbo not found"), Verdict.FATAL),
        (400, said("The model `x` has been decommissioned and is no longer supported."), Verdict.FATAL),
        (400, said("unknown model: x"), Verdict.FATAL),
        (422, said("Invalid model", code="model_not_supported"), Verdict.FATAL),
        (503, said("The model is currently not available"), Verdict.RETRY),
        # What asks for patience.
        (503, said("Loading model", type="unavailable_error", code=503), Verdict.RETRY),
        (429, json.dumps({"error": "Model is overloaded", "error_type": "overloaded"}), Verdict.THROTTLED),
    ],
)
def test_an_error_as_servers_word_it(status: int, body: str, verdict: Verdict) -> None:
    assert judged(status, body) is verdict


@pytest.mark.parametrize(
    ("status", "body", "refused", "tried"),
    [
        (
            400,
            said("Invalid parameter: 'response_format' of type 'json_schema' is not supported"),
            "response_format",
            "",
        ),
        (400, said("This response_format type is unavailable now"), "response_format", ""),
        (
            422,
            json.dumps({"detail": [{"loc": ["body", "response_format"], "msg": "bad"}]}),
            "response_format",
            "",
        ),
        (400, said("Failed to parse grammar"), "response_format", ""),
        (500, said("Structured outputs are not enabled"), "response_format", ""),
        (400, said("model x does not support json_schema"), "response_format", ""),
        (404, said("No endpoints found that support response_format"), "response_format", ""),
        (400, said("Unknown field", param="response_format"), "response_format", ""),
        (
            400,
            said(
                "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
                param="max_tokens",
            ),
            "max_tokens",
            "max_tokens",
        ),
        (400, said("no", param="max_tokens", code="unsupported_parameter"), "max_tokens", "max_tokens"),
        (400, said("Unrecognized request argument: stream_options"), "stream_options", "stream_options"),
        (400, said("streaming is not supported for this model"), "stream", "stream"),
        (
            400,
            said("Your organization must be verified to stream this model.", param="stream"),
            "stream",
            "stream",
        ),
    ],
)
def test_a_refused_form(status: int, body: str, refused: str, tried: str) -> None:
    verdict, (found,) = verdict_of(status, read_error(body.encode(), ()), SCHEMA, body_of(LIST, SCHEMA))
    assert (verdict, found.name) == (Verdict.RENEGOTIATE, refused)
    assert found.tried == (tried or "json_schema")
    if refused != "max_tokens":
        # A form that was not used was not refused.
        assert judged(status, body) is not Verdict.RENEGOTIATE


def test_a_prompt_that_is_too_long_is_no_refused_form() -> None:
    body = said("max_completion_tokens is too large: the maximum context length is 4096", param="max_tokens")
    assert judged(400, body, SCHEMA) is Verdict.GIVE_UP


def test_a_fatal_error_says_which_model_where_and_what_to_do() -> None:
    endpoint = "https://api.example.com/v1"
    request = question(endpoint=endpoint)
    for status, message, hint in (
        (401, f"Incorrect API key: {SECRET}", "check its API key"),
        (402, "Insufficient Balance", "the account has no credit left; add some, then resume"),
        (404, "no such model", "check model_name and base_url"),
    ):
        error = refusal(status, Complaint(message), request=request, manner=PLAIN)
        shown = message.replace(SECRET, "***")
        assert str(error) == f"demo-strong at {endpoint}: HTTP {status}: {shown}; {hint}"


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"error": {"message": "slow down", "code": 429}}, 429),
        ({"error": {"message": "slow down", "code": "429"}}, 429),
        ({"error": {"message": "slow down", "type": "rate_limit_error"}}, 429),
        ({"object": "error", "message": "no", "code": 400}, 400),
        ({"error": {"type": "overloaded_error", "message": "Overloaded"}}, 503),
        ({"error": {"message": "no", "type": "authentication_error"}}, 401),
        ({"choices": [{"error": {"code": 502, "message": "lost"}, "finish_reason": "error"}]}, 502),
        ({"error": {"message": "no"}}, None),
        ({"error": "no"}, None),
        ({"error": {"code": 7, "message": "no"}}, None),
        ({"error": True}, None),
        ({"object": "error"}, None),
        ({"choices": [{"finish_reason": "error"}]}, None),
    ],
)
def test_an_error_in_place_of_an_answer(document: dict[str, Any], status: int | None) -> None:
    complaint = error_within(document)
    assert complaint is not None
    assert complaint.meant_status == status
    assert complaint.message


@pytest.mark.parametrize("nothing", [None, False, "", {}, [], 0])
def test_an_error_that_is_none(nothing: Any) -> None:
    assert error_within({"error": nothing, "choices": [{"message": {"content": "x"}}]}) is None


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["error", "message", "code", "type", "param", "metadata", "raw", "choices", "object"]
            ),
            inner,
        )
    ),
    max_leaves=12,
)


@given(st.integers(100, 599), json_values, st.binary())
def test_no_error_raises(status: int, document: Any, raw: bytes) -> None:
    for body in (json.dumps(document).encode(), raw):
        error = refusal(status, read_error(body, (SECRET,)), request=question(), manner=SCHEMA)
        assert str(error).isprintable()
    if isinstance(document, dict):
        error_within(document)


def test_long_errors_are_judged_in_no_time() -> None:
    for piece in ("model ", "model not ", "stream ", "invalid ", "billing ", "a"):
        assert isinstance(judged(400, piece * 20_000, SCHEMA), Verdict)
