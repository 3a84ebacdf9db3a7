"""The marks of machinery that models and servers leave in a text: one table of them, and how to find them.

Two kinds: marks around reasoning, which `thinking` splits a text at, and special tokens of chat templates,
which are cut off its ends. What stands in backticks is spoken about and is no mark. All patterns are bounded,
so that a search takes time linear in the length of the text.
"""

from __future__ import annotations

import re
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OPEN, CLOSE = "open", "close"
"""Around reasoning, wherever it stands."""
LEADING_OPEN, LEADING_CLOSE = "leading_open", "leading_close"
"""Around reasoning where it begins a text; anywhere else these are words of XML like any other."""
RESPONSE, RESPONSE_END = "response", "response_end"
"""Around an answer that is marked itself; its beginning also ends the reasoning before it."""
HEADER, CHANNEL, BODY, BODY_END = "header", "channel", "body", "body_end"
"""Of messages with a header: its beginning, the channel in it, the body after it, and that body's end."""
REASONING_BODY, ANSWER_BODY = "reasoning_body", "answer_body"
"""The same in one mark."""

MESSAGES: Final = frozenset({HEADER, CHANNEL, BODY, BODY_END, REASONING_BODY, ANSWER_BODY})
"""The marks of messages with headers."""

_ATTRIBUTES: Final = r"(?:\s[^<>]{0,200})?(?<!/)"
_NAMESPACE: Final = r"(?:[a-z][\w.-]{0,30}:)?"
# <seed:think>, <think:name>, <longcat_think>; a longer word such as <rethink> is another.
_THINK: Final = rf"(?i:{_NAMESPACE}(?:think|thinking|思考|思考过程)(?::[\w-]{{1,30}})?|[a-z]{{1,20}}_think)"
_THOUGHT: Final = (
    rf"(?i:{_NAMESPACE}(?:thoughts?|thought_process|thinking_process|reasoning|reason|reflection|"
    r"scratch_?pad))"
)

# What follows a "<". The models or families that write a mark are named where the mark does not name them.
_AFTER_ANGLE: Final[dict[str, tuple[str, ...]]] = {
    OPEN: (
        rf"{_THINK}{_ATTRIBUTES}>",
        r"[|｜]think(?:ing)?[|｜]>",  # noqa: RUF001 - DeepSeek's tokens have full-width bars
        r"\|START_THINKING\|>",  # Command A
        r"\|begin_of_thought\|>",  # Sky-T1, OpenThinker
        r"\|inner_prefix\|>",  # Apertus
        r"\|open\|>think<\|sep\|>",  # Kimi K3
        r"\|channel>(?:thought\b\n?)?",  # Gemma 4
        r"ctrl94>(?:thought\b\n?)?",  # Gemini
        r"unused94>(?:thought\b\n?)?",  # MedGemma
    ),
    CLOSE: (
        rf"/{_THINK}\s{{0,20}}>",
        r"[|｜]/think(?:ing)?[|｜]>",  # noqa: RUF001 - as above
        r"\|END_THINKING\|>",
        r"\|end_of_thought\|>",
        r"\|inner_suffix\|>",
        r"\|close\|>think<\|sep\|>",
        r"channel\|>",
        r"ctrl95>",
        r"unused95>",
    ),
    LEADING_OPEN: (rf"{_THOUGHT}{_ATTRIBUTES}>",),  # EXAONE Deep, Marco-o1, Reflection
    LEADING_CLOSE: (rf"/{_THOUGHT}\s{{0,20}}>",),
    RESPONSE: (r"\|START_RESPONSE\|>", r"\|begin_of_solution\|>", r"\|open\|>response<\|sep\|>"),
    RESPONSE_END: (
        r"\|END_RESPONSE\|>",
        r"\|end_of_solution\|>",
        r"\|close\|>(?:response|message)<\|sep\|>",
    ),
    HEADER: (r"\|start\|>", r"\|message_model\|>"),  # gpt-oss; Inkling
    CHANNEL: (r"\|channel\|>",),
    BODY: (r"\|message\|>",),
    REASONING_BODY: (r"\|content_thinking\|>",),
    ANSWER_BODY: (r"\|content_text\|>",),
    BODY_END: (r"\|(?:end|return|call|end_message|content_model_end_sampling)\|>",),
}

