"""A Hub on loopback: the endpoints that `huggingface_hub` calls to upload and to download a dataset.

Large files go by LFS, in one piece or, from `part_size` bytes on, in several; the Hub keeps a large file by
its SHA-256 from the moment it is whole, and shows it once a commit names it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OWNER = "ada"
TOKEN = "hf_AdasOwnTokenWithWriteAccess"  # noqa: S105 - of this server
READER = "hf_MayReadButNotWriteAnything"

SIZES = {"n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B"}
LICENSES = {"cc-by-4.0", "apache-2.0", "mit", "other"}
FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
PIECE = 64
"""Bytes of an upload that are read at a time: a cut lies between two of these."""


class CutError(Exception):
    """The connection is dropped here."""


@dataclass
class Repository:
    """A dataset repository: its commits, each with all files, the newest last."""

    private: bool
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{".gitattributes": b"*.parquet lfs\n"}])

    @property
    def files(self) -> dict[str, bytes]:
        """What its newest commit holds."""
        return self.commits[-1]

    @property
    def head(self) -> str:
        """The id of its newest commit."""
        return self.sha(len(self.commits) - 1)

    def sha(self, number: int) -> str:
        """The id of a commit."""
        names = sorted(
            (path, hashlib.sha256(data).hexdigest()) for path, data in self.commits[number].items()
        )
        return hashlib.sha1(f"{number} {names}".encode(), usedforsecurity=False).hexdigest()

    def at(self, revision: str) -> dict[str, bytes] | None:
        """The files of a revision, or None."""
        if revision == "main":
            return self.files
        found = [files for number, files in enumerate(self.commits) if self.sha(number) == revision]
        return found[0] if found else None


@dataclass
class Hub:
    """The server's state, and what it is told to do wrong.

    Attributes:
        url: Its address.
        repositories: Those that there are, by name.
        objects: Large files that arrived whole, by SHA-256.
        part_size: Bytes from which a large file is sent in parts of this size.
        answers: What an endpoint answers in place of its own: path pattern to status, headers and JSON.
        at_piece: Called before each piece of an upload is read, with the bytes read so far; may raise
            `CutError`, or wait.
        asked: Method and path of every request.
        arrived: Bytes of large files that arrived, whether or not the file got whole.
        uploads: The paths to which a whole file or part was sent.
        defects: What the library asked that the Hub would not understand; none, unless a test is wrong.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    part_size: int = 1 << 40
    answers: dict[str, tuple[int, dict[str, str], Any]] = field(default_factory=dict)
    at_piece: Callable[[int], None] = lambda _: None
    asked: list[str] = field(default_factory=list)
    arrived: int = 0
    defects: list[str] = field(default_factory=list)
    parts: dict[tuple[str, int], bytes] = field(default_factory=dict)
    uploads: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def is_large(path: str) -> bool:
    return path.endswith(".parquet")


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%s" % (len(data), data), usedforsecurity=False).hexdigest()


def oid_of(path: str, data: bytes) -> str:
    return hashlib.sha256(data).hexdigest() if is_large(path) else git_oid(data)


