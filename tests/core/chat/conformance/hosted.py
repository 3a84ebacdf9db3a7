"""The shapes of hosted services."""

from __future__ import annotations

from typing import Any

from tasks.core.exchange.attempt import Verdict
from tasks.core.exchange.limit_headers import Advice
from tests.core.chat.conformance.shapes import (
    HALVES,
    TEXT,
    Server,
    Wrong,
    choice,
    chunks,
    document,
    error,
    stream,
    usage_chunk,
)


def said(message: str, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


FIRST, SECOND = HALVES

_OPENAI = {
    "id": "chatcmpl-B9MB",
    "object": "chat.completion.chunk",
    "created": 1741569952,
    "model": "gpt-4.1",
}
_OPENAI_USAGE = {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 2, "accepted_prediction_tokens": 0},
}
OPENAI = Server(
    name="OpenAI",
    plain=document(
        "x-ratelimit-limit-requests: 500",
        **_OPENAI | {"object": "chat.completion"},
        choices=choice(
            {"role": "assistant", "content": TEXT, "refusal": None, "annotations": []}, logprobs=None
        ),
        usage=_OPENAI_USAGE,
        service_tier="default",
    ),
    streamed=stream(
        *chunks(
            {"role": "assistant", "content": "", "refusal": None},
            {"content": FIRST},
            {"content": SECOND},
            {},
            common=_OPENAI | {"usage": None, "obfuscation": "x1y2"},
        ),
        usage_chunk(_OPENAI, _OPENAI_USAGE),
    ),
    usage=(19, 10, 4, 2),
    errors=(
        Wrong(
            error(
                401,
                said(
                    "Incorrect API key provided: sk-v****.",
                    type="invalid_request_error",
                    code="invalid_api_key",
                ),
            ),
            Verdict.FATAL,
            "check its API key",
        ),
        Wrong(
            error(
                429,
                said(
                    "Rate limit reached for gpt-4.1", type="requests", param=None, code="rate_limit_exceeded"
                ),
                "retry-after-ms: 1200",
                "retry-after: 2",
                "x-ratelimit-limit-requests: 500",
                "x-ratelimit-remaining-requests: 0",
                "x-ratelimit-reset-requests: 120ms",
                "x-ratelimit-limit-tokens: 30000",
                "x-ratelimit-remaining-tokens: 29000",
                "x-ratelimit-reset-tokens: 6m0s",
            ),
            Verdict.THROTTLED,
            "Rate limit reached",
            Advice(1.2, 500, 0, 0.12, 30_000, 29_000, 360.0),
        ),
        Wrong(
            error(
                429,
                said("You exceeded your current quota", type="insufficient_quota", code="insufficient_quota"),
            ),
            Verdict.FATAL,
            "no credit left",
        ),
        Wrong(
            error(
                400,
                said(
                    "Unsupported parameter: 'max_tokens' is not supported with this model. "
                    "Use 'max_completion_tokens' instead.",
                    type="invalid_request_error",
                    param="max_tokens",
                    code="unsupported_parameter",
                ),
            ),
            Verdict.RENEGOTIATE,
            "max_completion_tokens",
        ),
        Wrong(
            error(
                404,
                said(
                    "The model `gpt-9` does not exist", type="invalid_request_error", code="model_not_found"
                ),
            ),
            Verdict.FATAL,
            "check model_name",
        ),
    ),
)

