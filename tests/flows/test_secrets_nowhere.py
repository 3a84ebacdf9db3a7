"""Keys are planted wherever a key may be, everything is done, and every byte that was written is searched."""

from __future__ import annotations

import base64
import io
import json
import sqlite3
import threading
import zipfile
import zlib
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tasks.core.demo.chat import Behaviour, complete, read_chat
from tests.flows.command import PROGRAM, User, config, prefect_server, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.flows.command import Ended

PLANTED = {
    name: f"{beginning}planted{number}Hidden0123456789{number}"
    for number, (name, beginning) in enumerate(
        {
            "API_KEY": "sk-",
            "OPENAI_API_KEY": "sk-proj-",
            "TOGETHER_API_KEY": "",
            "MAIN_KEY": "nvapi-",
            "GATEWAY_KEY": "",
            "HF_TOKEN": "hf_",
            "PGPASSWORD": "",
            "PREFECT_API_AUTH_STRING": "admin:",
        }.items()
    )
}
IN_BLOCK = "sk-planted8Hidden01234567898"
IN_FILE = "sk-planted9Hidden01234567899"
REFUSED = "planted10Hidden012345678910"
SECRETS = (*PLANTED.values(), IN_BLOCK, IN_FILE, REFUSED)

CLEAN = "no secret was found"
LARGEST = 64 * 2**20

SAVE_BLOCK = (
    "import sys; from prefect.blocks.system import Secret; Secret(value=sys.argv[1]).save('weak-key')"
)


