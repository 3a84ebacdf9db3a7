"""A chat of the demo model: what is asked, how the model behaves, and its answer, whole or as a stream.

The answer is a pure function of the request's body, its Idempotency-Key and the configured behaviour.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from hashlib import sha256
from typing import Any

import orjson

from tasks.core.demo import text as demo_text
from tasks.core.demo.text import Kind
from tasks.core.errors import UsageError

_NO_SHARES = {"latency_ms", "length", "plain_length", "retry_after"}


@dataclass(frozen=True)
class Behaviour:
    """How the demo model behaves. Shares are 0 to 1 and decided by hashes, so that a run can be repeated.

    Attributes:
        latency_ms: Milliseconds before a chat request is answered, whatever the answer.
        length: How many times as long as usual prose answers are.
        plain_length: How many times as long as that those of a weak model are, which usually are short.
        refuse: Share of prose answers that are refusals.
        repeat: Share of list items that are well-known ones, the same in all answers.
        bad: Share of list and judge answers that are broken JSON or nonsense.
        empty: Share of answers without content.
        cut: Share of prose answers that stop mid-sentence, with finish reason `stop`.
        reasoning: Share of answers with `reasoning_content`; its tokens count towards the limit.
        error: Share of attempts that are answered 500.
        rate_limited: Share of attempts that are answered 429.
        retry_after: The Retry-After header of a 429, in seconds.
        truncate: Share of attempts whose body is cut off before the connection is closed.
        unfinished: Share of streams that end in order, but before the answer does.
        fail_models: Models that are answered 404.
        fail_matching: Requests whose messages contain it are answered 400; "" for none.
        error_matching: Requests whose messages contain it are answered 500; "" for none.

    Raises:
        UsageError: A number out of its range.
    """

    latency_ms: float = 0.0
    length: float = 1.0
    plain_length: float = 1.0
    refuse: float = 0.0
    repeat: float = 0.0
    bad: float = 0.0
    empty: float = 0.0
    cut: float = 0.0
    reasoning: float = 0.0
    error: float = 0.0
    rate_limited: float = 0.0
    retry_after: float = 0.0
    truncate: float = 0.0
    unfinished: float = 0.0
    fail_models: tuple[str, ...] = ()
    fail_matching: str = ""
    error_matching: str = ""

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self) if isinstance(field.default, float)):
            value, top = getattr(self, name), math.inf if name in _NO_SHARES else 1
            if not 0 <= value <= top or math.isinf(value):
                allowed = "0 or more" if top > 1 else "0 to 1"
                raise UsageError(f"{name} is {value:g}; allowed: {allowed}")


def happens(share: float, seed: bytes, what: str) -> bool:
    """Whether something with this share happens to this seed: always the same answer."""
    if share <= 0:
        return False
    return int.from_bytes(sha256(seed + what.encode()).digest()[:4], "big") < share * 2**32


_CREATED = 1_700_000_000
_CHARACTERS_PER_TOKEN = 4
_DEFAULT_COUNT = 5
_MAX_CRITERIA = 12
_PLAIN_TEMPERATURE = 1.0
_PLAIN_MODELS = ("weak", "reject", "small")
_DEFAULT_CRITERIA = ("relevance", "clarity", "style")
# What decides the answer. The token limit only cuts it, and response_format is negotiated with a server.
_DECISIVE = ("model", "messages", "temperature", "top_p", "top_k", "min_p", "seed")
# What an absent field means: a client that leaves it out asks the same.
_ABSENT = {"top_p": 1.0}

_QUOTES = re.compile(r'"[^"\n]*"|“[^”\n]*”')
_LIST = re.compile(r'json\W+(?:\w+\W+){0,3}?(?:array|list)\b|\b(?:array|list) of (?:\w+ )?strings|\[\s*"')
_SCORE = re.compile(r"\bscor(?:e|es|ed|ing)\b")
# The example of an answer shows that texts are compared, or questions answered.
_FORMS = (
    (re.compile(r'"better"\s*:'), Kind.COMPARISON),
    (re.compile(r'"1"\s*:\s*"yes"'), Kind.CHECKS),
)
_SECOND = re.compile(r"\b(?:answer|response|story|text)[ _-]?b\b", re.IGNORECASE)
_QUESTION = re.compile(r"^[ \t]*(\d{1,2})[.)]\s", re.MULTILINE)
_SUBTOPICS = re.compile(r"\b(?:sub-?)?topics\b")
# The number of a numbered line is passed over.
_COUNT = re.compile(r"^\s*\d+[.)]\s|(?<![\w.,-])(\d{1,5})(?![\w-]|[.,]\d)", re.MULTILINE)
_MAX_COUNT = 10_000
_QUOTED_SUBTOPIC = re.compile(r'\bsub-?topics?\b\W{0,4}["“]([^"”\n]{1,200})["”]', re.IGNORECASE)
_NAMED_SUBTOPIC = re.compile(r"\bsub-?topic:[ \t]*([^\n\"“]{1,200})", re.IGNORECASE)
_QUOTED_AFTER = re.compile(r'\b(?:about|for|in|of|on)\b:?\s["“]([^"”\n]{1,200})["”]', re.IGNORECASE)
_QUOTED = re.compile(r'["“]([^"”\n]{1,200})["”]')
_KEY = re.compile(r'"([A-Za-z]\w*)"\s*:\s*(?=[\d{<])')
_ELLIPSIS = re.compile(r",\s*(?:\.\.\.|…)\s*\}")
_NOT_CRITERIA = {"score", "scores", "reasoning", "reason", "explanation", "criterion", "criteria"}
_BULLET = re.compile(r"^\s*(?:\d+[.)]|[-*•])\s*[\"'`*]*([a-z][a-z0-9_]*)[\"'`*]*\s*(?:$|[:(-])", re.MULTILINE)
_EXPLAINED = re.compile(r"\breasoning|\bexpla[in]|\bjustif|\brationale|\"reason\"")
_UNEXPLAINED = re.compile(
    r"\bscores? (?:alone|only)\b|\bonly (?:the )?(?:\w+ )?scores?\b"
    r"|\b(?:no|not|without|omit|skip|leave out)(?: \w+){0,2} (?:reasoning|expla[in]|justif|rationale)"
)


class BadChatError(Exception):
    """A body that is no chat completion request; `str()` says what is wrong with it."""


@dataclass(slots=True)
class Chat:
    """A chat completion request.

    Attributes:
        model: As sent.
        text: The contents of all messages.
        asked: The content of the last message by the user, or of the last one.
        kind: What is asked for.
        plain: Whether the model is one that writes shorter and plainer prose.
        max_tokens: The limit of the answer, or None.
        stream: Whether the answer is to be a stream, and `stream_usage` whether that reports its usage.
        digest: SHA-256 of the fields that decide the answer.
    """

    model: str
    text: str
    asked: str
    kind: Kind
    plain: bool
    max_tokens: int | None
    stream: bool
    stream_usage: bool
    digest: bytes


def read_chat(body: bytes) -> Chat:
    """Read the body of a request.

    Raises:
        BadChatError: It is no chat completion request that can be answered.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadChatError(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadChatError("the body is not a JSON object")
    model, messages = document.get("model"), document.get("messages")
    if not isinstance(model, str) or not model:
        raise BadChatError("model is missing")
    if not isinstance(messages, list) or not messages:
        raise BadChatError("messages is missing or empty")
    options = document.get("stream_options")
    contents = [_content(message) for message in messages]
    by_user = [
        text for text, message in zip(contents, messages, strict=True) if message.get("role") == "user"
    ]
    text, asked = "\n".join(contents), (by_user or contents)[-1]
    temperature = document.get("temperature")
    if temperature is not None and not isinstance(temperature, int | float):
        raise BadChatError("temperature is not a number")
    warm = temperature is not None and temperature >= _PLAIN_TEMPERATURE
    return Chat(
        model=model,
        text=text,
        asked=asked,
        kind=_formed(document, recognise(text, asked)),
        plain=warm or any(word in model.lower() for word in _PLAIN_MODELS),
        max_tokens=_max_tokens(document),
        stream=bool(document.get("stream")),
        stream_usage=isinstance(options, dict) and bool(options.get("include_usage")),
        digest=sha256(orjson.dumps([document.get(name, _ABSENT.get(name)) for name in _DECISIVE])).digest(),
    )


def _content(message: object) -> str:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        content = "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if not isinstance(content, str):
        raise BadChatError("a message has no content")
    return content


def _max_tokens(document: dict[str, Any]) -> int | None:
    limit = document.get("max_completion_tokens", document.get("max_tokens"))
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise BadChatError("the token limit is not a positive whole number")
    return limit


def _formed(document: dict[str, Any], kind: Kind) -> Kind:
    """What is asked for: where the messages do not speak of JSON, what the schema says, if there is one."""
    form = document.get("response_format")
    schema = form.get("json_schema") if isinstance(form, dict) else None
    if kind is not Kind.PROSE or not isinstance(schema, dict):
        return kind
    forms = {"items": Kind.PROMPTS, "comparison": Kind.COMPARISON, "checks": Kind.CHECKS}
    return forms.get(str(schema.get("name")), Kind.JUDGE)


def recognise(text: str, asked: str) -> Kind:
    """What messages ask for; `asked` is the last by the user, `text` all of them."""
    lowered = text.lower()
    if "json" not in lowered:
        return Kind.PROSE
    for form, kind in _FORMS:
        if form.search(lowered):
            return kind
    wants_list = _LIST.search(lowered) is not None
    # What stands in quotes is a topic, which may be about anything, or a key of an example.
    unquoted = _QUOTES.sub("", lowered)
    if '"score' in lowered or _SCORE.search(unquoted) or ("criteri" in unquoted and not wants_list):
        return Kind.JUDGE
    if not wants_list:
        return Kind.PROSE
    wish = _QUOTES.sub("", asked.lower())
    subtopics, prompts = _SUBTOPICS.search(wish), wish.find("prompts")
    if subtopics and not 0 <= prompts < subtopics.start():
        return Kind.SUBTOPICS
    return Kind.PROMPTS


def about(kind: Kind, asked: str) -> str:
    """What a request is about: its subtopic or topic, else the beginning of its last line."""
    if kind is Kind.PROSE:
        return _quoted(asked) or " ".join(asked.strip().rpartition("\n")[2].split()[:8]).rstrip(".,;:!?")
    if kind is Kind.PROMPTS:
        for pattern in (_QUOTED_SUBTOPIC, _NAMED_SUBTOPIC):
            if match := pattern.search(asked):
                return match[1].strip()
    # A prompt template names the topic first and the subtopic, which is narrower, after it.
    led: list[str] = _QUOTED_AFTER.findall(asked)
    return led[-1 if kind is Kind.PROMPTS else 0] if led else _quoted(asked)


def _quoted(text: str) -> str:
    match = _QUOTED.search(text)
    return match[1] if match else ""


def count(asked: str) -> int:
    """How many items are asked for: the first whole number outside quotes, 1 to 10,000; else 5."""
    for match in _COUNT.finditer(_QUOTES.sub("", asked)):
        if match[1] and 1 <= int(match[1]) <= _MAX_COUNT:
            return int(match[1])
    return _DEFAULT_COUNT


def criteria(text: str) -> tuple[str, ...]:
    """The criteria of a rubric: the keys of its JSON example, else its listed names, else a usual three.

    An example that ends in an ellipsis does not name them all, so there the list comes first.
    """
    for pattern in (_BULLET, _KEY) if _ELLIPSIS.search(text) else (_KEY, _BULLET):
        names = dict.fromkeys(name for name in pattern.findall(text) if name.lower() not in _NOT_CRITERIA)
        if names:
            return tuple(names)[:_MAX_CRITERIA]
    return _DEFAULT_CRITERIA


def complete(chat: Chat, seed: bytes, behaviour: Behaviour) -> bytes:
    """The JSON of a chat completion. Tokens are counted as four characters each, rounded up."""
    content = "" if happens(behaviour.empty, seed, "empty") else _content_for(chat, seed, behaviour)
    reasoning = None
    if happens(behaviour.reasoning, seed, "reasoning"):
        reasoning = demo_text.prose(about(chat.kind, chat.asked), b"reasoning" + seed, plain=True)
    full = content, reasoning
    if chat.max_tokens is not None:
        room = chat.max_tokens * _CHARACTERS_PER_TOKEN
        reasoning = reasoning and reasoning[:room]
        content = content[: room - len(reasoning or "")]
    message = {"role": "assistant", "content": content}
    if reasoning is not None:
        message["reasoning_content"] = reasoning
    asked, answered = _tokens(chat.text), _tokens(content) + _tokens(reasoning or "")
    finish_reason = "stop" if (content, reasoning) == full else "length"
    usage = {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
    return orjson.dumps(
        {
            "id": f"chatcmpl-{seed.hex()[:24]}",
            "object": "chat.completion",
            "created": _CREATED,
            "model": chat.model,
            "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
            "usage": usage,
        }
    )


def _tokens(text: str) -> int:
    return -(-len(text) // _CHARACTERS_PER_TOKEN)


def _content_for(chat: Chat, seed: bytes, behaviour: Behaviour) -> str:
    if chat.kind is Kind.PROSE:
        return _prose(chat, seed, behaviour)
    if chat.kind is Kind.JUDGE:
        reasons = bool(_EXPLAINED.search(chat.text.lower())) and not _UNEXPLAINED.search(chat.text.lower())
        answer: object = demo_text.scores(criteria(chat.text), chat.asked, seed, reasons=reasons)
    elif chat.kind is Kind.COMPARISON:
        first, second = _two(chat.asked)
        answer = demo_text.comparison(first, second, seed)
    elif chat.kind is Kind.CHECKS:
        numbers = dict.fromkeys(_QUESTION.findall(chat.asked))
        answer = demo_text.checks(tuple(numbers) or ("1", "2"), chat.asked, seed)
    else:
        subject, wanted = about(chat.kind, chat.asked), count(chat.asked)
        answer = demo_text.list_items(chat.kind, subject, wanted, seed, behaviour.repeat)
    content = orjson.dumps(answer).decode()
    if happens(behaviour.bad, seed, "bad"):
        return content[: len(content) // 2] if seed[0] % 2 else "Let me think about that for a while."
    return content


def _two(asked: str) -> tuple[str, str]:
    """The two texts that are to be compared: what stands before and behind the mark of the second."""
    mark = _SECOND.search(asked)
    place = mark.start() if mark else len(asked) // 2
    return asked[:place], asked[place:]


def _prose(chat: Chat, seed: bytes, behaviour: Behaviour) -> str:
    if happens(behaviour.refuse, seed, "refuse"):
        return demo_text.refusal(seed)
    length = behaviour.length * (behaviour.plain_length if chat.plain else 1.0)
    content = demo_text.prose(about(chat.kind, chat.asked), seed, plain=chat.plain, length=length)
    if happens(behaviour.cut, seed, "cut"):
        return content[: len(content) * 2 // 3].rpartition(" ")[0].rstrip(".,;:")
    return content


CONTENT_TYPE = "text/event-stream"

_PIECE = 40
"""Characters of an event, as many as a few tokens have."""


def events(completion: bytes, *, usage: bool, unfinished: bool) -> bytes:
    """The stream that says what a completion says.

    Args:
        completion: The JSON of a chat completion.
        usage: Whether the last chunk is to report the usage.
        unfinished: Leave out the end: half of the chunks, the finish reason and `[DONE]`.
    """
    whole = orjson.loads(completion)
    choice = whole["choices"][0]
    common = {name: whole[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}]
    for name in ("reasoning_content", "content"):
        text = choice["message"].get(name) or ""
        deltas += [{name: text[start : start + _PIECE]} for start in range(0, len(text), _PIECE)]
    chunks = [common | {"choices": [_choice(delta, None)]} for delta in deltas]
    if unfinished:
        return b"".join(map(_event, chunks[: len(chunks) // 2 + 1]))
    chunks.append(common | {"choices": [_choice({}, choice["finish_reason"])]})
    if usage:
        chunks.append(common | {"choices": [], "usage": whole["usage"]})
    return b"".join(map(_event, chunks)) + b"data: [DONE]\n\n"


def _choice(delta: dict[str, str], finish_reason: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason}


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"
