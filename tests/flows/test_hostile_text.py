"""Text from outside on its way to a terminal: models', servers', archives', settings', by every door."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
import unicodedata
import zipfile
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from flows.commands.app import main
from tasks.core.demo.chat import Behaviour, complete, read_chat
from tests.flows.command import PROGRAM, config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.flows.command import User

BIDI = "\u202eturned\u2066\u200f"
HOSTILE = (
    f"red\x1b[31m\x9b31m\x85 {BIDI}\u2028\u2029\u200b\u200d\ufeff\u3164\U000e0041\x00"
    "\r\nvellumforge2: forged\nvellumforge2: forged\r"
)
FORGED = re.compile(r"^vellumforge2: forged", re.MULTILINE)
FOLDER = f"out {BIDI}?#%41&:é"
SEEN = {*"\ud800\u3164\U000e0041"}


def assert_plain(said: str, *, marked: str = "") -> None:
    """Nothing in it is hidden or moves the cursor, and no line is forged."""
    hidden = {
        character
        for character in said
        if character in SEEN
        or (character != "\n" and unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"})
    }
    assert hidden == set(), said
    assert FORGED.search(said) is None, said
    assert marked in said


class Handler(BaseHTTPRequestHandler):
    """A server that writes into all of its answers, and refuses some."""

    protocol_version = "HTTP/1.1"
    weak = 0

    def do_POST(self) -> None:
        chat = read_chat(self.rfile.read(int(self.headers["content-length"])))
        document = json.loads(complete(chat, chat.digest, Behaviour()))
        choice = document["choices"][0]
        try:
            items = json.loads(choice["message"]["content"])
            choice["message"]["content"] = json.dumps([f"{item} {HOSTILE}" for item in items])
        except ValueError:
            choice["message"]["content"] = HOSTILE + choice["message"]["content"]
        choice["finish_reason"], document["model"] = f"stop{HOSTILE}", HOSTILE
        status = 200
        if chat.model.startswith("weak"):
            Handler.weak += 1
            if Handler.weak % 3 == 0:
                status, document = 500, {"error": {"message": f"no {HOSTILE}\ud800", "type": HOSTILE}}
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the base class calls it
        pass


@contextmanager
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_address[1]}/v1"
        finally:
            http.shutdown()
            thread.join()


@pytest.fixture
def hostile(user: User, monkeypatch: pytest.MonkeyPatch) -> Iterator[User]:
    """A user of a hostile server, with hostile settings, in a hostile folder; the process works there too."""
    monkeypatch.chdir(user.folder)
    with server() as url:
        text = config(url, subtopics=2, models="max_retries = 0").replace(
            "keepers & the sea", f"keepers {BIDI}"
        )
        user.write(
            "config.toml", text.replace("strong-writer", f"strong{BIDI}").replace("weak-", f"weak{BIDI}")
        )
        yield user


def poison(archive: Path) -> None:
    """Write into every text of an archive's record."""
    with zipfile.ZipFile(archive) as before:
        files = {name: before.read(name) for name in before.namelist()}
    name = next(name for name in files if name.endswith("manifest.json"))
    manifest = json.loads(files[name])
    record = manifest["record"]
    settings = record["settings"]
    settings["generation"]["main_topic"] += BIDI
    record["spent"]["items"] = [item | {"model": HOSTILE} for item in record["spent"]["items"]]
    record["counts"]["failed"] = {HOSTILE: 3}
    files[name] = json.dumps(manifest).encode()
    with zipfile.ZipFile(archive, "w") as after:
        for path, content in files.items():
            after.writestr(path, content)


def test_what_others_wrote_reaches_a_terminal_in_plain(  # noqa: PLR0915 - every door of one session
    hostile: User, capfd: pytest.CaptureFixture[str]
) -> None:
    at = ("--output", FOLDER)

    def said(*words: str, code: int | None = 0, marked: str = "", at: tuple[str, ...] = at) -> str:
        capfd.readouterr()
        ended = main([*words, *at])
        found = capfd.readouterr()
        assert_plain(found.out + found.err, marked=marked)
        assert code in {None, ended}, (words, found)
        return found.out

    ran = hostile.run("run", "--verbose", *at, program=PROGRAM)
    assert_plain(ran.out + ran.err, marked="⟨U+202E⟩")
    assert ran.code == 3
    (session,) = hostile.sessions(FOLDER)
    log = (session / "session.log").read_text(encoding="utf-8")
    assert_plain(log)
    said("failures", session.name, marked="HTTP 500")
    said("failures", session.name, "--show")
    assert json.loads(said("failures", session.name, "--json", "--show"))["failures"]
    with closing(sqlite3.connect(hostile.folder / FOLDER / "ledger.db")) as ledger, ledger:
        ledger.execute(
            "UPDATE failures SET cause = ?, item = ?, message = ?", (HOSTILE[:64], HOSTILE, HOSTILE)
        )
    said("failures", session.name, marked="⟨U+009B⟩")
    said("checkpoint", "inspect", session.name, marked="⟨U+202E⟩")
    said("checkpoint", "list")
    said("lint", session.name)
    said("lint", session.name, "--json")
    said("report", session.name)
    said("export", session.name, "--format", "trl", "--partial")
    said("export", session.name, "--format", "native", "--partial", "--json")
    said("validate", marked="⟨U+202E⟩")
    assert json.loads(said("validate", "--json"))["models"][0]["model"] == f"strong{BIDI}"
    said("validate", "--ping", code=None)
    said("estimate", marked="⟨U+202E⟩")
    said("estimate", "--json")
    said("preview", "-n", "2", code=None, marked="⟨U+202E⟩")
    said("preview", "-n", "2", "--json", code=None)
    moved = said("checkpoint", "export", session.name, "--to", "there.zip")
    assert " with 0 calls" not in moved
    poison(hostile.folder / "there.zip")
    elsewhere = ("--output", "elsewhere")
    said("checkpoint", "import", "there.zip", at=elsewhere)
    said("checkpoint", "inspect", session.name, at=elsewhere)
    said("checkpoint", "list", at=elsewhere)
    said("checkpoint", "diff", session.name, at=elsewhere)
    said("run", "--dry-run", "--resume", session.name, at=elsewhere, code=2)
    said("checkpoint", "clean", "--keep-last", "1", "--dry-run")
    said("ledger", "check")
    row = {"prompt": HOSTILE, "chosen": HOSTILE, "rejected": HOSTILE}
    (hostile.folder / "rows\x9b\u202e.jsonl").write_text(json.dumps(row) + '\n{"a\\u009b\\u202e\\nb": 1}\n')
    said("lint", "rows\x9b\u202e.jsonl", code=2, marked="⟨U+009B⟩")
    said("upload", session.name, "--repo", HOSTILE.replace("\0", ""), code=2)
    said("run", "--set", f"generation.{HOSTILE}=1", code=2)
    said("run", f"--{HOSTILE}", code=2)
    said("failures", HOSTILE, code=2)
    said("lint", "\udc9b\udcff.jsonl", code=2)
