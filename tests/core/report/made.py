"""Sessions to make reports of, without any run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from tasks.core.cost import Bill, Prices, Usage
from tasks.core.models import Job
from tasks.core.report.tally import AnswerRate, ReportFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

HOSTILE = (
    "</script><script>document.title = 'taken'</script><img src=http://127.0.0.1:9/x onerror=alert(1)>"
    "\"'><style>*{display:none}</style> {{ 7 * 7 }} $\\frac{1}{0}$ \u202eabc\u2066 \x07\x1b[2J"
)


def judged_rows(count: int, *, text: str = "A keeper lit the lamp.") -> list[dict[str, Any]]:
    """Rows of mo-dpo, of three subtopics, with `text` wherever a model may have written."""
    rows = []
    for number in range(count):
        scores = {
            side: {name: {"score": score, "reasoning": text} for name in ("plot", f"style {text}")}
            for side, score in (("chosen", 4), ("rejected", 3 + number % 3))
        }
        rows.append(
            {
                "main_topic": "Lighthouses",
                "sub_topic": f"subtopic {number % 3} {text}",
                "prompt": f"prompt {number} {text}",
                "chosen": f"<think>{text}</think>" * (number % 2) + f"good {number}: {text}" * 5,
                "rejected": f"bad {number}: {text}",
                "chosen_scores": scores["chosen"],
                "rejected_scores": scores["rejected"],
                "chosen_score_total": 4.0,
                "rejected_score_total": 3.0 + number % 3,
                "preference_margin": 1.0 - number % 3,
            }
        )
    return rows


def facts(rows: Sequence[dict[str, Any]], **changes: Any) -> ReportFacts:
    """What is known of a session of these rows: it wanted four more."""
    jobs = [Job(number, "Lighthouses", row["sub_topic"], row["prompt"]) for number, row in enumerate(rows)]
    jobs += [Job(len(rows) + more, "Lighthouses", "subtopic 9", f"more {more}") for more in range(3)]
    bill = Bill()
    bill.add("strong", "chosen", Usage(calls=20, prompt_tokens=2000, completion_tokens=8000))
    bill.add("weak", "rejected", Usage(calls=15, prompt_tokens=1500, completion_tokens=3000))
    known: dict[str, Any] = {
        "session": "session_2026-01-31T12-00-00",
        "topic": "Lighthouses",
        "mode": "mo-dpo",
        "created": 1_769_860_800.0,
        "seconds": 125.0,
        "hosts": {("chosen", "strong"): "127.0.0.1:8000", ("rejected", "weak"): "127.0.0.1:8000"},
        "wanted": len(rows) + 4,
        "subtopics": list(dict.fromkeys(job.sub_topic for job in jobs)),
        "shares": {"subtopic 9": 4} | Counter(row["sub_topic"] for row in rows),
        "jobs": jobs,
        "dropped": {"near_duplicate": 5},
        "lost": {"filtered": 1, "refused": 1},
        "failed": {"timeout": 1},
        "bill": bill,
        "prices": Prices({}),
        "rate": AnswerRate(1_769_860_800.0, 1.5, {"chosen": [4, 10, 6], "rejected": [0, 15, 0]}),
    }
    return ReportFacts(**known | changes)
