"""The shapes of servers that people run themselves."""

from __future__ import annotations

from tasks.core.exchange.attempt import Verdict
from tests.core.chat.conformance.hosted import said
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

FIRST, SECOND = HALVES

_VLLM = {
    "id": "chatcmpl-3e",
    "object": "chat.completion.chunk",
    "created": 1741569952,
    "model": "Qwen/Qwen3-8B",
}
_VLLM_USAGE = {
    "prompt_tokens": 13,
    "total_tokens": 33,
    "completion_tokens": 20,
    "prompt_tokens_details": {"cached_tokens": 8},
}
VLLM = Server(
    name="vLLM",
    plain=document(
        **_VLLM | {"object": "chat.completion"},
        choices=choice(
            {"role": "assistant", "reasoning_content": "Fog.", "content": TEXT, "tool_calls": []},
            logprobs=None,
            stop_reason=None,
        ),
        usage=_VLLM_USAGE,
        prompt_logprobs=None,
        kv_transfer_params=None,
    ),
    streamed=stream(
        *chunks(
            {"role": "assistant", "content": ""},
            {"reasoning_content": "Fog."},
            {"content": FIRST},
            {"content": SECOND},
            {"content": ""},
            common=_VLLM,
        ),
        usage_chunk(_VLLM, _VLLM_USAGE),
    ),
    usage=(13, 20, 8, None),
    reasoning="Fog.",
    errors=(
        Wrong(
            error(
                404,
                {
                    "object": "error",
                    "message": "The model `x` does not exist.",
                    "type": "NotFoundError",
                    "param": None,
                    "code": 404,
                },
            ),
            Verdict.FATAL,
            "check model_name",
        ),
        Wrong(
            error(
                400,
                said("This model's maximum context length is 4096 tokens.", type="BadRequestError", code=400),
            ),
            Verdict.GIVE_UP,
            "maximum context length",
        ),
        Wrong(
            error(
                400,
                {
                    "object": "error",
                    "message": "guided decoding is not enabled",
                    "type": "BadRequestError",
                    "code": 400,
                },
            ),
            Verdict.RENEGOTIATE,
            "guided decoding",
        ),
        Wrong(error(401, {"error": "Unauthorized"}), Verdict.FATAL, "check its API key"),
        Wrong(
            stream(
                '{"error": {"object": "error", "message": "EngineCore died", "code": 500}}',
                "[DONE]",
                done=False,
            ),
            Verdict.RETRY,
            "EngineCore died",
        ),
        Wrong(error(503, {"detail": "The server is overloaded"}), Verdict.RETRY, "overloaded"),
        Wrong(error(429, said("Too many requests", code=429)), Verdict.THROTTLED, "Too many requests"),
    ),
)

_SGLANG = {"id": "7c2a", "object": "chat.completion.chunk", "created": 1741569952, "model": "default"}
_SGLANG_USAGE = {
    "prompt_tokens": 25,
    "total_tokens": 34,
    "completion_tokens": 9,
    "prompt_tokens_details": None,
}
SGLANG = Server(
    name="SGLang",
    plain=document(
        **_SGLANG | {"object": "chat.completion"},
        choices=choice(
            {"role": "assistant", "content": TEXT, "reasoning_content": None, "tool_calls": None},
            logprobs=None,
            matched_stop=151645,
        ),
        usage=_SGLANG_USAGE | {"reasoning_tokens": 0},
    ),
    streamed=stream(
        *chunks(
            {"role": "assistant", "content": "", "reasoning_content": None},
            {"role": None, "content": FIRST, "reasoning_content": None, "tool_calls": None},
            {"role": None, "content": SECOND, "reasoning_content": None, "tool_calls": None},
            {"role": None, "content": None, "reasoning_content": None, "tool_calls": None},
            common=_SGLANG | {"usage": None},
        ),
        usage_chunk(_SGLANG, _SGLANG_USAGE | {"reasoning_tokens": 0}),
    ),
    usage=(25, 9, None, 0),
    errors=(
        Wrong(
            error(
                400,
                {
                    "object": "error",
                    "message": "Failed to compile json schema",
                    "type": "BadRequest",
                    "code": 400,
                },
            ),
            Verdict.RENEGOTIATE,
            "json schema",
        ),
        Wrong(
            error(
                503,
                {"object": "error", "message": "The request queue is full.", "type": "abort", "code": 503},
            ),
            Verdict.RETRY,
            "queue is full",
        ),
        Wrong(error(429, "Too many requests"), Verdict.THROTTLED, "Too many requests"),
    ),
)

