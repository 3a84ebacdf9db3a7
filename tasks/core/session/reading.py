"""`checkpoint.json` read, ours or VellumForge2's: for lists, for people, and to take a session over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tasks.core.errors import SessionError
from tasks.core.models import Job, Phase

if TYPE_CHECKING:
    from pathlib import Path

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
        if path.stat().st_size > LARGEST:
            raise SessionError(f"{path} is larger than {LARGEST >> 20} MB: that is no checkpoint")
        return Checkpoint.model_validate(orjson.loads(path.read_bytes()))
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