_CLAUDE = {
    "id": "msg_013",
    "object": "chat.completion.chunk",
    "created": 1741569952,
    "model": "claude-opus-4",
}
_CLAUDE_USAGE = {"prompt_tokens": 14, "completion_tokens": 8, "total_tokens": 22}
ANTHROPIC = Server(
    name="Anthropic's compatible endpoint",
    plain=document(
        **_CLAUDE | {"object": "chat.completion"},
        choices=choice({"role": "assistant", "content": TEXT}),
        usage=_CLAUDE_USAGE,
    ),
    streamed=stream(
        *chunks({"role": "assistant", "content": FIRST}, {"content": SECOND}, {}, common=_CLAUDE),
        usage_chunk(_CLAUDE, _CLAUDE_USAGE),
        end="\r\n",
    ),
    usage=(14, 8, None, None),
    errors=(
        Wrong(
            error(
                429,
                {
                    "type": "error",
                    "error": {"type": "rate_limit_error", "message": "This would exceed your limit"},
                },
                "retry-after: 7",
                "anthropic-ratelimit-requests-limit: 50",
                "anthropic-ratelimit-requests-remaining: 0",
                "anthropic-ratelimit-tokens-limit: 40000",
            ),
            Verdict.THROTTLED,
            "This would exceed your limit",
            Advice(retry_after=7.0, limit_requests=50, remaining_requests=0, limit_tokens=40_000),
        ),
        Wrong(
            error(529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
            Verdict.RETRY,
            "Overloaded",
        ),
        Wrong(
            error(
                400, said("Your credit balance is too low to access the API.", type="invalid_request_error")
            ),
            Verdict.FATAL,
            "no credit left",
        ),
    ),
)

_NIM = {"id": "chat-9f", "object": "chat.completion.chunk", "created": 1741569952, "model": "nvidia/nemotron"}
_NIM_USAGE = {"prompt_tokens": 21, "total_tokens": 30, "completion_tokens": 9, "prompt_tokens_details": None}
NVIDIA = Server(
    name="NVIDIA NIM",
    plain=document(
        **_NIM | {"object": "chat.completion"},
        choices=choice(
            {"role": "assistant", "content": TEXT, "reasoning_content": "Fog.", "tool_calls": []},
            stop_reason=None,
        ),
        usage=_NIM_USAGE,
        prompt_logprobs=None,
    ),
    streamed=stream(
        *chunks(
            {"role": "assistant", "content": None, "reasoning_content": "Fog."},
            {"content": FIRST},
            {"content": SECOND},
            common=_NIM,
        ),
        usage_chunk(_NIM, _NIM_USAGE),
    ),
    usage=(21, 9, None, None),
    reasoning="Fog.",
    errors=(
        Wrong(
            error(
                404,
                {"status": 404, "title": "Not Found", "detail": "Function '1': Not found for account 'x'"},
            ),
            Verdict.FATAL,
            "Not found for account",
        ),
        Wrong(
            error(429, {"status": 429, "title": "Too Many Requests"}), Verdict.THROTTLED, "Too Many Requests"
        ),
        Wrong(
            error(403, {"status": 403, "title": "Forbidden", "detail": "Authorization failed"}),
            Verdict.FATAL,
            "failed",
        ),
        Wrong(error(504, "<html><h1>504 Gateway Time-out</h1></html>"), Verdict.RETRY, "504"),
    ),
)

_TOGETHER = {
    "id": "nz7-8aa",
    "object": "chat.completion.chunk",
    "created": 1741569952,
    "model": "meta-llama/x",
}
_TOGETHER_USAGE = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42, "cached_tokens": 16}
TOGETHER = Server(
    name="Together",
    plain=document(
        **_TOGETHER | {"object": "chat.completion"},
        prompt=[],
        choices=choice({"role": "assistant", "content": TEXT, "tool_calls": []}, seed=7, finish_reason="eos"),
        usage=_TOGETHER_USAGE,
    ),
    streamed=stream(
        *chunks(
            {"role": "assistant", "content": FIRST, "token_id": 7},
            {"content": SECOND},
            common=_TOGETHER | {"usage": None},
            last={"usage": _TOGETHER_USAGE},
        ),
    ),
    usage=(30, 12, 16, None),
    errors=(
        Wrong(
            error(
                429,
                said("Request limited.", type="dynamic_request_limited", param=None, code=None),
                "x-ratelimit-limit: 10",
                "x-ratelimit-remaining: 0",
                "x-ratelimit-reset: 3",
                "x-tokenlimit-limit: 5000",
                "x-tokenlimit-remaining: 100",
            ),
            Verdict.THROTTLED,
            "Request limited",
            Advice(None, 10, 0, 3.0, 5000, 100, None),
        ),
        Wrong(
            error(
                404,
                said("Unable to access model x.", type="invalid_request_error", code="model_not_available"),
            ),
            Verdict.FATAL,
            "Unable to access model",
        ),
        Wrong(
            error(503, said("The server is overloaded", type="service_unavailable")),
            Verdict.RETRY,
            "overloaded",
        ),
    ),
)

