"""The form of a request that a server takes: found out by what it refuses, and remembered for the process.

Nothing of it is part of a request's key: an answer stays the same one however it was asked for.

A question is refused for good only when the server answers others of its kind: then it is replaced. Where it
answers none, it is the endpoint, whatever it says: the run stops in order, and nothing is taken for final.
Who asks a question for the second time, at the end of its phase, finds out.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from tasks.core.chat.refusable import HIGHEST, RESPONSE_FORMAT, SYSTEM, TOKEN_LIMIT, UNKEPT, entry_of
from tasks.core.exchange.attempt import Verdict
from tasks.core.exchange.request import Form, Refused

if TYPE_CHECKING:
    from collections.abc import Hashable
    from contextlib import AbstractAsyncContextManager

    from tasks.core.chat.transport import Manner
    from tasks.core.errors import RefusedError
    from tasks.core.exchange.attempt import AttemptError
    from tasks.core.exchange.request import ChatRequest, Structure, TokenLimit


ALONE: Final = 5.0
"""Seconds for which the first request of a kind is alone: a refusal comes at once, an answer may take
long."""


@dataclass(slots=True)
class Known:
    """What is known of one model at one server, and outlives a run.

    Attributes:
        form: The form that it takes, as far as it was found out.
        answered: The kinds of request that it has answered.
        shapes: The schemas that it has answered in this structure.
        left_out: What it was found not to take, in words, by name.
        before_guessing: The structure that was given up without a word of the server about it, until an
            answer in a weaker one shows that this was right; None where none was.
        guessed: Whether that was tried, and was not right.
        unreadable: Answers in a row that did not keep to the form.
    """

    form: Form
    answered: set[Hashable] = field(default_factory=set)
    shapes: set[str] = field(default_factory=set)
    left_out: dict[str, str] = field(default_factory=dict)
    before_guessing: Structure | None = None
    guessed: bool = False
    unreadable: int = 0


class Learned:
    """What was found out about all models in this process, so that the next run in it begins with that.

    Args:
        alone: Seconds for which the first request of a kind is alone.
    """

    def __init__(self, alone: float = ALONE) -> None:
        self.alone = alone
        self._known: dict[Hashable, Known] = {}

    def of(self, key: Hashable, first: Form) -> Known:
        """What is known under a key: the model, its address, and what is configured of the form."""
        return self._known.setdefault(key, Known(first))

    def forget(self) -> None:
        """Begin anew."""
        self._known.clear()


LEARNED: Final = Learned()
"""That of this process."""

log = logging.getLogger("vellumforge.negotiation")

IN_A_ROW: Final = 2
"""Answers that did not keep to the form, after which it is weakened."""

_AT_ONCE: Final = nullcontext()
_ANY: Final = ()
"""The kind of a model's very first request."""


