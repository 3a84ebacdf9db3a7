"""One attempt at a scripted server, and what every error that comes of one must be like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from tasks.core.llm.http import Manner
from tasks.core.llm.refusals import MESSAGE_LIMIT
from tasks.core.llm.retry import AttemptError
from tests.core.llm.scripted import SECRET, Scripted, question

if TYPE_CHECKING:
    from tasks.core.llm.http import ChatHttp
    from tasks.core.llm.types import Answer
    from tests.core.llm.scripted import Reply

KEY = SecretStr(SECRET)
MESSAGE = {"role": "assistant", "content": "fine"}


async def sent(client: ChatHttp, server: Scripted, *, timeout: float = 30.0, **form: Any) -> Answer:  # noqa: ASYNC109 - the setting
    manner = Manner(KEY, timeout, **form)
    return (await client.send(question(endpoint=server.url), manner)).answer


async def answered(client: ChatHttp, reply: bytes | Reply, **form: Any) -> Answer:
    async with Scripted([reply]) as server:
        return await sent(client, server, **form)


async def failed(client: ChatHttp, reply: bytes | Reply, **form: Any) -> AttemptError:
    """The error that a reply ends in; that it may be shown is checked for every one."""
    with pytest.raises(AttemptError) as caught:
        await answered(client, reply, **form)
    message = str(caught.value)
    assert message.isprintable()
    assert message.strip() == message != ""
    assert len(message) < MESSAGE_LIMIT + 200
    assert SECRET not in message
    return caught.value
