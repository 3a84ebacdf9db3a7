"""One attempt at a scripted server, and what every error that comes of one must be like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from tasks.core.chat.server_errors import MESSAGE_LIMIT
from tasks.core.chat.transport import Manner
from tasks.core.exchange.attempt import AttemptError
from tests.core.chat.scripted import SECRET, Scripted, question

if TYPE_CHECKING:
    from tasks.core.chat.http import ChatHttp
    from tasks.core.exchange.request import Answer
    from tests.core.chat.scripted import Reply

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
