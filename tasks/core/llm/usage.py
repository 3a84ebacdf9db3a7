"""What one call used: as its server reported it, and by estimate where it did not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.core.cost import Usage, tokens_for

if TYPE_CHECKING:
    from tasks.core.llm.types import Answer, ChatRequest


def usage_of(request: ChatRequest, answer: Answer) -> Usage:
    """The usage of a call that was answered."""
    missing = 0
    if answer.prompt_tokens is None:
        missing += tokens_for(sum(len(content) for _, content in request.messages))
    if answer.completion_tokens is None:
        missing += tokens_for(len(answer.content) + len(answer.reasoning))
    prompt_tokens = answer.prompt_tokens or 0
    return Usage(
        calls=1,
        prompt_tokens=prompt_tokens,
        completion_tokens=answer.completion_tokens or 0,
        cached_tokens=min(answer.cached_tokens or 0, prompt_tokens),
        unreported=int(answer.prompt_tokens is None or answer.completion_tokens is None),
        estimated_tokens=missing,
    )
