"""Helpers to talk to the demo model server in tests: templates, requests over httpx and over bare sockets."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx

from tasks.core.demo.server import DemoServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tasks.core.demo.server import Behaviour

SUBTOPICS = (
    'Generate {n} different subtopics of "{topic}".\nAnswer with a JSON array of strings and nothing else.'
)
PROMPTS = """Generate {n} writing prompts for subtopic: "{topic}".
Each is one or two sentences with a character and a conflict.
Answer with a JSON array of strings and nothing else."""
STORY = "Write a short story of 400 to 600 words for this prompt:\n\n{prompt}"
JUDGE = """Score the story below on every criterion from 1 to 5, with one sentence of reasoning each.

PROMPT: Something.
STORY: {story}

Criteria:
1. plot_quality
2. creativity
3. writing_quality

Answer with JSON only: {{"plot_quality": {{"score": 3, "reasoning": "..."}}, ...}}"""
CHAT = "/chat/completions"
RAW = b"POST /v1/chat/completions HTTP/1.1\r\nHost: demo\r\n"


def body(text: str, model: str = "strong-writer", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


@asynccontextmanager
async def serving(behaviour: Behaviour | None = None) -> AsyncIterator[tuple[DemoServer, httpx.AsyncClient]]:
    async with (
        DemoServer(behaviour) as server,
        httpx.AsyncClient(base_url=server.base_url, trust_env=False) as client,
    ):
        yield server, client


async def ask(client: httpx.AsyncClient, text: str, key: str = "00", **fields: Any) -> dict[str, Any]:
    response = await client.post(CHAT, json=body(text, **fields), headers={"Idempotency-Key": key})
    assert response.status_code == 200
    answer: dict[str, Any] = response.json()
    return answer


async def say(client: httpx.AsyncClient, text: str, key: str = "00", **fields: Any) -> str:
    answer = await ask(client, text, key, **fields)
    content: str = answer["choices"][0]["message"]["content"]
    return content


async def until_in_flight(server: DemoServer, number: int) -> None:
    while (await get(server, "/stats"))["in_flight"] != number:
        pass


async def get(server: DemoServer, path: str) -> Any:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(f"http://{server.host}:{server.port}{path}")).json()


@asynccontextmanager
async def connected(server: DemoServer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


def raw_body(text: str, *headers: str) -> bytes:
    content = json.dumps(body(text)).encode()
    lines = "".join(f"{line}\r\n" for line in headers)
    return f"{lines}Content-Length: {len(content)}\r\n\r\n".encode() + content


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, Any]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = re.search(r"Content-Length: (\d+)", head)
    assert length is not None
    return int(head.split()[1]), json.loads(await reader.readexactly(int(length[1])))