_OTHER_BRACKETS: Final = (("◁", "▷"), ("＜", "＞"), ("⟨", "⟩"), ("〈", "〉"), ("【", "】"))  # noqa: RUF001
_OTHERS: Final = "|".join(f"{left}{{}}(?i:think|thinking){right}" for left, right in _OTHER_BRACKETS)


def _kinds(table: dict[str, tuple[str, ...]]) -> str:
    return "|".join(f"(?P<{kind}>{'|'.join(patterns)})" for kind, patterns in table.items())


# A first character that is fixed, and a look at the second, make a search quick: most texts with a "<" have
# no mark.
_ANGLES: Final = re.compile(f"<(?=[A-Za-z/|｜思])(?:{_kinds(_AFTER_ANGLE)})")  # noqa: RUF001
_SQUARES: Final = re.compile(r"\[(?:(?P<open>THINK\]|unused16\])|(?P<close>/THINK\]|unused17\]))")
_RARE: Final = re.compile(f"(?P<open>{_OTHERS.format(*[''] * 5)})|(?P<close>{_OTHERS.format(*'/////')})")

# Granite writes its marks as sentences.
_PROSE_OPEN: Final = re.compile(r"\s*(?P<open>Here(?: is|['’]s) my thought process:)")  # noqa: RUF001
_PROSE_RESPONSE: Final = re.compile(r"Here(?: is|['’]s) my response:")  # noqa: RUF001
# What is left of gpt-oss's headers when a server takes their tokens out.
_BARE_FIRST: Final = re.compile(
    r"\s*(?:assistant)?(?:analysis|commentary)(?=[A-Z0-9\"“*#]|[^\x00-\u2fff])|\s*assistantfinal"
)
_BARE_PROSE: Final = re.compile(r"[A-Z][A-Za-z'’]*[,;.!?]?\s+[\w\"“'‘(]")  # noqa: RUF001
_BARE: Final = re.compile("assistant(analysis|commentary|final)")
_SENTENCE_ENDS: Final = tuple('.!?…"”’)]}*`。！？')  # noqa: RUF001
_FIRST_LETTERS: Final = re.compile(r"\s*(?:Here|analysis|assistant|commentary)")


class Mark(NamedTuple):
    """A mark in a text.

    Attributes:
        start: Where it begins.
        end: Where it ends.
        kind: One of the kinds above.
        text: How it is written; of bare headers: the channel.
    """

    start: int
    end: int
    kind: str
    text: str


def may_have_marks(text: str) -> bool:
    """Whether it is worth while to look for marks: false for most texts, and quick."""
    return (
        "<" in text
        or ("[" in text and _SQUARE_HINT.search(text) is not None)
        or (not text.isascii() and any(left in text for left, _ in _OTHER_BRACKETS))
        or _FIRST_LETTERS.match(text) is not None
        or "assistantfinal" in text
    )


def reasoning_marks(text: str, *, cut: bool = False) -> list[Mark]:
    """The marks around reasoning and answers, in their order, without those in backticks.

    Args:
        text: The text.
        cut: Whether it is known to be cut off, so that a mark in words may lack its other half.
    """
    found = list(_found(_ANGLES, text)) if "<" in text else []
    if "[" in text:
        found += _found(_SQUARES, text)
    if not text.isascii() and any(left in text for left, _ in _OTHER_BRACKETS):
        found += _found(_RARE, text)
    if not any(mark.kind in MESSAGES and mark.kind != BODY_END for mark in found):
        # <|end|> alone is a token like any other.
        found = [mark for mark in found if mark.kind != BODY_END]
        found += _prose_marks(text, cut=cut) or _bare_marks(text, cut=cut)
    found.sort(key=attrgetter("start"))
    return found


def _found(pattern: re.Pattern[str], text: str) -> Iterator[Mark]:
    for match in pattern.finditer(text):
        start = match.start()
        if start and text[start - 1] == "`":
            continue
        yield Mark(start, match.end(), match.lastgroup or "", match[0])


def _prose_marks(text: str, *, cut: bool) -> list[Mark]:
    first = _PROSE_OPEN.match(text)
    if first is None:
        return []
    response = _PROSE_RESPONSE.search(text, first.end())
    if response is None and not cut:
        return []  # A sentence like any other.
    marks = [Mark(first.start(), first.end(), OPEN, first["open"])]
    if response is not None:
        marks.append(Mark(response.start(), response.end(), RESPONSE, response[0]))
    return marks