class Negotiation:
    """What is known about the form that one model at one server takes; `auto` is open to being learned."""

    def __init__(
        self,
        structured_output: Literal["auto", "json_schema", "json_object", "off"] = "auto",
        max_tokens_parameter: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto",
        *,
        use_streaming: bool = False,
        model: str = "the model",
        wanted: frozenset[str] = frozenset(),
        adapts: bool = True,
        learned: Learned | None = None,
        key: Hashable = (),
    ) -> None:
        """Begin with what was learned before.

        Args:
            structured_output: How shapes are asked for.
            max_tokens_parameter: The name of the token limit.
            use_streaming: Whether answers are asked for piece by piece.
            model: The model's name, for messages.
            wanted: The parameters that the user has set: of two that exclude each other, the other one goes.
            adapts: Whether a parameter that the server does not take is left out.
            learned: What the process knows; left out, nothing.
            key: The place of this model in it, all that decides the form among it.
        """
        self._forced = structured_output != "auto"
        self._limit_forced = max_tokens_parameter != "auto"
        self._wanted = wanted
        self._adapts = adapts
        self._model = model
        first = Form(
            structure="json_schema" if structured_output == "auto" else structured_output,
            token_limit="max_tokens" if max_tokens_parameter == "auto" else max_tokens_parameter,
            streaming=use_streaming,
            stream_usage=use_streaming,
        )
        learned = learned or Learned()
        self._known = learned.of(key, first)
        self._alone = learned.alone
        self._under_way: dict[Hashable, asyncio.Event] = {}
        self._open: set[Hashable] = set()
        self._released = self._alone <= 0
        for notice in self._known.left_out.values():
            log.warning("%s", notice)

    @property
    def token_limit(self) -> TokenLimit:
        """The name of the token limit."""
        return self._known.form.token_limit

    @property
    def streaming(self) -> bool:
        """Whether answers are asked for piece by piece."""
        return self._known.form.streaming

    @property
    def left_out(self) -> tuple[str, ...]:
        """What the model was found not to take, each in one line."""
        return tuple(self._known.left_out.values())

    def structure(self, request: ChatRequest) -> Structure:
        """How the answer's shape is asked for; `off` for prose, and for a question that is asked plainly."""
        return self._known.form.structure if request.schema and not self._plainly(request) else "off"

    def _plainly(self, request: ChatRequest) -> bool:
        return request.plainly and not self._forced

    def form(self, request: ChatRequest) -> Form:
        """The form that the server is known to take for a request."""
        form = self._known.form
        structure = self.structure(request)
        return form if structure == form.structure else replace(form, structure=structure)

    def manner(self, request: ChatRequest, manner: Manner) -> Manner:
        """The manner of the next attempt: as given, in the form that the server is known to take."""
        form = self.form(request)
        return replace(
            manner,
            structure=form.structure,
            token_limit=form.token_limit,
            most_tokens=form.most_tokens,
            streaming=form.streaming,
            stream_usage=form.stream_usage,
            left_out=form.left_out,
            system=form.system,
        )

    def turn(self, request: ChatRequest) -> AbstractAsyncContextManager[Any]:
        """What an attempt at a request is made in.

        Requests of a kind wait for the first of them to be answered: what is refused is then refused once,
        not as often as there are requests under way. After that nobody waits, nor when the first one takes
        longer than any refusal.
        """
        kind = _kind(request)
        return _AT_ONCE if self._may_go(kind) else _Turn(self, kind)

    def _may_go(self, kind: Hashable) -> bool:
        answered = self._known.answered
        known = bool(answered) if kind == _ANY else kind in answered
        return known or kind in self._open or self._released

    def release(self) -> None:
        """Let everybody go on who waits for a first answer: the run stops."""
        self._released = True
        for event in self._under_way.values():
            event.set()

    async def begin(self, kind: Hashable) -> bool:
        """Wait for the request of this kind that is under way; whether it is now the caller's turn alone."""
        while not self._may_go(kind):
            waited = self._under_way.get(kind)
            if waited is None:
                self._under_way[kind] = event = asyncio.Event()
                asyncio.get_running_loop().call_later(self._alone, self._open_slow, kind, event)
                return True
            await waited.wait()
        return False

    def _open_slow(self, kind: Hashable, event: asyncio.Event) -> None:
        if not event.is_set():
            self._open.add(kind)
            event.set()

    def end(self, kind: Hashable) -> None:
        """The request that was alone is answered, or failed: the others look again."""
        self._under_way.pop(kind).set()

    def answered(self, request: ChatRequest, structure: Structure) -> None:
        """Note that a request was answered in this structure: its kind is taken."""
        known = self._known
        known.answered.add(_kind(request))
        if request.schema and not request.plainly and structure == known.form.structure:
            known.shapes.add(request.schema)
            known.before_guessing, known.guessed = None, False

    def learn(self, error: AttemptError, request: ChatRequest | None = None) -> bool:
        """Learn from a refusal of the form.

        Args:
            error: What the server refused.
            request: What was asked, where it is known whether its like was answered.

        Returns:
            True when there is another form now, in which the request is sent again at once, at no cost of a
            retry; False when nothing was learned: what the error says beside that counts.
        """
        if not error.refused:
            self._take_back(error)
            return False
        if error.refused[0].name == UNKEPT:
            tried = error.refused[0].tried
            return self.unreadable(tried, step="off") and tried != "off"
        if error.refused[0].guessed:
            return self._guess(error.refused[0], request.schema if request else "")
        learned = [self._yield(refused) for refused in error.refused]
        return all(learned)

    def unreadable(self, tried: str, step: str = "") -> bool:
        """Note an answer that did not keep to the form in which it was asked for.

        Args:
            tried: The structure that was asked for.
            step: The next one, where it is not the table's.

        Returns:
            Whether that form is given up by now.
        """
        known = self._known
        if tried != known.form.structure:
            return True
        known.unreadable += 1
        if known.unreadable < IN_A_ROW:
            return False
        weaker = entry_of(RESPONSE_FORMAT).yields(known.form, Refused(RESPONSE_FORMAT, tried, step))
        if self._forced or weaker is None:
            return False
        log.info("%s does not keep to %s: asked for as %s", self._model, tried, weaker.structure)
        self._reshape(weaker)
        return True

    def readable(self) -> None:
        """Note an answer that kept to the form."""
        self._known.unreadable = 0

    def refused_setting(self, error: AttemptError) -> str:
        """What of the settings a server refuses for good, and what helps: the message that ends the run."""
        names = [refused.name for refused in error.refused]
        named = " and ".join(names)
        if not self._adapts and all(map(_changes, names)):
            return (
                f"does not take {named}: set {' and '.join(_fix(name) for name in names)}, "
                'or unsupported = "adapt" to leave it out'
            )
        return f"does not take {named} as it is set"

    def _yield(self, refused: Refused) -> bool:
        known, form = self._known, self._known.form
        name = self._loser(refused.rivals) if refused.rivals else refused.name
        refused = replace(refused, name=name)
        entry = entry_of(name)
        if not self._adapts and _changes(name):
            return False
        if self._forced and name == RESPONSE_FORMAT:
            # It stays what it is set to; its bounds alone may go.
            if refused.tried != "json_schema":
                return False
            refused = replace(refused, step="plain_schema")
        if self._limit_forced and name == TOKEN_LIMIT:
            return False
        following = entry.yields(form, refused)
        if following is None:
            return False
        if following.structure != form.structure:
            self._reshape(following)
        elif following != form:
            known.form = following
        if entry.notice and following != form:
            self._say(name, entry.notice.format(name=name, step=refused.step))
        return True

    def _loser(self, rivals: tuple[str, ...]) -> str:
        """Which of two parameters that exclude each other goes: the one that nobody set, else top_p."""
        gone = [name for name in rivals if name in self._known.form.left_out]
        unset = [name for name in rivals if name not in self._wanted]
        if gone or len(unset) == 1:
            return (gone or unset)[0]
        return "top_p" if "top_p" in rivals else rivals[0]

    def _reshape(self, form: Form) -> None:
        known = self._known
        known.form = form
        known.shapes.clear()
        known.unreadable = 0
        # What follows is asked for in another shape: again one goes first.
        known.answered = {kind for kind in known.answered if not _is_shaped(kind)}

    def _guess(self, refused: Refused, schema: str) -> bool:
        """Try a weaker shape where the error may mean that."""
        known = self._known
        if refused.tried != known.form.structure:
            return True
        if self._forced or known.guessed or schema in known.shapes:
            # It was taken before, or weaker ones did not help: it is something else.
            self._restore()
            return False
        weaker = entry_of(RESPONSE_FORMAT).yields(known.form, refused)
        if weaker is None:
            return False
        before = known.before_guessing or known.form.structure
        self._reshape(weaker)
        known.before_guessing = before
        return True

    def _take_back(self, error: AttemptError) -> None:
        """Undo what was guessed, when the plainest request is refused as well."""
        if error.verdict in {Verdict.GIVE_UP, Verdict.FATAL} and self._known.form.structure == "off":
            self._restore()

    def _restore(self) -> None:
        known = self._known
        if known.before_guessing is not None:
            self._reshape(replace(known.form, structure=known.before_guessing))
            known.before_guessing, known.guessed = None, True

    def _say(self, name: str, notice: str) -> None:
        line = f"{self._model} {notice}"
        if self._known.left_out.get(name) != line:
            self._known.left_out[name] = line
            log.warning("%s", line)


