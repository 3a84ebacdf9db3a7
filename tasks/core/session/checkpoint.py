"""`checkpoint.json`, in VellumForge2's form: written for people and for that program, never asked here.

One writer keeps only the newest state. It rests a hundred times as long as a write took, so that it costs
about one percent whatever the size of the run; the subtopics and prompts, which are most of the file and
seldom change, are rendered when they do.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tasks.core import files
from tasks.core.errors import SessionError
from tasks.core.models import Job, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tasks.core.config.settings import Config


log = logging.getLogger("vellumforge.checkpoint")

REST = 99
"""How many times the duration of a write the writer rests after it."""

NANOSECONDS = 10**9
_INDENT = orjson.OPT_INDENT_2
_NEVER = "0001-01-01T00:00:00Z"
JOBS_AT_ONCE = 500
"""Jobs that are rendered at once."""


@dataclass(slots=True)
class CheckpointState:
    """What `checkpoint.json` says; times are seconds since the epoch.

    Attributes:
        session_id: UUID of the session.
        config_hash: VellumForge2's own hash, see `config_hash`.
        seconds_before: Seconds that earlier runs of the session took.
        resumed: When this run of it began; None when that is when the session did.
        completed: Ids of the jobs that are done, filtered ones included.
        prompt_success_rate: Share of subtopics that have prompts.
    """

    session_id: str
    config_hash: str
    started: float
    seconds_before: float = 0.0
    resumed: float | None = None
    ended: float | None = None
    phase: Phase = Phase.SUBTOPICS
    subtopics: Sequence[str] = ()
    jobs: Sequence[Job] = ()
    failed_subtopics: Sequence[str] = ()
    prompt_success_rate: float = 0.0
    completed: list[int] = field(default_factory=list)
    failures: int = 0
    filtered: int = 0

    def render(self, now: float, fixed: Sequence[bytes] = ()) -> list[bytes]:
        """The file in pieces; `fixed` is what `fixed_part` rendered before.

        They are never put together: the prompts of a large run would be in memory several times.
        """
        fixed = fixed or self.fixed_part()
        return [b"{\n", self._beginning(now), b",\n", *fixed, b",\n", self._rest(now), b"\n}"]

    @property
    def content(self) -> tuple[bool, bool, int]:
        """Whether there are subtopics and prompts, and how many: while it stays, the fixed part does."""
        prompted = self.phase in {Phase.PAIRS, Phase.COMPLETE}
        return self.phase is not Phase.SUBTOPICS, prompted, len(self.jobs)

    def fixed_part(self) -> list[bytes]:
        """The subtopics and prompts as JSON: most of the file."""
        generated, prompted, _ = self.content
        before = {
            "subtopics_complete": generated,
            "subtopics": list(self.subtopics) or None,
            "prompts_complete": prompted,
        }
        return [
            _inner(before),
            *self._prompts(),
            _inner({"failed_subtopics": list(self.failed_subtopics) or None}),
        ]

    def _prompts(self) -> Iterator[bytes]:
        if not self.jobs:
            yield b',\n  "prompts": null,\n'
            return
        begin, end = b'  "prompts": [\n', b"\n  ]"
        separator = b",\n" + begin
        for start in range(0, len(self.jobs), JOBS_AT_ONCE):
            jobs = [
                {"ID": job.id, "MainTopic": job.main_topic, "SubTopic": job.sub_topic, "Prompt": job.prompt}
                for job in self.jobs[start : start + JOBS_AT_ONCE]
            ]
            yield separator
            yield _inner({"prompts": jobs})[len(begin) : -len(end)]
            separator = b",\n"
        yield end + b",\n"

    def _beginning(self, now: float) -> bytes:
        document = {
            "session_id": self.session_id,
            "created_at": rfc3339(self.started),
            "last_saved_at": rfc3339(now),
            "current_phase": str(self.phase),
        }
        return _inner(document)

    def _rest(self, now: float) -> bytes:
        done = len(self.completed) - self.filtered
        begun = self.started if self.resumed is None else self.resumed
        until = now if self.ended is None else self.ended
        duration = int((self.seconds_before + until - begun) * NANOSECONDS)
        document: dict[str, Any] = {
            "prompt_success_rate": self.prompt_success_rate,
            "completed_job_ids": dict.fromkeys(map(str, self.completed), True),
            "stats": {
                "StartTime": rfc3339(self.started),
                "EndTime": _NEVER if self.ended is None else rfc3339(self.ended),
                "TotalPrompts": len(self.jobs),
                "SuccessCount": done,
                "FailureCount": self.failures,
                "FilteredCount": self.filtered,
                "TotalDuration": duration,
                "AverageDuration": duration // done if done else 0,
            },
            "config_hash": self.config_hash,
        }
        return _inner(document)


def _inner(document: dict[str, Any]) -> bytes:
    """An object as JSON, without its braces: side by side, several are one."""
    return orjson.dumps(document, option=_INDENT)[2:-2]


class CheckpointWriter:
    """Writes the newest state in the background; a file that cannot be written only warns.

    A disabled writer takes the same calls and writes nothing.
    """

    def __init__(
        self, path: Path, state: CheckpointState, *, enabled: bool, interval: int, floor: int = 0
    ) -> None:
        """Make a writer.

        Args:
            path: The file.
            state: What is written; the caller changes it and says so.
            enabled: `generation.enable_checkpointing`.
            interval: Finished jobs between two writes, `generation.checkpoint_interval`.
            floor: Finished jobs in the file of a session that is resumed: it is not replaced by one with
                fewer while they are found again in the ledger.
        """
        self.state = state
        self._path = path
        self._enabled = enabled
        self._interval = interval
        self._floor = floor
        self._unsaved = 0
        self._fixed: list[bytes] = []
        self._fixed_for = self.state.content
        self._wake = asyncio.Event()
        # Held while a file is written: whoever waits for it renders its state after that.
        self._writing = asyncio.Lock()
        self._writer: asyncio.Task[None] | None = None
        # One thread: a write whose waiter was cancelled still lands before the next.
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._warned = False
        self.seconds = 0.0
        """Wall time of writing so far."""
        self.cpu_seconds = 0.0
        """CPU time of it, in this thread and the one that writes, for the benchmark."""

    def completed(self, job_id: int) -> None:
        """Note a finished job; every `interval` jobs the background writer is woken."""
        self.state.completed.append(job_id)
        self._unsaved += 1
        if self._enabled and self._unsaved >= self._interval:
            self._unsaved = 0
            self._wake.set()
            if self._writer is None:
                self._writer = asyncio.create_task(self._write_when_woken())

    async def save(self) -> None:
        """Write the state now: at the end of a phase, and last of all at the end of the run."""
        if not self._enabled:
            return
        if self.state.phase is Phase.COMPLETE:
            # Nothing is written behind the last one: a kill would leave half a file in a finished session,
            # which nobody opens again.
            self._end_writer()
        await self._write()

    def close(self) -> None:
        """End the background writer; what it has not begun to write stays unwritten, and nothing is after."""
        self._end_writer()
        self._thread.shutdown(cancel_futures=True)

    def _end_writer(self) -> None:
        """End the background writer; what it has begun is written before whatever follows."""
        if self._writer is not None:
            self._writer.cancel()
            self._writer = None

    async def _write_when_woken(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(await self._write() * REST)

    async def _write(self) -> float:
        """Write the file in a worker thread; returns the seconds that it took."""
        async with self._writing:
            if len(self.state.completed) < self._floor and self.state.phase is not Phase.COMPLETE:
                return 0.0
            started, rendering = time.perf_counter(), time.thread_time()
            if not self._fixed or self._fixed_for != self.state.content:
                self._fixed, self._fixed_for = self.state.fixed_part(), self.state.content
            pieces = self.state.render(time.time(), self._fixed)
            self.cpu_seconds += time.thread_time() - rendering
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._put, pieces)
            except OSError as error:
                if not self._warned:
                    self._warned = True
                    log.warning("%s cannot be written: %s; going on without it", self._path, error.strerror)
            took = time.perf_counter() - started
            self.seconds += took
            return took

    def _put(self, pieces: Sequence[bytes]) -> None:
        """Replace the file; in the writer's thread."""
        began = time.thread_time()
        try:
            with files.replaced(self._path) as file:
                file.writelines(pieces)
        finally:
            self.cpu_seconds += time.thread_time() - began