def wrong_with(content: str) -> list[str]:
    """What the Hub has against the metadata of a dataset's card."""
    found = FRONT.match(content)
    if not found:
        return ["there is no metadata"]
    try:
        data = YAML(typ="safe", pure=True).load(found[1])
    except YAMLError as error:
        return [f"bad indentation: {error}"]
    if not isinstance(data, dict):
        return ["metadata must be a mapping"]
    wrong = []
    if "license" in data and data["license"] not in LICENSES:
        wrong.append('"license" must be one of [apache-2.0, …]')
    if not set(data.get("size_categories", [])) <= SIZES:
        wrong.append('"size_categories" must be one of […]')
    if not all(isinstance(tag, str) for tag in data.get("tags", [])):
        wrong.append('"tags" must be strings')
    wrong += [
        '"configs" is not valid'
        for config in data.get("configs", [])
        if not {"config_name", "data_files"} <= config.keys() <= {"config_name", "data_files", "default"}
    ]
    if not isinstance(data.get("pretty_name"), str):
        wrong.append('"pretty_name" must be a string')
    return wrong


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: Hub

    def log_message(self, *_: Any) -> None:
        """Nothing: pytest has the terminal."""

    def do_GET(self) -> None:
        self.answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - the names that the class looks for

    def answer(self) -> None:
        """Find the endpoint and let it answer."""
        path = unquote(urlsplit(self.path).path)
        with self.hub.lock:
            self.hub.asked.append(f"{self.command} {path}")
        try:
            if self.command == "PUT":
                return self.put(path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            for pattern, (status, headers, document) in self.hub.answers.items():
                if re.fullmatch(pattern, f"{self.command} {path}"):
                    return self.send(status, document, **headers)
            for method, pattern, endpoint in ENDPOINTS:
                found = re.fullmatch(pattern, path)
                if found and self.command in method:
                    if self.needs_token(pattern) and self.user() is None:
                        return self.refuse(401, "Invalid credentials in Authorization header")
                    return endpoint(self, body, *found.groups())
            return self.refuse(404, "Not Found")
        except AssertionError as error:
            self.hub.defects.append(f"{self.command} {path}: {error}")
            raise
        except CutError:
            # Neither an answer nor a word: as when the network goes away.
            self.close_connection = True
            self.connection.close()

    # What all endpoints need

    def user(self) -> str | None:
        """Who asks, by the token that is sent."""
        return {f"Bearer {TOKEN}": OWNER, f"Bearer {READER}": "reader"}.get(
            self.headers.get("Authorization", "")
        )

    @staticmethod
    def needs_token(pattern: str) -> bool:
        return "validate-yaml" not in pattern and "complete" not in pattern

    def send(self, status: int, document: Any = None, **headers: str) -> None:
        content = json.dumps(document).encode() if not isinstance(document, bytes) else document
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, status: int, message: str, code: str = "") -> None:
        headers = {"X_Error_Message": message} | ({"X_Error_Code": code} if code else {})
        self.send(status, {"error": message}, **headers)

    def repository(self, name: str) -> Repository | None:
        """The repository, when there is one and the user may see it; else the answer is given."""
        found = self.hub.repositories.get(name)
        if found is None or (found.private and self.user() != OWNER):
            self.refuse(404, "Repository not found", "RepoNotFound")
            return None
        return found

    # Endpoints

    def validate_yaml(self, body: bytes) -> None:
        wrong = [{"message": message} for message in wrong_with(json.loads(body)["content"])]
        self.send(400 if wrong else 200, {"errors": wrong, "warnings": []})

    def create(self, body: bytes) -> None:
        wanted = json.loads(body)
        name = f"{wanted['organization'] or self.user()}/{wanted['name']}"
        if wanted["organization"] != self.user():
            return self.refuse(
                403, f"You don't have the rights to create a dataset under {wanted['organization']}"
            )
        with self.hub.lock:
            there = name in self.hub.repositories
            if not there:
                self.hub.repositories[name] = Repository(private=wanted["visibility"] == "private")
        document = {
            "url": f"{self.hub.url}/datasets/{name}",
            "name": name,
            "error": "exists" if there else None,
        }
        return self.send(409 if there else 200, document)

    def info(self, _: bytes, name: str, revision: str | None = None) -> None:
        repository = self.repository(name)
        if repository is None:
            return None
        siblings = [{"rfilename": path} for path in repository.files]
        document = {"id": name, "private": repository.private, "siblings": siblings, "tags": []}
        assert revision in {None, "main", repository.head}
        return self.send(200, document | {"sha": repository.head})

    def preupload(self, body: bytes, name: str) -> None:
        repository = self.repository(name)
        if repository is None:
            return None
        if self.user() != OWNER:
            return self.refuse(403, "You have read access but not the required permissions")
        files = [
            {
                "path": item["path"],
                "uploadMode": "lfs" if is_large(item["path"]) else "regular",
                "shouldIgnore": False,
                "oid": oid_of(item["path"], repository.files[item["path"]])
                if item["path"] in repository.files
                else None,
            }
            for item in json.loads(body)["files"]
        ]
        return self.send(200, {"files": files})

    def batch(self, body: bytes, name: str) -> None:
        assert name in self.hub.repositories
        objects = []
        for item in json.loads(body)["objects"]:
            entry = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.objects:
                entry["actions"] = self.actions(name, item["oid"], item["size"])
            objects.append(entry)
        self.send(200, {"transfer": "basic", "objects": objects})

    def actions(self, name: str, oid: str, size: int) -> dict[str, Any]:
        """How a large file is sent, in one piece or in several."""
        verify = {"href": f"{self.hub.url}/api/datasets/{name}/verify"}
        store = f"{self.hub.url}/store/{oid}"
        if size < self.hub.part_size:
            return {"upload": {"href": f"{store}?X-Amz-Signature=secret"}, "verify": verify}
        count = -(-size // self.hub.part_size)
        parts = {f"{number:05}": f"{store}/{number}?X-Amz-Signature=secret" for number in range(1, count + 1)}
        header = {"chunk_size": str(self.hub.part_size)} | parts
        return {"upload": {"href": f"{store}/complete", "header": header}, "verify": verify}

    def put(self, path: str) -> None:
        """A place for files: it knows no tokens, the address is signed."""
        assert self.headers.get("Authorization") is None, "the token went to somebody else than the Hub"
        assert parse_qs(urlsplit(self.path).query) == {"X-Amz-Signature": ["secret"]}
        data = b""
        if length := int(self.headers.get("Content-Length") or 0):
            while len(data) < length:
                self.hub.at_piece(len(data))
                piece = self.rfile.read(min(PIECE, length - len(data)))
                if not piece:
                    raise CutError
                data += piece
                self.hub.arrived += len(piece)
        _, _, oid, *part = path.split("/")
        with self.hub.lock:
            self.hub.uploads.append(path)
            if part:
                self.hub.parts[oid, int(part[0])] = data
            else:
                assert hashlib.sha256(data).hexdigest() == oid
                self.hub.objects[oid] = data
        self.send(200, ETag=f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"')

    def complete(self, body: bytes, oid: str) -> None:
        wanted = json.loads(body)
        assert wanted["oid"] == oid
        data = b"".join(self.hub.parts[oid, part["partNumber"]] for part in wanted["parts"])
        assert hashlib.sha256(data).hexdigest() == oid
        self.hub.objects[oid] = data
        self.send(200, {"success": True})

    def verify(self, body: bytes, name: str) -> None:
        assert name in self.hub.repositories
        wanted = json.loads(body)
        assert len(self.hub.objects[wanted["oid"]]) == wanted["size"]
        self.send(200, {})

    def commit(self, body: bytes, name: str) -> None:
        repository = self.repository(name)
        if repository is None:
            return None
        if self.user() != OWNER:
            return self.refuse(403, "You have read access but not the required permissions")
        head, *operations = [json.loads(line) for line in body.splitlines()]
        files = dict(repository.files)
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert operation["key"] == "deletedFile"
                del files[value["path"]]
        with self.hub.lock:
            if head["value"].get("parentCommit", repository.head) != repository.head:
                return self.refuse(412, "A commit has happened since. Please refresh and try again.")
            repository.commits.append(files)
        url = f"{self.hub.url}/datasets/{name}/commit/{repository.head}"
        return self.send(
            200, {"success": True, "commitUrl": url, "commitOid": repository.head, "hookOutput": ""}
        )

    def tree(self, _: bytes, name: str, revision: str, below: str | None = None) -> None:
        repository = self.repository(name)
        if repository is None:
            return None
        files = repository.at(revision)
        if files is None:
            return self.refuse(404, "Invalid rev id", "RevisionNotFound")
        prefix = f"{below}/" if below else ""
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() in {
            "true",
            "1",
        }
        inside = {path: data for path, data in sorted(files.items()) if path.startswith(prefix)}
        folders = {
            f"{prefix}{'/'.join(names[:depth])}"
            for names in (path.removeprefix(prefix).split("/") for path in inside)
            for depth in range(1, len(names))
        }
        found: list[dict[str, Any]] = [
            {"type": "directory", "path": path, "size": 0, "oid": git_oid(b"")} for path in sorted(folders)
        ]
        found += [entry(path, data) for path, data in inside.items()]
        if not recursive:
            found = [item for item in found if "/" not in item["path"].removeprefix(prefix)]
        return self.send(200, found) if found else self.refuse(404, "Not found", "EntryNotFound")

    def paths_info(self, body: bytes, name: str, revision: str) -> None:
        repository = self.repository(name)
        if repository is None:
            return None
        files = repository.at(revision) or {}
        wanted = parse_qs(body.decode()).get("paths", [])
        return self.send(200, [entry(path, files[path]) for path in wanted if path in files])

    def resolve(self, _: bytes, name: str, revision: str, path: str) -> None:
        repository = self.repository(name)
        if repository is None:
            return None
        files = repository.at(revision)
        if files is None or path not in files:
            return self.refuse(404, "Entry not found", "EntryNotFound")
        etag = f'"{oid_of(path, files[path])}"'
        commit = repository.head if revision == "main" else revision
        return self.send(
            200, files[path], ETag=etag, X_Repo_Commit=commit, Content_Type="application/octet-stream"
        )


def entry(path: str, data: bytes) -> dict[str, Any]:
    """A file as the Hub lists it."""
    found: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git_oid(data)}
    if is_large(path):
        found["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return found


_NAME = r"([\w.-]+/[\w.-]+)"
ENDPOINTS: tuple[tuple[str, str, Callable[..., None]], ...] = (
    ("POST", r"/api/validate-yaml", Handler.validate_yaml),
    ("POST", r"/api/repos/create", Handler.create),
    ("POST", rf"/api/datasets/{_NAME}/preupload/main", Handler.preupload),
    ("POST", rf"/datasets/{_NAME}\.git/info/lfs/objects/batch", Handler.batch),
    ("POST", r"/store/(\w+)/complete", Handler.complete),
    ("POST", rf"/api/datasets/{_NAME}/verify", Handler.verify),
    ("POST", rf"/api/datasets/{_NAME}/commit/main", Handler.commit),
    ("GET", rf"/api/datasets/{_NAME}/tree/(\w+)(?:/(.+))?", Handler.tree),
    ("POST", rf"/api/datasets/{_NAME}/paths-info/(\w+)", Handler.paths_info),
    ("GET", rf"/api/datasets/{_NAME}(?:/revision/(\w+))?", Handler.info),
    ("GET HEAD", rf"/datasets/{_NAME}/resolve/(\w+)/(.+)", Handler.resolve),
)


@contextmanager
def running() -> Iterator[Hub]:
    """A Hub that answers on loopback."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OfThisHub", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert hub.defects == []
