"""The mirror: all is there, each call once; one that fails warns, is tried again, and harms nothing."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import random
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tasks.core.errors import RunInterrupted, UsageError, VellumforgeError
from tasks.core.forecast.survey import survey
from tasks.core.generation.pairs import make_pairs
from tasks.core.generation.prompts import Subtopic, complete_prompts, jobs_of, write_prompts
from tasks.core.generation.run import open_run
from tasks.core.generation.subtopics import find_subtopics
from tasks.core.ledger.failures import failures_by_request, failures_of
from tasks.core.ledger.ledger import Ledger
from tasks.core.ledger.schema import ledger_url
from tasks.core.models import Failure, Phase, Purpose
from tasks.core.portable import mirror as mirrors
from tasks.core.portable.mirror import Mirror, fetch_session, mirrored
from tasks.core.progress import Progress
from tasks.core.secrets import Keys
from tasks.core.session.record import is_from_elsewhere, read_record, record_session
from tasks.core.session.resuming import find_resumption
from tasks.core.session.session import open_session
from tasks.core.traffic.stop import Stop
from tests.core.portable.s3 import BUCKET, MIRROR, SECRET, s3_server
from tests.core.running import PATIENCE, ChatServer, configured
from tests.core.session.exported import writing

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.core.config.settings import Config
    from tasks.core.session.session import Session

WHOLE = 1 + 2 + 8
"""Calls of a whole run: one for subtopics, two for prompts, two for each of four jobs."""
OFTEN = 0.0005
"""Minutes between two copies where a test waits for one."""


def settings(server: ChatServer, output: Path, mirror: str, minutes: float = 5.0) -> Config:
    return configured(
        server.base_url,
        output__folder=str(output),
        output__mirror=mirror,
        output__mirror_minutes=minutes,
        generation__enable_checkpointing=True,
    )


async def work(
    config: Config,
    folder: Path | None = None,
    *,
    jobs: int = 4,
    meanwhile: Callable[[Session], Any] | None = None,
    stopped: bool = False,
) -> Path:
    """Work on a session as the flow does, up to so many jobs; returns its folder."""
    progress, stop = Progress(), Stop()
    async with await Ledger.open(ledger_url(config)) as ledger:
        with open_session(
            config,
            progress,
            text="# ours\n",
            overridden={},
            ledger=ledger.id,
            resumption=None if folder is None else find_resumption(folder),
        ) as session:
            async with (
                open_run(
                    config,
                    Keys({}, {}),
                    session=session.record.id,
                    ledger=ledger,
                    stop=stop,
                    progress=progress,
                ) as run,
                mirrored(run, session) as copy_soon,
            ):
                state = session.checkpoint.state
                state.subtopics = await find_subtopics(run)
                copy_soon()
                subtopics = [Subtopic(place, name) for place, name in enumerate(state.subtopics)]
                found = (await complete_prompts(run, await write_prompts(run, subtopics))).found
                state.jobs = jobs_of(run, found)
                await session.enter(Phase.PAIRS)
                copy_soon()
                if meanwhile is not None:
                    await meanwhile(session)
                await make_pairs(run, state.jobs[:jobs], session.keep)
                await session.finish(complete=jobs == 4)
                if stopped:
                    stop.request(RunInterrupted(signal.SIGTERM))
            await record_session(ledger, session.name, session.record)
    return session.folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def calls_in(parts: dict[str, bytes]) -> list[str]:
    """The keys of all calls in a mirror's parts, one entry for each line."""
    return [json.loads(line)["key"] for part in parts.values() for line in gzip.decompress(part).splitlines()]


def parts_of(mirror: Path, session: Path) -> dict[str, bytes]:
    return contents(mirror / session.name / "calls")


def id_of(session: Path) -> str:
    record = read_record(session)
    assert record is not None
    return record.id


async def keys_of(config: Config) -> set[str]:
    async with await Ledger.open(ledger_url(config)) as ledger:
        return {key.hex() for key in (await survey(config, ledger)).keys}