_ROUTER = {
    "id": "gen-17",
    "provider": "X",
    "object": "chat.completion.chunk",
    "model": "deepseek/deepseek-r1",
}
_ROUTER_USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 40,
    "total_tokens": 52,
    "cost": 0.0001,
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 25},
}
_DETAILS = [{"type": "reasoning.text", "text": "Fog.", "format": "unknown", "index": 0}]
OPENROUTER = Server(
    name="OpenRouter",
    plain=document(
        **_ROUTER | {"object": "chat.completion"},
        choices=choice(
            {
                "role": "assistant",
                "content": TEXT,
                "refusal": None,
                "reasoning": "Fog.",
                "reasoning_details": _DETAILS,
            },
            native_finish_reason="stop",
            logprobs=None,
        ),
        usage=_ROUTER_USAGE,
    ),
    streamed=stream(
        *chunks(
            {"role": "assistant", "content": "", "reasoning": "Fog.", "reasoning_details": _DETAILS},
            {"content": FIRST, "reasoning": None},
            {"content": SECOND},
            {"role": "assistant", "content": ""},
            common=_ROUTER,
        ),
        usage_chunk(_ROUTER, _ROUTER_USAGE),
        before=": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n",
    ),
    usage=(12, 40, 0, 25),
    reasoning="Fog.",
    errors=(
        Wrong(
            error(402, said("This request requires more credits, or fewer max_tokens.", code=402)),
            Verdict.FATAL,
            "no credit left",
        ),
        Wrong(
            error(
                403,
                said(
                    "Your chosen model requires moderation and your input was flagged",
                    code=403,
                    metadata={
                        "reasons": ["violence"],
                        "flagged_input": "…",
                        "provider_name": "X",
                        "model_slug": "y",
                    },
                ),
            ),
            Verdict.GIVE_UP,
            "flagged",
        ),
        Wrong(
            error(403, said("Blocked by guardrail: prompt injection", code=403)), Verdict.GIVE_UP, "guardrail"
        ),
        Wrong(
            error(
                429,
                said(
                    "Provider returned error",
                    code=429,
                    metadata={"raw": "x is limited upstream", "provider_name": "X"},
                ),
                "Retry-After: 60",
            ),
            Verdict.THROTTLED,
            "Provider returned error: x is limited upstream",
            Advice(retry_after=60.0),
        ),
        Wrong(
            document(error={"code": 502, "message": "Upstream error"}, user_id="x"),
            Verdict.RETRY,
            "Upstream error",
        ),
        Wrong(
            stream(
                *chunks({"content": FIRST}, {"content": SECOND}, common=_ROUTER)[:1],
                '{"id": "gen-17", "error": {"code": "server_error", "message": "Provider disconnected"},'
                ' "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]}',
                done=False,
            ),
            Verdict.RETRY,
            "Provider disconnected",
        ),
        Wrong(
            error(400, said("foo/bar is not a valid model ID", code=400)), Verdict.FATAL, "check model_name"
        ),
    ),
)