class _Turn:
    """An attempt that waits while another of its kind is the first one."""

    def __init__(self, negotiation: Negotiation, kind: Hashable) -> None:
        self._negotiation = negotiation
        self._kind = kind
        self._alone = False

    async def __aenter__(self) -> None:
        # Until a model has answered anything, whatever it is asked waits for that: what it refuses of one
        # kind, it refuses of the others.
        kind, self._kind = self._kind, _ANY
        self._alone = await self._negotiation.begin(_ANY)
        if not self._alone:
            self._kind = kind
            self._alone = await self._negotiation.begin(kind)

    async def __aexit__(self, *_: object) -> None:
        if self._alone:
            self._negotiation.end(self._kind)


def _kind(request: ChatRequest) -> Hashable:
    """What a server may refuse a request for, but for its words: those of one kind are refused alike."""
    parameters = request.parameters
    return (
        "" if request.plainly else request.schema,
        request.messages[0][0],
        tuple(parameters),
        parameters.get("temperature"),
        parameters.get("top_p"),
        parameters.get("max_tokens"),
    )


def _is_shaped(kind: Any) -> bool:
    return bool(kind[0])


def _changes(name: str) -> bool:
    """Whether answers may differ without it."""
    return bool(entry_of(name).notice)


def _fix(name: str) -> str:
    """How a configuration asks for no such thing."""
    if name in {"temperature", "top_p"}:
        return f'{name} = "unset"'
    return {HIGHEST: "a lower max_output_tokens", SYSTEM: "no system prompt"}.get(name, f"no {name}")