async def fetched(config: Config, name: str) -> Path:
    """The session, fetched from the configuration's mirror into its output folder."""
    folder = await fetch_session(config.output.mirror, name, Path(config.output.folder), ledger_url(config))
    assert folder is not None
    return folder


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def until(holds: Callable[[], bool]) -> None:
    """Let the others work until something holds."""
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - the mirror tells nobody but the log
            await asyncio.sleep(0.001)


async def test_a_mirror_has_the_files_as_they_are_and_each_call_once(tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    async with ChatServer(writing) as server:
        config = settings(server, tmp_path / "here", f"file://{mirror}", OFTEN)
        folder = await work(config)
    there = mirror / folder.name
    assert contents(there / "files") == contents(folder)
    keys = calls_in(parts_of(mirror, folder))
    assert len(keys) == WHOLE
    assert set(keys) == await keys_of(config)
    manifest = json.loads((there / "manifest.json").read_bytes())
    assert (manifest["calls"], manifest["record"]["complete"]) == (WHOLE, True)
    assert not [path for path in there.rglob("*") if path.name.endswith(".part")]


async def test_a_session_is_fetched_and_goes_on_for_the_rest_alone(tmp_path: Path) -> None:
    async with ChatServer(writing) as server:
        undisturbed = await work(settings(server, tmp_path / "undisturbed", ""))
        server.asked.clear()
        config = settings(server, tmp_path / "here", f"file://{tmp_path}/mirror")
        folder = await work(config, jobs=1)
        half = len(server.asked)
        before, before_id = await keys_of(config), id_of(folder)
        shutil.rmtree(tmp_path / "here")
        assert await fetched(config, folder.name) == folder
        assert await keys_of(config) == before
        assert id_of(folder) == before_id
        assert await work(config, folder) == folder
        assert (half, len(server.asked)) == (WHOLE - 6, WHOLE)
    assert (folder / "dataset.jsonl").read_bytes() == (undisturbed / "dataset.jsonl").read_bytes()
    # What was fetched was not copied back.
    assert sorted(calls_in(parts_of(tmp_path / "mirror", folder))) == sorted(await keys_of(config))


async def test_calls_that_another_session_paid_for_go_along(tmp_path: Path) -> None:
    async with ChatServer(writing) as server:
        config = settings(server, tmp_path / "here", f"file://{tmp_path}/mirror")
        await work(settings(server, tmp_path / "here", ""))
        folder = await work(config)
        assert len(server.asked) == WHOLE
    assert len(calls_in(parts_of(tmp_path / "mirror", folder))) == WHOLE


@pytest.mark.parametrize("before", [False, True], ids=["mirror of now", "mirror of before"])
async def test_what_was_refused_is_mirrored_as_last_listed_and_fetched_once(
    tmp_path: Path, *, before: bool
) -> None:
    mended, refusal = (
        Failure(Phase.PAIRS, "job 1", Purpose.CHOSEN, "http_400", "no", 400, 1, byte * 32)
        for byte in ("aa", "bb")
    )
    timeout = Failure(Phase.PAIRS, "job 1", Purpose.CHOSEN, "timeout", "late", None, 1, mended.request)

    async def fail(session: Session, *failures: Failure) -> None:
        async with await Ledger.open(ledger_url(config)) as ledger:
            await ledger.add_failures(session.record.id, failures)

    async def refused() -> dict[str, Any]:
        found: dict[str, Any] = json.loads((there / "refused.json").read_bytes())
        return found

    async with ChatServer(writing) as server:
        config = settings(server, tmp_path / "here", f"file://{tmp_path}/mirror")
        folder = await work(config, jobs=1)
        there = tmp_path / "mirror" / folder.name
        assert await refused() == {}
        await work(config, folder, jobs=2, meanwhile=lambda session: fail(session, mended))
        assert set(await refused()) == {mended.request}
        # Of one that is asked again, the mirror says nothing any more, also where it was the only one.
        await work(config, folder, jobs=3, meanwhile=lambda session: fail(session, timeout))
        assert await refused() == {}
        await work(config, folder, meanwhile=lambda session: fail(session, refusal))
        assert set(await refused()) == {refusal.request}
    if before:
        (there / "refused.json").unlink()
    # Twice: the ledger outlives the folder the second time.
    for lost in (tmp_path / "here", folder):
        shutil.rmtree(lost)
        assert await fetched(config, folder.name) == folder
        async with await Ledger.open(ledger_url(config)) as ledger:
            listed = {} if before else {b"\xbb" * 32: refusal}
            assert await failures_by_request(ledger, id_of(folder)) == listed
            assert await failures_of(ledger, id_of(folder)) == ({} if before else {"http_400": 1})


@pytest.mark.parametrize("lost", ["nothing", "memory", "torn memory", "mirror"])
async def test_going_on_copies_what_is_new_and_all_when_something_was_lost(tmp_path: Path, lost: str) -> None:
    mirror = tmp_path / "mirror"
    async with ChatServer(writing) as server:
        config = settings(server, tmp_path / "here", f"file://{mirror}")
        folder = await work(config, jobs=1)
        before = parts_of(mirror, folder)
        (memory,) = folder.glob(".mirror-*")
        assert memory.stat().st_size == 32 * (WHOLE - 6)
        if lost == "memory":
            memory.unlink()
        elif lost == "torn memory":
            os.truncate(memory, 32 * 2 + 5)
        elif lost == "mirror":
            shutil.rmtree(mirror)
        await work(config, folder)
    after = parts_of(mirror, folder)
    assert set(calls_in(after)) == await keys_of(config)
    again = {"nothing": 0, "memory": WHOLE - 6, "torn memory": WHOLE - 6 - 2, "mirror": 0}[lost]
    # A part that comes about again just as it was is no new one.
    assert WHOLE <= len(calls_in(after)) <= WHOLE + again
    if lost != "mirror":
        assert before.items() <= after.items()
    assert memory.stat().st_size == 32 * WHOLE
    shutil.rmtree(tmp_path / "here")
    await fetched(config, folder.name)
    assert len(await keys_of(config)) == WHOLE


async def test_a_mirror_that_never_works_warns_and_the_session_is_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mirror").write_text("no folder")
    async with ChatServer(writing) as server:
        folder = await work(settings(server, tmp_path / "here", f"file://{tmp_path}/mirror", OFTEN))
    assert len((folder / "dataset.jsonl").read_bytes().splitlines()) == 4
    *first, last = said(caplog)
    assert len(first) <= 1, "a mirror that goes on failing is not news"
    assert last.startswith("the mirror is behind the session: file://")
    assert all("\n" not in line for line in said(caplog))


async def test_a_mirror_that_works_again_says_so_and_has_everything(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mirror = tmp_path / "mirror"
    mirror.write_text("no folder")

    async def mend(_session: Session) -> None:
        await until(lambda: len(said(caplog)) == 1)
        mirror.unlink()
        await until(lambda: len(said(caplog)) == 2)

    async with ChatServer(writing) as server:
        config = settings(server, tmp_path / "here", f"file://{mirror}", OFTEN)
        folder = await work(config, meanwhile=mend)
    failing, working = said(caplog)
    assert failing.startswith("the mirror fails: file://")
    assert working.startswith("the mirror works again")
    assert len(calls_in(parts_of(mirror, folder))) == WHOLE
    assert contents(mirror / folder.name / "files") == contents(folder)


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_store_that_hangs_holds_up_neither_the_run_nor_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, *, stopped: bool
) -> None:
    # After a signal, the shorter bound holds; the other one would exceed the test's own.
    monkeypatch.setattr(mirrors, "STOPPED_SECONDS" if stopped else "LAST_SECONDS", 0.2)
    pipes = []

    async def hang(session: Session) -> None:
        # Who opens a pipe for writing waits until somebody reads it: nobody does.
        there = tmp_path / "mirror" / session.name
        there.mkdir(parents=True, exist_ok=True)
        pipes.append(there / ".manifest.json.part")
        os.mkfifo(pipes[0])

    async with ChatServer(writing) as server:
        config = settings(server, tmp_path / "here", f"file://{tmp_path}/mirror", 100)
        folder = await work(config, meanwhile=hang, stopped=stopped)
    assert len((folder / "dataset.jsonl").read_bytes().splitlines()) == 4
    assert said(caplog) == [
        "the mirror is behind the session: it took more than 0.2 s; `checkpoint export` makes a copy of all"
    ]
    os.close(os.open(pipes[0], os.O_RDONLY | os.O_NONBLOCK))


async def test_another_session_of_the_same_name_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mirror = tmp_path / "mirror"
    async with ChatServer(writing) as server:
        folder = await work(settings(server, tmp_path / "here", f"file://{mirror}"), jobs=1)
        before = {path: path.read_bytes() for path in mirror.rglob("*") if path.is_file()}
        other = await work(settings(server, tmp_path / "there", ""), jobs=1)
        namesake = other.rename(other.with_name(folder.name))
        await work(settings(server, tmp_path / "there", f"file://{mirror}"), namesake)
    assert {path: path.read_bytes() for path in mirror.rglob("*") if path.is_file()} == before
    assert "holds another session of this name" in said(caplog)[-1]


async def test_a_large_file_is_copied_when_it_has_grown_or_a_phase_ends(tmp_path: Path) -> None:
    sizes = []
    mirror = tmp_path / "mirror"

    async def grow(session: Session) -> None:
        async with (
            await Ledger.open(f"sqlite:///{tmp_path}/other.db") as ledger,
            open_run(
                configured(output__mirror=f"file://{mirror}/large", output__mirror_minutes=100),
                Keys({}, {}),
                session=session.record.id,
                ledger=ledger,
                stop=Stop(),
                progress=Progress(),
            ) as run,
        ):
            one = Mirror(run, session)
            large = session.folder / "notes.txt"
            copy = mirror / "large" / session.name / "files" / large.name
            for size, whole in [(4, False), (4.5, False), (5.5, False), (5.6, True)]:
                large.write_bytes(bytes(int(size * 1024 * 1024)))
                assert not await one._copy(whole=whole)
                sizes.append(copy.stat().st_size / 1024 / 1024)
            await one.close(60, whole=True)

    async with ChatServer(writing) as server:
        await work(settings(server, tmp_path / "here", f"file://{mirror}"), meanwhile=grow)
    assert sizes == pytest.approx([4, 4, 5.5, 5.6], abs=0.001)


async def test_what_is_not_there_is_not_fetched_and_nothing_is_made(tmp_path: Path) -> None:
    config = configured(output__folder=str(tmp_path / "here"), output__mirror=f"file://{tmp_path}/mirror")
    name = "session_2026-01-31T12-00-00"
    assert await fetch_session(config.output.mirror, name, tmp_path / "here", ledger_url(config)) is None
    for bad in ("..", "session_../x", "/etc", "session_a/b", "session_a\0"):
        with pytest.raises(UsageError, match="is no session's name"):
            await fetch_session(config.output.mirror, bad, tmp_path / "here", ledger_url(config))
    assert names_in(tmp_path) == set()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A mirror and the session in it, which no test changes."""
    folder = tmp_path_factory.mktemp("shared")

    async def make() -> Path:
        async with ChatServer(writing) as server:
            return await work(settings(server, folder / "here", f"file://{folder}/mirror"))

    return folder / "mirror", asyncio.run(make())


async def refused(mirror: Path, name: str, output: Path) -> str:
    """The one line with which a mirror is refused; nothing was taken."""
    config = configured(output__folder=str(output), output__mirror=f"file://{mirror}")
    with pytest.raises(UsageError) as caught:
        await fetched(config, name)
    assert "\n" not in str(caught.value)
    assert ".fetch-" not in str(caught.value)
    assert names_in(output) <= {"ledger.db"}
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("manifest.json", b"{", "its manifest cannot be read"),
        ("manifest.json", b"[" * 100_000, "its manifest cannot be read"),
        ("milestones.json", None, "milestones.json is missing"),
        ("milestones.json", b"{}{}", "its milestones cannot be read"),
        ("refused.json", b"", "its refused questions cannot be read"),
        ("refused.json", b'{"' + b"aa" * 32 + b'": {"status": 500}}', "its refused questions cannot be read"),
        ("refused.json", b"[" * 100_000, "its refused questions cannot be read"),
        ("jobs.json", b"nonsense", "its jobs cannot be read"),
        ("calls", None, f"it holds 0 calls of the {WHOLE} that it names"),
    ],
)
async def test_a_damaged_mirror_is_refused(
    tmp_path: Path, shared: tuple[Path, Path], name: str, content: bytes | None, words: str
) -> None:
    there = shutil.copytree(shared[0], tmp_path / "mirror") / shared[1].name / name
    if content is not None:
        there.write_bytes(content)
    elif there.is_dir():
        shutil.rmtree(there)
    else:
        there.unlink()
    assert words in await refused(tmp_path / "mirror", shared[1].name, tmp_path / "there")


async def test_a_part_that_was_cut_off_and_files_of_others_do_no_harm(
    tmp_path: Path, shared: tuple[Path, Path]
) -> None:
    there = shutil.copytree(shared[0], tmp_path / "mirror") / shared[1].name
    part = next((there / "calls").iterdir())
    (there / "calls" / f"{'0' * 64}.jsonl.gz").write_bytes(part.read_bytes()[:100])
    (there / "calls" / "notes.txt").write_text("mine")
    (there / "files" / ".DS_Store").write_text("mine")
    (there / "files" / "below").mkdir()
    config = configured(output__folder=str(tmp_path / "there"), output__mirror=f"file://{tmp_path}/mirror")
    folder = await fetched(config, shared[1].name)
    assert is_from_elsewhere(folder)
    found = contents(folder)
    was = contents(shared[1])
    # The ledger is another one.
    assert was.pop("session.json") != found.pop("session.json")
    assert found == was


async def test_any_change_of_a_mirror_is_refused_or_harmless(
    tmp_path: Path, shared: tuple[Path, Path]
) -> None:
    chance = random.Random(3)
    names = sorted(path.relative_to(shared[0]) for path in shared[0].rglob("*") if path.is_file())
    for number in range(60):
        place = tmp_path / str(number)
        mirror = shutil.copytree(shared[0], place / "mirror")
        path = mirror / chance.choice([name for name in names if name.parent.name != "files"])
        content = bytearray(path.read_bytes())
        if chance.random() < 0.3:
            del content[chance.randrange(len(content)) :]
        for _ in range(chance.randrange(4)):
            if content:
                content[chance.randrange(len(content))] = chance.randrange(256)
        path.write_bytes(content)
        config = configured(output__folder=str(place / "there"), output__mirror=f"file://{mirror}")
        with suppress(VellumforgeError):
            assert await fetched(config, shared[1].name) == place / "there" / shared[1].name
        assert names_in(place) <= {"mirror", "there"}
        assert names_in(place / "there") <= {"ledger.db", shared[1].name}


async def test_a_hostile_bucket_cannot_write_outside_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server() as s3:
        for name, value in s3.variables.items():
            monkeypatch.setenv(name, value)
        async with ChatServer(writing) as server:
            config = settings(server, tmp_path / "a" / "here", MIRROR)
            folder = await work(config)
        prefix = f"{MIRROR.removeprefix(f's3://{BUCKET}/')}/{folder.name}"
        for evil in ("%2E%2E/evil", "..%5Cevil", "%2E%2E%2F%2E%2E%2Fevil", "/evil", "a/b", ".lock"):
            s3.put(f"{prefix}/files/{evil}", b"evil")
            s3.put(f"{prefix}/calls/{evil}", b"evil")
        assert len(s3.names()) > 12
        was = contents(folder)
        shutil.rmtree(tmp_path / "a")
        assert await fetched(config, folder.name) == folder
        assert set(contents(folder)) == set(was)
        assert names_in(tmp_path / "a" / "here") == {"ledger.db", folder.name}
        assert names_in(tmp_path) == {"a"}


async def test_a_refusal_of_the_store_is_shown_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with s3_server() as s3:
        for name, value in s3.variables.items():
            monkeypatch.setenv(name, value)
        # A store may well say back what it was given.
        monkeypatch.setenv("SOME_TOKEN", "no-such-bucket")
        async with ChatServer(writing) as server:
            folder = await work(settings(server, tmp_path / "here", "s3://no-such-bucket/x"), jobs=1)
        assert s3.names() == []
    log = (folder / "session.log").read_text()
    assert SECRET not in log
    assert "is behind the session" in log
    assert "s3://no-such-bucket" in said(caplog)[-1]
    assert "bucket does not exist" in said(caplog)[-1]
