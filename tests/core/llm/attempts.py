"""One attempt at a scripted server, and what every error that comes of one must be like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from tasks.core.llm.http import MESSAGE_LIMIT
from tasks.core.llm.retry import AttemptError
from tests.core.llm.scripted import SECRET, Scripted, question

if TYPE_CHECKING:
    from tasks.core.llm.http import ChatHttp
    from tasks.core.llm.types import Answer
    from tests.core.llm.scripted import Reply

KEY = SecretStr(SECRET)
MESSAGE = {"role": "assistant", "content": "fine"}


async def sent(client: ChatHttp, server: Scripted, *, timeout: float = 30.0) -> Answer:  # noqa: ASYNC109 - the setting
    return await client.send(question(endpoint=server.url), api_key=KEY, timeout=timeout)


async def answered(client: ChatHttp, reply: bytes | Reply) -> Answer:
    async with Scripted([reply]) as server:
        return await sent(client, server)


async def failed(client: ChatHttp, reply: bytes | Reply) -> AttemptError:
    """The error that a reply ends in; that it may be shown is checked for every one."""
    with pytest.raises(AttemptError) as caught:
        await answered(client, reply)
    message = str(caught.value)
    assert message.isprintable()
    assert message.strip() == message != ""
    assert len(message) < MESSAGE_LIMIT + 100
    assert SECRET not in message
    return caught.value