SEVERAL = 10
"""Refusals without an answer between them, after which the endpoint itself is in doubt."""


@dataclass(slots=True)
class _Refusal:
    """A question that was refused once: what it was refused with, and the proofs that there were by then."""

    error: RefusedError
    proofs: int


@dataclass(slots=True)
class Doubt:
    """What is known of how a server takes questions of one kind.

    Attributes:
        proofs: How often it was seen to answer one: a question of the run, or a small one for control.
        answered: Questions of the run that it answered.
        in_a_row: Refusals since the last answer of any kind.
        turn: Held by the one that asks the small question.
    """

    proofs: int = 0
    answered: int = 0
    in_a_row: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _refused: dict[bytes, _Refusal] = field(default_factory=dict)

    def answer(self) -> None:
        """A question of the run was answered."""
        self.answered += 1
        self.prove()

    def prove(self) -> None:
        """The endpoint answers questions of this kind."""
        self.proofs += 1
        self.in_a_row = 0

    def refuse(self, key: bytes, error: RefusedError) -> bool:
        """A question was refused; whether it was before."""
        self.in_a_row += 1
        again = key in self._refused
        self._refused.setdefault(key, _Refusal(error, self.proofs))
        return again

    @property
    def deep(self) -> bool:
        """Whether so many were refused in a row that the endpoint itself is in doubt."""
        return self.in_a_row >= SEVERAL

    @property
    def hopeless(self) -> bool:
        """Whether no question of this run is answered, although a small one is."""
        return not self.answered and len(self._refused) >= 2 * SEVERAL

    def decided(self, key: bytes) -> RefusedError | None:
        """The refusal of a question that need not be asked again to know that it is refused for good.

        The server says that it is for what is in it, and has answered another one since.
        """
        refusal = self._refused.get(key)
        if refusal is None or not refusal.error.about_content or refusal.proofs == self.proofs:
            return None
        return refusal.error
