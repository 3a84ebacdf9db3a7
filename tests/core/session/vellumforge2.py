"""Session folders as VellumForge2 leaves them: made by hand here, in the form of its own files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tasks.core.models import Job

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

TOPIC = "Lighthouse keepers & the sea"
NAME = "session_2026-11-23T04-24-33"
UUID = "b076af13-fb46-4f5c-81e6-6bfab68c8775"
CRITERIA = ("creativity", "plot_quality", "writing_quality")

BACKUP = """\
[generation]
main_topic = "Lighthouse keepers & the sea"
num_subtopics = 8
num_prompts_per_subtopic = 5
concurrency = 4
dataset_mode = "dpo"

[models.main]
base_url = "http://127.0.0.1:9/v1"
model_name = "strong"
rate_limit_per_minute = 100000

[models.rejected]
base_url = "http://127.0.0.1:9/v1"
model_name = "weak"
rate_limit_per_minute = 100000

[prompt_templates]
subtopic_generation = "subtopics {{.NumSubtopics}}{{if .IsRetry}} but {{.ExcludeSubtopics}}{{end}}"
prompt_generation = "prompts {{.NumPrompts}} of {{.SubTopic}}"
chosen_generation = "chosen {{.Prompt}}"
rejected_generation = "rejected {{.Prompt}}"
"""


def go_json(value: object, indent: int | None = None) -> str:
    """JSON as Go's encoder writes it: keys as given, `<`, `>`, `&` and line separators escaped."""
    text = json.dumps(
        value, ensure_ascii=False, indent=indent, separators=(",", ": ") if indent else (",", ":")
    )
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def go_jobs(subtopics: int = 8, prompts: int = 5) -> list[Job]:
    """Jobs 0, 1, …; their texts hold what Go escapes."""
    return [
        Job(number, TOPIC, subtopic_name(number // prompts), f'Who said "<fog & salt>" no. {number}?')
        for number in range(subtopics * prompts)
    ]


def subtopic_name(index: int) -> str:
    """The name of a subtopic."""
    return f"The drowned archives & co no. {index}"


def chosen_text(job: Job) -> str:
    """The chosen answer of a job."""
    return f"The keeper of lamp {job.id} lit it <again> & waited until all the ships had come home."


def rejected_text(job: Job) -> str:
    """The rejected answer of a job."""
    return f"A lamp {job.id} & a sea."


def scores(first: float, reasoning: str = "Handled with care.") -> dict[str, Any]:
    """A judge's scores: `first` of the first criterion, 3 of the others."""
    return {
        name: {"score": score, "reasoning": reasoning}
        for name, score in zip(CRITERIA, (first, 3, 3), strict=True)
    }


def rows(mode: str, job: Job, *, topics: bool = True, scored: bool = True, **texts: str) -> list[str]:
    """The rows of a job, without newlines; `mode` is a dataset mode, with sft's format instead of `sft`."""
    chosen = texts.get("chosen", chosen_text(job))
    rejected = texts.get("rejected", rejected_text(job))
    columns = {"main_topic": job.main_topic, "sub_topic": job.sub_topic} if topics else {}
    pair = {"prompt": job.prompt, "chosen": chosen, "rejected": rejected}
    documents: list[dict[str, Any]]
    match mode:
        case "dpo":
            documents = [pair]
        case "kto":
            documents = [
                {"prompt": job.prompt, "completion": chosen, "label": True},
                {"prompt": job.prompt, "completion": rejected, "label": False},
            ]
        case "alpaca":
            documents = [columns | {"instruction": job.prompt, "output": chosen}]
        case "sharegpt":
            turns = [{"from": "human", "value": job.prompt}, {"from": "gpt", "value": chosen}]
            documents = [columns | {"conversations": turns}]
        case "mo-dpo":
            judged = {"chosen_scores": scores(5), "rejected_scores": scores(2), "preference_margin": 1}
            documents = [columns | pair | (judged if scored else {})]
        case _:
            raise AssertionError(mode)
    return [go_json(document) for document in documents]


def rows_of_all(mode: str, jobs: Iterable[Job], **options: Any) -> list[str]:
    """The rows of some jobs in their order."""
    return [row for job in jobs for row in rows(mode, job, **options)]


def checkpoint(
    jobs: Sequence[Job], done: Iterable[int], *, phase: str = "pairs", prompts_complete: bool = True
) -> dict[str, Any]:
    """The document of a `checkpoint.json`; its lists are null where they are empty."""
    subtopics = list(dict.fromkeys(job.sub_topic for job in jobs))
    ids = sorted(str(job_id) for job_id in done)
    finished = phase == "complete"
    return {
        "session_id": UUID,
        "created_at": "2026-11-23T04:24:33.101362301Z",
        "last_saved_at": "2026-11-23T04:24:59.110217342Z",
        "current_phase": phase,
        "subtopics_complete": True,
        "subtopics": subtopics or None,
        "prompts_complete": prompts_complete,
        "prompts": [
            {"ID": job.id, "MainTopic": job.main_topic, "SubTopic": job.sub_topic, "Prompt": job.prompt}
            for job in jobs
            if prompts_complete
        ]
        or None,
        "failed_subtopics": None,
        "prompt_success_rate": 0,
        "completed_job_ids": dict.fromkeys(ids, True),
        "stats": {
            "StartTime": "2026-11-23T04:24:33.101455571Z",
            "EndTime": "2026-11-23T04:24:59.111011Z" if finished else "0001-01-01T00:00:00Z",
            "TotalPrompts": len(jobs),
            "SuccessCount": len(ids),
            "FailureCount": 0,
            "FilteredCount": 0,
            "TotalDuration": 9924624 if finished else 0,
            "AverageDuration": 827052 if finished else 0,
        },
        "config_hash": "87c06cb5f6a749c5",
    }


def write_session(
    output: Path, document: dict[str, Any], lines: Iterable[str] = (), *, name: str = NAME, tail: str = ""
) -> Path:
    """Write a session folder.

    Args:
        output: Where it goes.
        document: Its checkpoint.
        lines: Its rows.
        name: The folder's name.
        tail: What stands after the last row: a torn one.
    """
    folder = output / name
    folder.mkdir(parents=True)
    (folder / "checkpoint.json").write_text(go_json(document, indent=2), encoding="utf-8")
    text = "".join(f"{line}\n" for line in lines) + tail
    (folder / "dataset.jsonl").write_text(text, encoding="utf-8")
    (folder / "config.toml.bak").write_text(BACKUP, encoding="utf-8")
    return folder