_DEEPSEEK = {
    "id": "1f63",
    "object": "chat.completion.chunk",
    "created": 1741569952,
    "model": "deepseek-reasoner",
}
_DEEPSEEK_USAGE = {
    "prompt_tokens": 17,
    "completion_tokens": 30,
    "total_tokens": 47,
    "prompt_cache_hit_tokens": 16,
    "prompt_cache_miss_tokens": 1,
    "completion_tokens_details": {"reasoning_tokens": 21},
}
DEEPSEEK = Server(
    name="DeepSeek",
    # Empty lines keep the connection alive while the request is waiting.
    plain=document(
        **_DEEPSEEK | {"object": "chat.completion"},
        choices=choice({"role": "assistant", "content": TEXT, "reasoning_content": "Fog."}, logprobs=None),
        usage=_DEEPSEEK_USAGE,
        system_fingerprint="fp",
    ),
    streamed=stream(
        *chunks(
            {"role": "assistant", "content": None, "reasoning_content": ""},
            {"content": None, "reasoning_content": "Fog."},
            {"content": FIRST, "reasoning_content": None},
            {"content": SECOND, "reasoning_content": None},
            {"content": "", "reasoning_content": None},
            common=_DEEPSEEK | {"usage": None},
            last={"usage": _DEEPSEEK_USAGE},
        ),
        before=": keep-alive\n\n: keep-alive\n\n",
    ),
    usage=(17, 30, 16, 21),
    reasoning="Fog.",
    errors=(
        Wrong(
            error(402, said("Insufficient Balance", type="unknown_error", code="invalid_request_error")),
            Verdict.FATAL,
            "no credit left",
        ),
        Wrong(
            error(400, said("Model Not Exist", type="invalid_request_error", code="invalid_request_error")),
            Verdict.FATAL,
            "check model_name",
        ),
        Wrong(
            error(400, said("This response_format type is unavailable now", type="invalid_request_error")),
            Verdict.RENEGOTIATE,
            "response_format",
        ),
        Wrong(error(429, said("Rate limit reached")), Verdict.THROTTLED, "Rate limit reached"),
        Wrong(error(503, said("Server overloaded")), Verdict.RETRY, "Server overloaded"),
    ),
)

_GROQ = {
    "id": "chatcmpl-f5",
    "object": "chat.completion.chunk",
    "created": 1741569952,
    "model": "llama-3.3-70b",
}
_GROQ_USAGE = {
    "queue_time": 0.03,
    "prompt_tokens": 18,
    "completion_tokens": 11,
    "total_tokens": 29,
    "total_time": 0.4,
}
GROQ = Server(
    name="Groq",
    plain=document(
        "x-ratelimit-limit-requests: 14400",
        **_GROQ | {"object": "chat.completion"},
        choices=choice({"role": "assistant", "content": TEXT, "reasoning": "Fog."}, logprobs=None),
        usage=_GROQ_USAGE,
        x_groq={"id": "req_01"},
    ),
    streamed=stream(
        *chunks(
            {"role": "assistant", "content": ""},
            {"reasoning": "Fog."},
            {"content": FIRST},
            {"content": SECOND},
            {},
            common=_GROQ,
            last={"x_groq": {"id": "req_01", "usage": _GROQ_USAGE}},
        ),
    ),
    usage=(18, 11, None, None),
    reasoning="Fog.",
    errors=(
        Wrong(
            error(
                429,
                said(
                    "Rate limit reached for model x on tokens per minute. Try again in 7.66s. "
                    "Need more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing",
                    type="tokens",
                    code="rate_limit_exceeded",
                ),
                "retry-after: 8",
                "x-ratelimit-limit-requests: 14400",
                "x-ratelimit-limit-tokens: 6000",
                "x-ratelimit-remaining-requests: 14370",
                "x-ratelimit-remaining-tokens: 0",
                "x-ratelimit-reset-requests: 2m59.56s",
                "x-ratelimit-reset-tokens: 7.66s",
            ),
            Verdict.THROTTLED,
            "Rate limit reached",
            Advice(8.0, 14_400, 14_370, 179.56, 6000, 0, 7.66),
        ),
        Wrong(error(498, said("Flex tier capacity exceeded")), Verdict.THROTTLED, "capacity"),
        Wrong(
            error(
                400,
                said(
                    "This model does not support response format `json_schema`.", type="invalid_request_error"
                ),
            ),
            Verdict.RENEGOTIATE,
            "json_schema",
        ),
        Wrong(
            error(400, said("The model `x` has been decommissioned", code="model_decommissioned")),
            Verdict.FATAL,
            "check model_name",
        ),
    ),
)

HOSTED = (OPENAI, ANTHROPIC, NVIDIA, TOGETHER, OPENROUTER, DEEPSEEK, GROQ)