_LLAMA = {
    "id": "chatcmpl-XX",
    "object": "chat.completion.chunk",
    "created": 1741569952,
    "model": "gpt-3.5-turbo",
}
_LLAMA_USAGE = {"completion_tokens": 16, "prompt_tokens": 15, "total_tokens": 31}
_TIMINGS = {"prompt_n": 15, "prompt_ms": 120.1, "predicted_n": 16, "predicted_per_second": 40.2}
LLAMA_CPP = Server(
    name="llama.cpp",
    plain=document(
        **_LLAMA | {"object": "chat.completion"},
        choices=choice({"role": "assistant", "reasoning_content": "Fog.", "content": TEXT}),
        usage=_LLAMA_USAGE,
        system_fingerprint="b5000-abc",
        timings=_TIMINGS,
    ),
    streamed=stream(
        *chunks(
            {"role": "assistant", "content": None},
            {"reasoning_content": "Fog."},
            {"content": FIRST},
            {"content": SECOND},
            {},
            common=_LLAMA,
            last={"timings": _TIMINGS},
        ),
        usage_chunk(_LLAMA | {"timings": _TIMINGS}, _LLAMA_USAGE),
    ),
    usage=(15, 16, None, None),
    reasoning="Fog.",
    errors=(
        Wrong(
            error(503, said("Loading model", type="unavailable_error", code=503)),
            Verdict.RETRY,
            "Loading model",
        ),
        Wrong(
            error(401, said("Invalid API Key", type="authentication_error", code=401)),
            Verdict.FATAL,
            "check its API key",
        ),
        Wrong(
            error(400, said("failed to parse grammar", type="invalid_request_error", code=400)),
            Verdict.RENEGOTIATE,
            "grammar",
        ),
        Wrong(
            error(
                400,
                said(
                    "the request exceeds the available context size. try increasing the context size",
                    type="exceed_context_size_error",
                    code=400,
                ),
            ),
            Verdict.GIVE_UP,
            "context size",
        ),
        Wrong(error(429, said("all slots are busy", code=429)), Verdict.THROTTLED, "slots"),
    ),
)

_OLLAMA = {
    "id": "chatcmpl-287",
    "object": "chat.completion.chunk",
    "created": 1741569952,
    "model": "qwen3:8b",
}
_OLLAMA_USAGE = {"prompt_tokens": 26, "completion_tokens": 30, "total_tokens": 56}
OLLAMA = Server(
    name="Ollama",
    plain=document(
        **_OLLAMA | {"object": "chat.completion"},
        system_fingerprint="fp_ollama",
        choices=choice({"role": "assistant", "content": TEXT, "reasoning": "Fog."}),
        usage=_OLLAMA_USAGE,
    ),
    streamed=stream(
        *chunks(
            {"role": "assistant", "content": "", "reasoning": "Fog."},
            {"role": "assistant", "content": FIRST},
            {"role": "assistant", "content": SECOND},
            {"role": "assistant", "content": ""},
            common=_OLLAMA,
        ),
        usage_chunk(_OLLAMA, _OLLAMA_USAGE),
    ),
    usage=(26, 30, None, None),
    reasoning="Fog.",
    errors=(
        Wrong(
            error(
                404,
                said('model "x" not found, try pulling it first', type="api_error", param=None, code=None),
            ),
            Verdict.FATAL,
            "try pulling it first",
        ),
        Wrong(
            error(
                503,
                said("server busy, please try again. maximum pending requests exceeded", type="api_error"),
            ),
            Verdict.RETRY,
            "server busy",
        ),
        Wrong(
            error(500, said("llama runner process has terminated", type="api_error")),
            Verdict.RETRY,
            "terminated",
        ),
        Wrong(error(429, said("too many requests", type="rate_limit_error")), Verdict.THROTTLED, "too many"),
    ),
)