def _bare_marks(text: str, *, cut: bool) -> list[Mark]:
    first = _BARE_FIRST.match(text)
    final = text.find("assistantfinal")
    if first is None:
        # The first header may be missing; one that follows the end of a sentence is none of its words.
        if final < 1 or text[final - 1] not in _SENTENCE_ENDS:
            return []
    elif final < 0 and not cut and not _BARE_PROSE.match(text, first.end()):
        return []
    marks = []
    if first is not None:
        kind = ANSWER_BODY if first[0].endswith("final") else REASONING_BODY
        marks.append(Mark(first.start(), first.end(), kind, first[0]))
    for match in _BARE.finditer(text, first.end() if first else 0):
        kind = ANSWER_BODY if match[1] == "final" else REASONING_BODY
        marks.append(Mark(match.start(), match.end(), kind, match[0]))
    return marks


# Special tokens.

_ROLES: Final = ("assistant", "model", "user", "system", "tool", "human", "think", "response", "message")
_OWN_ROLES: Final = "assistant|model"
_OTHER_ROLES: Final = "user|system|developer|observation|tool|human"


def _beginnings(words: Iterable[str]) -> str:
    """A pattern for each beginning of these words, the longest first."""
    parts = {word[:length] for word in words for length in range(1, len(word) + 1)}
    return "|".join(sorted(map(re.escape, parts), key=len, reverse=True))


_HEADER_NAMES: Final = (
    "im_start|start_header_id|header_start|start_of_role|im_assistant|im_user|open|close|start"
)
_HEADERS: Final = rf"<\|(?:{_HEADER_NAMES})\|>|<start_of_turn>|<\|turn>"
# A token with bars is one whatever it is called; marks of reasoning are looked for before.
_BARRED: Final = r"<[|｜][A-Za-z][\w▁.-]{0,40}[|｜]>"  # noqa: RUF001
_NAMED: Final = (
    r"<(?:end_of_turn|start_of_turn|eos|bos|pad|unk|eop|sop|eod|ctrl\d{1,3}|SPECIAL_\d{1,4})>"
    r"|<\|(?:turn|tool|tool_call|tool_response)>|<(?:turn|tool|tool_call|tool_response)\|>"
    r"|\[/?INST\]|\[(?:EOS|EOT)\]|\[\|[a-z]{1,20}\|\]|<</?SYS>>|\[gMASK\]"
)
_TOKEN: Final = rf"{_BARRED}|{_NAMED}|</s>"
_INSIDE: Final = re.compile(_TOKEN)
_AT_END: Final = re.compile(rf"(?:{_HEADERS})\s{{0,4}}(?:{_beginnings(_ROLES)})|{_TOKEN}|<s>")
_AT_START: Final = re.compile(
    rf"(?:{_HEADERS})\s?(?:{_OWN_ROLES})\b(?:<\|(?:end_header_id|header_end|end_of_role|im_middle)\|>)?"
    # The turn of someone else is no answer, and not made one by cutting its header off.
    rf"|(?!(?:{_HEADERS})\s?(?:{_OTHER_ROLES})|<[|｜](?i:{_OTHER_ROLES})\b)(?:{_TOKEN}|<s>|\[BOS\])"  # noqa: RUF001
)
_SQUARE_HINT: Final = re.compile(r"\[(?:/?THINK\]|unused1[67]\]|/?INST\]|[BE]O[ST]\]|gMASK\]|\||/?\w{0,9}\Z)")
_CODE: Final = re.compile(r"```[\s\S]*?(?:```|\Z)|`[^`\n]*`")
_LONGEST: Final = 80
"""Characters that the longest token has, with a role."""


def special_token(text: str) -> str:
    """The first special token in a text, "" when there is none: code, and what is in backticks, has none."""
    if "<" not in text and "[" not in text:
        return ""
    found = _INSIDE.search(text)
    if found is None:
        return ""
    if "`" in text:
        text = _CODE.sub("`", text)
    struck = text.find("<s>")
    for found in _INSIDE.finditer(text):
        # </s> after <s> is HTML's.
        if found[0] != "</s>" or not 0 <= struck < found.start():
            return found[0]
    return ""