def config_hash(config: Config) -> str:
    """VellumForge2's hash of a configuration: topic and counts alone, so that it can resume our sessions."""
    generation = config.generation
    text = f"{generation.main_topic}:{generation.num_subtopics}:{generation.num_prompts_per_subtopic}"
    return hashlib.sha256(text.encode()).digest()[:8].hex()


def rfc3339(seconds: float) -> str:
    """A time in UTC as Go prints it, with microseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


FILE_NAME = "checkpoint.json"
LARGEST = 1024**3
"""Bytes; a larger file is no checkpoint."""


# These are shown on terminals, and stored in the ledger.
_Line = Annotated[str, Field(pattern=r"^\P{C}*$")]


def _empty_for_null(value: object) -> object:
    # Go writes an empty list as null.
    return () if value is None else value


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class _Prompt(_Document):
    id: int = Field(alias="ID", ge=0)
    main_topic: str = Field("", alias="MainTopic")
    sub_topic: str = Field("", alias="SubTopic")
    prompt: str = Field(alias="Prompt")


class Stats(_Document):
    """The statistics; durations in nanoseconds."""

    total: int = Field(0, alias="TotalPrompts", ge=0)
    succeeded: int = Field(0, alias="SuccessCount", ge=0)
    failed: int = Field(0, alias="FailureCount", ge=0)
    filtered: int = Field(0, alias="FilteredCount", ge=0)
    total_duration: int = Field(0, alias="TotalDuration")
    average_duration: int = Field(0, alias="AverageDuration")


class Checkpoint(_Document):
    """What a checkpoint says; times are RFC 3339 as they stand in the file."""

    session_id: _Line = ""
    created_at: _Line = ""
    last_saved_at: _Line = ""
    current_phase: Phase = Phase.SUBTOPICS
    subtopics_complete: bool = False
    subtopics: Annotated[tuple[str, ...], BeforeValidator(_empty_for_null)] = ()
    prompts_complete: bool = False
    prompts: Annotated[tuple[_Prompt, ...], BeforeValidator(_empty_for_null)] = ()
    failed_subtopics: Annotated[tuple[str, ...], BeforeValidator(_empty_for_null)] = ()
    completed_job_ids: Annotated[dict[int, bool], BeforeValidator(lambda value: value or {})] = {}
    stats: Stats = Stats()
    config_hash: _Line = ""

    @property
    def jobs(self) -> list[Job]:
        """The jobs, by id."""
        jobs = (Job(item.id, item.main_topic, item.sub_topic, item.prompt) for item in self.prompts)
        return sorted(jobs, key=lambda job: job.id)

    @property
    def completed(self) -> frozenset[int]:
        """Ids of the jobs that are marked done."""
        return frozenset(job_id for job_id, done in self.completed_job_ids.items() if done)

    @property
    def progress(self) -> float:
        """Share of the jobs that are marked done, 0 to 1; 1 for a complete session."""
        if self.current_phase is Phase.COMPLETE:
            return 1.0
        return len(self.completed) / len(self.prompts) if self.prompts else 0.0


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in a session's folder; None when there is none.

    Raises:
        SessionError: It is there and cannot be read, or is damaged.
    """
    path = folder / FILE_NAME
    try:
        with files.opened(path) as file:
            if os.fstat(file.fileno()).st_size > LARGEST:
                raise SessionError(f"{path} is larger than {LARGEST >> 20} MB: that is no checkpoint")
            return Checkpoint.model_validate(orjson.loads(file.read()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SessionError(f"{path} cannot be read: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise SessionError(f"{path} is damaged: it is not JSON ({error})") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        # A key of the file may be part of the place, and hold anything.
        place = ".".join(part if str(part).isprintable() else repr(part) for part in map(str, first["loc"]))
        raise SessionError(f"{path} is damaged: {place or 'the file'}: {first['msg']}") from error