_STUDIO = {
    "id": "chatcmpl-t9",
    "object": "chat.completion.chunk",
    "created": 1741569952,
    "model": "qwen2.5-7b",
}
_STUDIO_USAGE = {"prompt_tokens": 16, "completion_tokens": 12, "total_tokens": 28}
LM_STUDIO = Server(
    name="LM Studio",
    plain=document(
        **_STUDIO | {"object": "chat.completion"},
        choices=choice(
            {"role": "assistant", "content": TEXT, "reasoning_content": "", "tool_calls": []}, logprobs=None
        ),
        usage=_STUDIO_USAGE,
        stats={},
        system_fingerprint="qwen2.5-7b",
    ),
    streamed=stream(
        *chunks(
            {"role": "assistant", "content": FIRST},
            {"role": "assistant", "content": SECOND},
            {},
            common=_STUDIO,
        ),
        usage_chunk(_STUDIO, _STUDIO_USAGE),
    ),
    usage=(16, 12, None, None),
    errors=(
        Wrong(
            error(
                404,
                said(
                    "Failed to load model",
                    type="invalid_request_error",
                    param="model",
                    code="model_not_found",
                ),
            ),
            Verdict.FATAL,
            "check model_name",
        ),
        Wrong(
            error(400, {"error": "'response_format.type' must be 'json_schema' or 'text'"}),
            Verdict.RENEGOTIATE,
            "response_format.type",
        ),
        Wrong(
            stream(
                '{"error": {"message": "The model has crashed without additional information."}}', done=False
            ),
            Verdict.RETRY,
            "crashed",
        ),
        Wrong(error(429, {"error": "Too many requests"}), Verdict.THROTTLED, "Too many requests"),
    ),
)

_TGI = {
    "id": "",
    "object": "chat.completion.chunk",
    "created": 1741569952,
    "model": "tgi",
    "system_fingerprint": "3",
}
_TGI_USAGE = {"prompt_tokens": 22, "completion_tokens": 14, "total_tokens": 36}
TGI = Server(
    name="TGI",
    plain=document(
        **_TGI | {"object": "chat.completion"},
        choices=choice({"role": "assistant", "content": TEXT}, logprobs=None),
        usage=_TGI_USAGE,
    ),
    streamed=stream(
        *chunks(
            {"role": "assistant", "content": FIRST},
            {"role": "assistant", "content": SECOND},
            common=_TGI | {"usage": None},
        ),
        usage_chunk(_TGI, _TGI_USAGE),
        pad="",
    ),
    usage=(22, 14, None, None),
    errors=(
        Wrong(
            error(429, {"error": "Model is overloaded", "error_type": "overloaded"}),
            Verdict.THROTTLED,
            "Model is overloaded",
        ),
        Wrong(
            error(
                422,
                {
                    "error": "Input validation error: `inputs` must have less than 1024 tokens",
                    "error_type": "validation",
                },
            ),
            Verdict.GIVE_UP,
            "Input validation error",
        ),
        Wrong(
            error(
                422, {"error": "Input validation error: grammar is not supported", "error_type": "validation"}
            ),
            Verdict.RENEGOTIATE,
            "grammar",
        ),
        Wrong(
            stream(
                '{"error": "Request failed during generation", "error_type": "generation"}',
                done=False,
                pad="",
            ),
            Verdict.RETRY,
            "failed during generation",
        ),
    ),
)

LOCAL = (VLLM, SGLANG, LLAMA_CPP, OLLAMA, LM_STUDIO, TGI)