@dataclass
class Gossip:
    """A model server that repeats, in every error, all that it was told.

    Attributes:
        failing: What a request for the weak model is answered with; 0 for an answer.
        target: Where a redirect leads.
        headers: The headers of each request.
    """

    failing: int = 0
    target: str = ""
    headers: list[dict[str, str]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@contextmanager
def gossip() -> Iterator[Gossip]:
    server = Gossip()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            told = {name.lower(): value for name, value in self.headers.items()}
            server.headers.append(told)
            chat = read_chat(body)
            if not server.failing or chat.model != "weak-writer":
                self._send(200, complete(chat, chat.digest, Behaviour()))
                return
            repeated = " ".join(told.values())
            key = told.get("authorization", "").removeprefix("Bearer ")
            # Of a header, the part that came from a variable alone.
            repeated += " " + told.get("x-both", "").removeprefix("of ")
            document = {"error": {"message": f"{repeated} {key}", "code": key, "param": key, "type": key}}
            place = f"{server.target}/chat/completions?key={key}" if server.target else ""
            self._send(server.failing, json.dumps(document).encode(), location=place, x_told=repeated)

        def do_GET(self) -> None:
            server.headers.append({"redirected": self.path})
            self._send(200, b"{}")

        def _send(self, status: int, body: bytes, **headers: str) -> None:
            reason = "Reason" if status == 200 else headers.get("x_told", "")
            self.send_response(status, reason)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the base class calls it
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.port = http.server_address[1]
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


def needles() -> list[bytes]:
    """Each secret as it stands, and as it stands in a header with a name before it."""
    plain = [secret.encode() for secret in SECRETS]
    return plain + [base64.b64encode(secret) for secret in plain]


def contents(path: Path) -> Iterator[bytes]:
    """The bytes of a file, and what they hold once they are unpacked."""
    data = path.read_bytes()
    yield data
    if data.startswith(b"SQLite format 3\0"):
        yield from _values(path)
    elif zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield from (_unpacked(archive.read(name)) for name in archive.namelist())


def _values(path: Path) -> Iterator[bytes]:
    """Every value of every table of a database; none of a broken one."""
    with (
        suppress(sqlite3.DatabaseError),
        closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database,
    ):
        database.text_factory = bytes
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for row in database.execute(f'SELECT * FROM "{table.decode()}"'):  # noqa: S608 - its own name
                yield from (_unpacked(value) for value in row if isinstance(value, bytes))


def _unpacked(value: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=47).decompress(value, LARGEST)
    except zlib.error:
        return value


def found_in(*folders: Path) -> list[str]:
    """The files in which a secret is found, and which one."""
    wanted = needles()
    return [
        f"{path} holds {needle[:24]!r}"
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for content in contents(path)
        for needle in wanted
        if needle in content
    ]


class Witness:
    """Someone who does everything, and looks at all that is said."""

    def __init__(self, user: User, *common: str) -> None:
        self._user = user
        self._common = common

    def does(self, *words: str, code: int = 0, **variables: str) -> Ended:
        ended = self._user.run(*words, *self._common, program=PROGRAM, **variables)
        said = (ended.out + ended.err).encode()
        assert ended.code == code, (words, ended)
        assert [needle for needle in needles() if needle in said] == [], words
        assert "Traceback" not in ended.err
        return ended


@pytest.fixture
def secretive(tmp_path: Path) -> Iterator[User]:
    """A user whose Prefect server wants a password, and in whose environment there are keys of all kinds."""
    auth = PLANTED["PREFECT_API_AUTH_STRING"]
    with prefect_server(tmp_path / "server", PREFECT_SERVER_API_AUTH_STRING=auth) as url:
        yield User.made(
            tmp_path / "user", PREFECT_API_URL=url, PREFECT_HOME=str(tmp_path / "user" / "prefect"), **PLANTED
        )


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    secret = PLANTED["API_KEY"].encode()
    with closing(sqlite3.connect(tmp_path / "a.db")) as database, database:
        database.execute("CREATE TABLE t (a BLOB)")
        database.execute("INSERT INTO t VALUES (?)", (zlib.compress(b"x" * 5000 + secret, 1),))
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside", b"x" * 5000 + secret)
    (tmp_path / "c.log").write_bytes(
        b"Basic " + base64.b64encode(PLANTED["PREFECT_API_AUTH_STRING"].encode())
    )
    (tmp_path / "d.txt").write_text(CLEAN)
    assert [line.partition(" holds ")[0][-5:] for line in found_in(tmp_path)] == ["/a.db", "b.zip", "c.log"]


def test_no_secret_is_written_or_said_or_sent_elsewhere(secretive: User, tmp_path: Path) -> None:
    # What holds keys on purpose stands apart from what is searched.
    env_file = tmp_path / "keys.env"
    env_file.write_text(f"FILE_KEY={IN_FILE}\n")
    saved = secretive.run("-c", SAVE_BLOCK, IN_BLOCK, program=PROGRAM[:1])
    assert saved.code == 0, saved
    with gossip() as server, gossip() as other:
        secretive.write("config.toml", _config(server.url))
        with_keys = Witness(secretive, "--env-file", str(env_file))
        alone = Witness(secretive)
        with_keys.does("validate", "--ping", "--json")
        with_keys.does("estimate")
        with_keys.does("preview", "-n", "1")
        with_keys.does("run", "--verbose")
        _check_what_was_sent(server)
        (whole,) = secretive.sessions()[-1:]
        broken = _fail_and_go_on(secretive, with_keys, server, other)
        assert len(rows_of(broken)) == len(rows_of(whole)) > 0
        _look_after(alone, whole.name, broken.name)
        _be_refused(with_keys)
        (secretive.folder / "broken").mkdir()
        (secretive.folder / "broken" / "ledger.db").write_bytes(b"SQLite format 3\0" + bytes(4096))
        alone.does("ledger", "check", "--output", "broken", code=1)
        with_keys.does("run", "--output", "broken", code=1)
    assert (tmp_path / "server" / "prefect.db").exists()
    assert found_in(tmp_path / "user", tmp_path / "server") == []


def _config(url: str) -> str:
    text = config(url, subtopics=2, models="max_retries = 0\nmax_backoff_seconds = 0.1")
    text = text.replace('"strong-writer"\n', '"strong-writer"\napi_key_env = "MAIN_KEY"\n')
    text = text.replace('"weak-writer"\n', '"weak-writer"\napi_key_block = "weak-key"\n')
    headers = 'X-Gateway-Key = "${GATEWAY_KEY}"\nX-Both = "of ${FILE_KEY}"\n'
    return f"{text}\n[models.main.headers]\n{headers}[models.rejected.headers]\n{headers}"


def _fail_and_go_on(user: User, witness: Witness, server: Gossip, other: Gossip) -> Path:
    """A session of other answers, through everything that a server can refuse, to its end."""
    seed = ("--set", "generation.seed=1", "--verbose")
    server.failing = 401
    # The key that was repeated is hidden, and the rest of the message is not.
    assert "HTTP 401: " in witness.does("run", *seed, code=3).err
    (session,) = user.sessions()[-1:]
    witness.does("validate", "--ping", code=3)
    server.failing = 500
    witness.does("checkpoint", "resume", session.name, *seed, code=3)
    server.failing, server.target = 307, other.url
    witness.does("checkpoint", "resume", session.name, *seed, code=3)
    assert "redirects are not followed" in (session / "session.log").read_text()
    assert other.headers == []
    server.failing = 0
    witness.does("checkpoint", "resume", session.name, *seed, "--json")
    return session


def _look_after(witness: Witness, whole: str, other: str) -> None:
    witness.does("run", "--demo", "--set", "generation.num_subtopics=2")
    witness.does("checkpoint", "list")
    witness.does("checkpoint", "inspect", other)
    witness.does("checkpoint", "diff", whole, other)
    witness.does("checkpoint", "export", other, "--to", "moved.zip")
    witness.does("checkpoint", "import", "moved.zip", "--output", "elsewhere")
    witness.does("checkpoint", "clean", "--keep-last", "1", "--dry-run")
    witness.does("checkpoint", "merge", whole, other, "--into", "session_merged")
    witness.does("ledger", "check")
    witness.does("ledger", "salvage", "--into", "saved.db")
    witness.does("ledger", "prune", "--dry-run")


def _be_refused(witness: Witness) -> None:
    """Secrets where none may be."""
    for setting in (
        f"output.ledger=postgresql+asyncpg://me:{REFUSED}@127.0.0.1/ledger",
        f"models.main.base_url=https://me:{REFUSED}@127.0.0.1/v1",
        f'models.main.headers={{"X-Api-Key": "{REFUSED}"}}',
        f'models.main.extra_body={{"api_key": "{REFUSED}"}}',
        f"models.main.api_key_env=sk-{REFUSED}",
        f"models.main.api_key={REFUSED}",
    ):
        witness.does("run", "--set", setting, code=2)
    witness.does("run", code=2, MAIN_KEY=f"{REFUSED}\n")
    witness.does("run", "--set", "models.rejected.api_key_block=no-such-key", code=2)


def _check_what_was_sent(server: Gossip) -> None:
    """Each model was sent its own key, and its headers."""
    assert {told["authorization"] for told in server.headers} == {
        f"Bearer {PLANTED['MAIN_KEY']}",
        f"Bearer {IN_BLOCK}",
    }
    assert {(told["x-gateway-key"], told["x-both"]) for told in server.headers} == {
        (PLANTED["GATEWAY_KEY"], f"of {IN_FILE}")
    }