def without_tokens(text: str) -> str:
    """A text without the special tokens at its ends and the blanks around them; those inside it stay."""
    start, end = 0, len(text)
    # Between <s> and </s> HTML strikes words out.
    struck = text.find("<s>", 1)
    while True:
        end = _back(text, start, end)
        near = max(start, end - _LONGEST)
        begin = max(text.rfind("<", near, end), text.rfind("[", near, end))
        if begin < 0 or text[begin - 1 : begin] == "`":
            break
        token = _AT_END.fullmatch(text, begin, end)
        if token is None or (token[0] == "</s>" and 0 <= struck < begin):
            break
        end = begin
    struck = text.rfind("</s>", 0, end)
    while True:
        while start < end and text[start].isspace():
            start += 1
        token = _AT_START.match(text, start, end)
        if token is None or (token[0] == "<s>" and struck > start):
            return text[start:end]
        start = token.end()


def _back(text: str, start: int, end: int) -> int:
    while end > start and text[end - 1].isspace():
        end -= 1
    return end


# Marks that the end of a text has cut in two.

_WORDS: Final = (
    "Here is my thought process:",
    "Here's my thought process:",
    "analysis",
    "commentary",
    "assistantanalysis",
    "assistantcommentary",
    "assistantfinal",
)


def _each(words: str) -> list[str]:
    return words.split()


_TAGS: Final = (
    *_each("think thinking seed:think mm:think longcat_think 思考 thought thoughts thought_process"),
    *_each("reasoning reason reflection scratchpad answer output response final_answer"),
)
SPELLED: Final = (
    *(f"<{slash}{name}>" for name in _TAGS for slash in ("", "/")),
    *(f"{left}{slash}think{right}" for left, right in _OTHER_BRACKETS for slash in ("", "/")),
    *_each("[THINK] [/THINK] [unused16] [unused17] <|channel>thought <channel|> <ctrl94> <ctrl95>"),
    *_each("</s> <s> [INST] [/INST] [EOS] [BOS] [EOT] [gMASK] <<SYS>> <</SYS>> [|endofturn|]"),
    *_each("<end_of_turn> <start_of_turn> <eos> <bos> <pad> <unk> <eop> <sop>"),
    *_each("<|turn> <turn|> <|tool_call> <tool_call|>"),
)
"""Marks that cannot be told by their shape when they are cut in two. The barred ones can."""

_PARTS: Final = frozenset(mark[:length] for mark in SPELLED for length in range(1, len(mark)))
_WORD_PARTS: Final = frozenset(word[:length] for word in _WORDS for length in range(1, len(word) + 1))
# With bars, with a namespace or with attributes: no table has all of these.
_BARRED_PART: Final = re.compile(
    r"<[|｜](?:/?[A-Za-z][\w▁.-]{0,40}[|｜]?)?|\[\|[a-z]{0,20}\|?"  # noqa: RUF001
    rf"|</?(?:{_THINK}|{_THOUGHT})\s[^<>]{{0,200}}"
    rf"|</?[a-z][\w.-]{{0,30}}:(?:{_beginnings(('think', 'thinking'))})"
)
_STARTS: Final = ("<", "[", *(left for left, _ in _OTHER_BRACKETS))
_LONGEST_PART: Final = 250
_CLEAR: Final = 5
"""Characters from which on the beginning of a spelled mark is not taken for anything else."""
_CLEAR_BARRED: Final = 3


def without_part(text: str, *, sure: bool) -> str:
    """A text without the first half of a mark at its end.

    Args:
        text: The text, without blanks at its end.
        sure: Whether the text is cut off, or has other marks: then a single bracket is part of one, too.
    """
    if sure and text in _WORD_PARTS:
        return ""
    begin = max(text.rfind(start, max(0, len(text) - _LONGEST_PART)) for start in _STARTS)
    if begin < 0:
        return text
    if text.startswith("<<", begin - 1) and text[begin - 1 :] in _PARTS:
        begin -= 1
    part, before = text[begin:], text[:begin].rstrip()
    barred = _BARRED_PART.fullmatch(part) is not None
    if text[begin - 1 : begin] == "`" or not (barred or _PARTS & {part, part.lower()}):
        return text
    clear = len(part) >= (_CLEAR_BARRED if barred else _CLEAR)
    alone = not before and len(part) > 1
    # Prose goes on with neither; and where one token is, there are more.
    glued = before.endswith(_SENTENCE_ENDS) or (bool(before) and without_tokens(before) != before.lstrip())
    return before if sure or clear or alone or glued else text
