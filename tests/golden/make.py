"""Makes the golden sessions: `python -m tests.golden.make`.

Run by version 0.1.0 at commit ec2d901 ("Tests of prompts that fail on the way; figures only as measured"),
the last one before sampling parameters are negotiated with servers. What it made is kept as it is, and must
be readable for ever: do not make it anew. For a later version, make further cases beside these.

Everything goes through the real command line and the demo model server on a fixed port.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sqlite3
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from tasks.core.forecast import survey as surveys
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import ledger_url
from tasks.core.session.record import read_record, settings_of
from tasks.core.session.resuming import survey_session
from tests.core.session.vellumforge2 import checkpoint, go_jobs, rows_of_all, write_session
from tests.core.transform.samples import alpaca, dpo, write
from tests.flows.command import PROGRAM, Model, User, config, prefect_server
from tests.golden.cases import ARCHIVE, CASES, PORT, REFUSED, WRITTEN, Case

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tasks.core.exchange.request import Answer, ChatRequest
    from tests.flows.command import Ended

URL = f"http://127.0.0.1:{PORT}/v1"
KEPT = ("session.json", "config.toml.bak", "checkpoint.json", *WRITTEN)
FILTERED = "[judge_filtering]\nenabled = true\nmin_chosen_score = 3.6\nmax_rejected_score = 2.8"
PARAMETERS = """structure_temperature = 0.3
top_p = 0.9
top_k = 40
min_p = 0.05
use_json_mode = true
max_retries = 2
max_backoff_seconds = 0.1
seed = 11
stop = ["THE END"]
presence_penalty = 0.1
frequency_penalty = 0.2
extra_body = { repetition_penalty = 1.1, reasoning_effort = "low" }"""
OTHERS = ("--set", "generation.seed=5", "--set", "models.rejected.temperature=0.25")


class Place:
    """A user with a folder of their own, the model server on its port, and what is to be kept of them."""

    def __init__(self, name: str, where: Path, server: Model, prefect_url: str) -> None:
        self.name = name
        self.server = server
        self.user = User.made(
            where / name, PREFECT_API_URL=prefect_url, PREFECT_HOME=str(where / name / "prefect")
        )
        self.expected: dict[str, bytes] = {}

    def configure(self, **settings: Any) -> None:
        self.user.write("config.toml", config(URL, **settings))

    def run(self, *words: str, code: int = 0, program: tuple[str, ...] = PROGRAM) -> Ended:
        ended = self.user.run(*words, program=program)
        assert ended.code == code, (self.name, ended)
        return ended

    def session(self) -> Path:
        return self.user.sessions()[-1]

    def expect(self) -> None:
        """Keep the files of the newest session as what is expected, and forget the session."""
        self.expected = {
            name: (self.session() / name).read_bytes() for name in WRITTEN if (self.session() / name).exists()
        }
        shutil.rmtree(self.user.folder / "output")

    def interrupt(self, after: int) -> None:
        """Begin a run, and interrupt it in order once so many requests have arrived."""
        self.server.start(latency_ms=100.0)
        process = self.user.start()
        assert self.server.until_requests(after, process)
        process.send(signal.SIGINT)
        assert process.end().code == 130


def plain(**settings: Any) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        place.configure(**settings)
        place.run("run")

    return make


def interrupted(place: Place) -> None:
    place.configure(concurrency=2)
    place.run("run")
    place.expect()
    place.interrupt(after=10)


def out_of_budget(place: Place) -> None:
    place.configure(mode="mo-dpo", concurrency=2)
    place.run("run")
    place.expect()
    place.configure(mode="mo-dpo", concurrency=2, more="[budget]\nmax_calls = 15")
    place.run("run", code=3)


def refused_and_short(place: Place) -> None:
    """Questions that are refused for good, and no prompts left to replace them: fewer rows than wanted."""
    settings: dict[str, Any] = {"replaced": True, "subtopics": 4, "prompts": 3}
    place.configure(generation="max_candidates = 1.1", **settings)
    place.run("run")
    place.expect()
    place.server.start(fail_matching=REFUSED)
    ended = place.run("run", code=3)
    assert len((place.session() / "dataset.jsonl").read_text().splitlines()) < 12, ended


def taken_over(place: Place) -> None:
    """A session folder of VellumForge2, half done, which our resume takes over and finishes."""
    jobs = go_jobs(3, 2)
    document = checkpoint(jobs, [0, 2, 3])
    rows = rows_of_all("dpo", [jobs[0], jobs[2], jobs[3]])
    folder = write_session(place.user.folder / "output", document, rows)
    (folder / "config.toml.bak").write_text(config(URL, subtopics=3, prompts=2), encoding="utf-8")
    place.configure(subtopics=3, prompts=2)
    place.run("checkpoint", "resume", folder.name)


def merged(place: Place) -> None:
    place.configure()
    place.run("run")
    place.run("run", *OTHERS)
    one, other = place.user.sessions()
    place.run("checkpoint", "merge", one.name, other.name, "--into", "session_merged")


MAKERS: dict[str, Callable[[Place], None]] = {
    "sft_sharegpt": plain(mode="sft"),
    "sft_alpaca": plain(mode="sft", generation='sft_format = "alpaca"\ninclude_topic_columns = false'),
    "dpo": plain(mode="dpo"),
    "kto": plain(mode="kto"),
    "mo-dpo": plain(mode="mo-dpo"),
    "judge_filtering": plain(
        more=FILTERED, replaced=True, subtopics=4, prompts=3, generation="max_candidates = 4"
    ),
    "reasoning": plain(generation="enable_reasoning_capture = true"),
    "refused_for_good": plain(replaced=True, subtopics=4, prompts=3, generation="max_candidates = 3"),
    "parameters": plain(mode="mo-dpo", models=PARAMETERS),
    "seed": plain(generation="seed = 7"),
    "interrupted": interrupted,
    "out_of_budget": out_of_budget,
    "refused_and_short": refused_and_short,
    "taken_over": taken_over,
    "merged": merged,
}


def transform(place: Place) -> None:
    """A dataset whose rejected answers are made anew; what it wrote is `out.jsonl`."""
    place.configure()
    prompts = [f"Number {number}: tell of a keeper and his lamp." for number in range(4)]
    write(place.user.folder / "in.jsonl", *map(dpo, prompts[:2]), *map(alpaca, prompts[2:]))
    words = ("transform", "--mode", "regen-chosen", "--input", "in.jsonl", "--output", "out.jsonl")
    place.run(*words)


@contextmanager
def noting(requests: list[tuple[ChatRequest, Answer]]) -> Iterator[None]:
    """Note every request that a survey finds paid for."""

    class Noting(surveys.Survey):
        def note(self, request: ChatRequest, answer: Answer) -> None:
            if request.key not in self.keys:
                requests.append((request, answer))
            super().note(request, answer)

    before = surveys.Survey
    surveys.Survey = Noting  # type: ignore[misc]
    try:
        yield
    finally:
        surveys.Survey = before  # type: ignore[misc]


async def requests_of(folder: Path, session: Path) -> list[dict[str, Any]]:
    record = read_record(session)
    assert record is not None
    settings = settings_of(record)
    assert settings is not None
    output = settings.output.model_copy(update={"folder": str(folder / "output")})
    made = settings.model_copy(update={"output": output})
    found: list[tuple[ChatRequest, Answer]] = []
    with noting(found):
        async with await Ledger.open(ledger_url(made)) as ledger:
            survey = await survey_session(record, made, ledger)
    print(
        session.name,
        "complete" if record.complete else "not complete",
        dict(+survey.to_pay),
        dict(+survey.reused),
        survey.lost,
    )
    return sorted(
        (
            {
                "purpose": str(request.purpose),
                "endpoint": request.endpoint,
                "model": request.model,
                "messages": request.messages,
                "parameters": dict(request.parameters),
                "schema": request.schema,
                "sample": request.sample,
                "key": request.key.hex(),
            }
            for request, _ in found
        ),
        key=lambda row: (row["purpose"], row["sample"], row["key"]),
    )


def collect(place: Place) -> dict[str, bytes]:
    """What is kept of a case, by the name in the archive."""
    output = place.user.folder / "output"
    with sqlite3.connect(output / "ledger.db", isolation_level=None) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("VACUUM")
    database.close()
    found = {"output/ledger.db": (output / "ledger.db").read_bytes()}
    for session in place.user.sessions():
        for name in KEPT:
            if (session / name).exists():
                found[f"output/{session.name}/{name}"] = (session / name).read_bytes()
    for path in sorted(place.user.folder.glob("*.*")):
        found[path.name] = path.read_bytes()
    if place.name in CASES:
        rows = asyncio.run(requests_of(place.user.folder, place.session()))
        found["requests.jsonl"] = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    found |= {f"expected/{name}": contents for name, contents in place.expected.items()}
    return {f"{place.name}/{name}": contents for name, contents in sorted(found.items())}


def pack(files: dict[str, bytes]) -> None:
    """Write the archive; the same files give the same bytes."""
    with ZipFile(ARCHIVE, "w", ZIP_DEFLATED, compresslevel=9) as archive:
        for name, contents in sorted(files.items()):
            archive.writestr(ZipInfo(name), contents, ZIP_DEFLATED, 9)


def main(names: list[str]) -> None:
    """Make the named cases, or all."""
    makers = MAKERS | {"transform": transform}
    files: dict[str, bytes] = {}
    server = Model()
    server.port = PORT
    with tempfile.TemporaryDirectory() as folder, prefect_server(Path(folder) / "server") as url:
        for name in names or makers:
            server.start(**(CASES.get(name, Case()).behaviour or {}))
            place = Place(name, Path(folder), server, url)
            try:
                makers[name](place)
                files |= collect(place)
            finally:
                server.stop()
    if not names:
        pack(files)
    print(len(files), "files", sum(map(len, files.values())), "bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
