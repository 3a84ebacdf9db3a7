"""The form of a request that a server takes, and what of a request it refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tasks.core.llm.schemas import Structure

TokenLimit = Literal["max_tokens", "max_completion_tokens"]


@dataclass(frozen=True, slots=True)
class Form:
    """The form of a request that a server takes; hashable, for what is made of it is kept.

    Attributes:
        structure: How the shape of an answer is asked for.
        token_limit: The name of the token limit.
        most_tokens: Its highest value; 0 where none is known.
        renamed: Whether the limit's other name was refused before.
        streaming: Whether answers come piece by piece.
        stream_usage: Whether such an answer is asked to report its usage.
        left_out: Fields of the body that are not sent.
        system: Whether there may be a message with that role.
    """

    structure: Structure = "json_schema"
    token_limit: TokenLimit = "max_tokens"  # noqa: S105 - a parameter
    most_tokens: int = 0
    renamed: bool = False
    streaming: bool = False
    stream_usage: bool = False
    left_out: frozenset[str] = frozenset()
    system: bool = True


@dataclass(frozen=True, slots=True)
class Refused:
    """Something that a server refused.

    Attributes:
        name: The entry of the table, or a field of `extra_body`.
        tried: What it was in that attempt, such as `json_schema`; "" where it is there or not.
        step: What comes next of a response format or a token limit; "" for the next in the table.
        rivals: The names of two parameters that exclude each other; () elsewhere.
        guessed: Whether nothing says that it was this: the words may mean something else.
    """

    name: str
    tried: str = ""
    step: str = ""
    rivals: tuple[str, ...] = ()
    guessed: bool = False
