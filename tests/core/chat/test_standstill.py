"""A process that is stopped and goes on: what arrived meanwhile is read, whatever its timers say."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.core.chat.scripted import completion
from tests.core.programs import Program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ASK = """
import asyncio, json, sys
from tasks.core.chat.http import ChatHttp
from tasks.core.chat.transport import Manner
from tasks.core.exchange.attempt import AttemptError
from tests.core.chat.scripted import question

async def main(url, number, timeout, streaming):
    manner = Manner(None, float(timeout), streaming=streaming == "stream")
    async with ChatHttp(max_connections=int(number)) as http:
        async def ask(each):
            try:
                return len((await http.send(question(str(each), url), manner)).answer.content)
            except AttemptError as error:
                return error.cause
        print(json.dumps(await asyncio.gather(*map(ask, range(int(number))))), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""

TIMEOUT = 0.8
EVENT = 'data: {"choices": [{"delta": {"content": "%s"}, "finish_reason": %s}]}\n\n'


class Holding:
    """A server that answers nothing, or no more than a stream's beginning, before it is told to.

    Attributes:
        requests: Those that came.
        handed: Answers that were handed to the system whole.
    """

    def __init__(self, expected: int, size: int, *, streaming: bool) -> None:
        self.requests = self.handed = 0
        self.all_there = asyncio.Event()
        self.go = asyncio.Event()
        self.all_handed = asyncio.Event()
        self._expected = expected
        self._text = "x" * size
        self._streaming = streaming

    @asynccontextmanager
    async def listening(self, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        try:
            scheme = "https" if context else "http"
            yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b'"messages"')
        self.requests += 1
        if self._streaming:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            writer.write((EVENT % (self._text, "null")).encode())
            await writer.drain()
        if self.requests == self._expected:
            self.all_there.set()
        await self.go.wait()
        if self._streaming:
            writer.write((EVENT % (self._text, '"stop"') + "data: [DONE]\n\n").encode())
        else:
            writer.write(completion(self._text))
        await writer.drain()
        self.handed += 1
        if self.handed == self._expected:
            self.all_handed.set()
        # As many servers do: the connection is closed long before the process goes on.
        writer.close()


def context_of_its_own(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """TLS for the loopback address, and the file that a client is to trust."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    address = x509.IPAddress(ip_address("127.0.0.1"))
    certificate = builder.add_extension(x509.SubjectAlternativeName([address]), critical=True).sign(
        key, hashes.SHA256()
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    trusted, both = folder / "trusted.pem", folder / "both.pem"
    trusted.write_bytes(certificate.public_bytes(pem))
    both.write_bytes(private + trusted.read_bytes())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(both)
    return context, trusted


SMALL = 100


@pytest.mark.parametrize(
    ("number", "size", "how"),
    [(62, SMALL, ""), (62, SMALL, "stream"), (20, SMALL, "tls")],
)
async def test_what_arrived_while_the_process_was_stopped_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, size: int, how: str
) -> None:
    server = Holding(number, size, streaming=how == "stream")
    context = None
    if how == "tls":
        context, trusted = context_of_its_own(tmp_path)
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    async with server.listening(context) as url:
        with Program(ASK, url, str(number), str(TIMEOUT), how) as program:
            await server.all_there.wait()
            program.send_signal(signal.SIGSTOP)
            server.go.set()
            await server.all_handed.wait()
            await asyncio.sleep(2 * TIMEOUT)  # Time must pass: it is what is told wrong.
            program.send_signal(signal.SIGCONT)
            answers = json.loads(await asyncio.to_thread(program.stdout.readline))
    assert answers == [2 * size if how == "stream" else size] * number
    assert server.requests == number


async def test_what_is_not_answered_ends_in_the_time_that_was_left_and_a_grace() -> None:
    server = Holding(2, SMALL, streaming=False)
    async with server.listening() as url:
        with Program(ASK, url, "2", str(TIMEOUT), "") as program:
            await server.all_there.wait()
            program.send_signal(signal.SIGSTOP)
            await asyncio.sleep(2 * TIMEOUT)
            program.send_signal(signal.SIGCONT)
            assert json.loads(await asyncio.to_thread(program.stdout.readline)) == ["timeout"] * 2
        server.go.set()
