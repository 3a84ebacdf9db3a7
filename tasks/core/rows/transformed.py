"""The rows of a transform: what each mode takes, how input rows are read, and how output rows are written.

Taken are the rows of this program and of VellumForge2 (ShareGPT, Alpaca, dpo, kto, mo-dpo), and those of
TRL: `messages`, and `prompt`, `completion`, `chosen` and `rejected` as lists of messages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import orjson

from tasks.core.answers.thinking import split_thinking
from tasks.core.errors import UsageError
from tasks.core.models import Job, Pair, Purpose, Text
from tasks.core.rows.formats import HISTORY, rows_of, with_reasoning

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.core.config.settings import Config
    from tasks.core.models import Scores
    from tasks.core.rows.formats import Row


SFT, DPO, KTO, MO_DPO = "sft", "dpo", "kto", "mo-dpo"

# A row is made of its own answers, and of one more at most: none are chosen from several.
_CHOSEN_BY_NOTHING: dict[str, Any] = {
    "candidates.count": 1,
    "candidates.models": ["main", "rejected"],
    "candidates.choose": "by_model",
    "candidates.min_margin": 0.0,
    "judging.mode": "score",
    "judging.agree": 0,
}
_UNJUDGED: Mapping[str, Any] = _CHOSEN_BY_NOTHING | {
    "generation.dataset_mode": "dpo",
    "judge_filtering.enabled": False,
}
_MAIN_ALONE: Mapping[str, Any] = _CHOSEN_BY_NOTHING | {
    "generation.dataset_mode": "sft",
    "judge_filtering.enabled": False,
}
# Main and judge, the judge asked as in mo-dpo; mo-dpo itself would want a rejected model as well.
_JUDGED: Mapping[str, Any] = _CHOSEN_BY_NOTHING | {
    "generation.dataset_mode": "sft",
    "judge_filtering.enabled": True,
    "judge_filtering.use_explanations": True,
    "models.judge.enabled": True,
}


@dataclass(frozen=True, slots=True)
class Mode:
    """One mode.

    Attributes:
        name: As the command line has it.
        kinds: The rows that it takes.
        purpose: The calls that it makes.
        settings: By dotted key, what it makes of the configuration, so that the models that it needs, and no
            others, are demanded and used.
    """

    name: str
    kinds: frozenset[str]
    purpose: Purpose
    settings: Mapping[str, Any]


_PAIRS = frozenset({DPO, MO_DPO})
MODES: Mapping[str, Mode] = MappingProxyType(
    {
        mode.name: mode
        for mode in (
            Mode("sft-to-dpo", frozenset({SFT}), Purpose.REJECTED, _UNJUDGED),
            Mode("regen-rejected", _PAIRS | {KTO}, Purpose.REJECTED, _UNJUDGED),
            Mode("regen-chosen", _PAIRS | {KTO, SFT}, Purpose.CHOSEN, _MAIN_ALONE),
            Mode("rejudge", _PAIRS, Purpose.JUDGE, _JUDGED),
            Mode("add-reasoning", _PAIRS | {KTO, SFT}, Purpose.REASONING, _MAIN_ALONE),
        )
    }
)
"""The modes by name; the first two are VellumForge2's."""


def find_mode(name: str) -> Mode:
    """The mode of this name.

    Raises:
        UsageError: There is none.
    """
    if name not in MODES:
        raise UsageError(f"there is no mode {name!r}; the modes are {', '.join(MODES)}")
    return MODES[name]


ALPACA: Final = "alpaca"
SHAREGPT: Final = "sharegpt"

SCORES: Final = (
    "chosen_scores",
    "rejected_scores",
    "chosen_score_total",
    "rejected_score_total",
    "preference_margin",
)
COLUMNS: Final = frozenset(
    {
        "main_topic",
        "sub_topic",
        HISTORY,
        "conversations",
        "messages",
        "instruction",
        "input",
        "output",
        "prompt",
        "completion",
        "label",
        "chosen",
        "rejected",
        *SCORES,
    }
)
"""All that is read of a row."""

_ROLES: Final = {"human": "user", "gpt": "assistant"}


class NoRowError(ValueError):
    """A row that cannot be taken; `str()` is the reason."""


@dataclass(frozen=True, slots=True)
class InputRow:
    """A row of the input.

    Attributes:
        place: Its place among all rows, from 0; bad lines have none.
        line: The number of its line, or of its row in Parquet, from 1.
        kind: `sft`, `dpo`, `kto` or `mo-dpo`, by its form.
        prompt: Its prompt.
        chosen: Its chosen answer; None where there is none, or where it is to be made anew.
        rejected: Its rejected answer, likewise.
        form: In sft, `alpaca` or `sharegpt`.
        topics: Its topic and subtopic, where it has them.
        scores: What a judge said of it, as it stands there.
    """

    place: int
    line: int
    kind: str
    prompt: str
    chosen: Text | None = None
    rejected: Text | None = None
    form: str = ""
    topics: tuple[str, str] | None = None
    scores: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Characters of its texts."""
        texts = [text for text in (self.chosen, self.rejected) if text]
        return len(self.prompt) + sum(len(text.content) + len(text.reasoning) for text in texts)


def read_row(row: object, *, place: int, line: int, mode: Mode, split: bool) -> InputRow:
    """What stands in a row.

    Args:
        row: The row, as JSON or Parquet hold it.
        place: Its place among all rows.
        line: Its number in the file.
        mode: What it is for.
        split: Whether thinking in the answers is told apart from them; else they stay as they are.

    Raises:
        NoRowError: It is no row, not one that the mode takes, or lacks what the mode needs.
    """
    if not isinstance(row, dict):
        raise NoRowError("it is no JSON object")
    # Parquet has every column in every row, and null where there is nothing.
    row = {name: value for name, value in row.items() if value is not None}
    if row.get(HISTORY):
        raise NoRowError(f"its {HISTORY} holds what was said before; one question of a user is taken")
    kind, form, prompt, answers = _parts(row)
    if kind not in mode.kinds:
        takes = " and ".join(sorted(mode.kinds))
        raise NoRowError(f"it is a row of {kind}, and {mode.name} takes {takes}")
    if not prompt.strip():
        raise NoRowError("its prompt is blank")
    sides = {name: _side(answers, name, mode, split=split) for name in ("chosen", "rejected")}
    topics = row.get("main_topic"), row.get("sub_topic")
    main_topic, sub_topic = (topic if isinstance(topic, str) else "" for topic in topics)
    return InputRow(
        place,
        line,
        kind,
        prompt,
        sides["chosen"],
        sides["rejected"],
        form,
        (main_topic, sub_topic) if any(isinstance(topic, str) for topic in topics) else None,
        {name: row[name] for name in SCORES if name in row} if kind == MO_DPO else {},
    )


def _side(answers: dict[str, object], name: str, mode: Mode, *, split: bool) -> Text | None:
    """An answer of a row; one that is made anew need not be there."""
    if name == mode.purpose or name not in answers:
        return None
    text = _answer(answers[name], name)
    thought = split_thinking(text.content) if split else None
    if thought and thought.answer:
        reasoning = "\n\n".join(filter(None, (text.reasoning, thought.reasoning)))
        text = Text(thought.answer, reasoning)
    if not text.content.strip():
        raise NoRowError(f"its {name} answer is blank")
    return text


def _parts(row: dict[str, Any]) -> tuple[str, str, str, dict[str, object]]:
    """Kind, form, prompt, and by side the answers of a row, as they stand there."""
    for name in ("conversations", "messages"):
        if name in row:
            prompt, answer = _conversation(row[name], name)
            return SFT, SHAREGPT, prompt, {"chosen": answer}
    if "instruction" in row:
        context = _text(row, "input") if row.get("input") else ""
        prompt = "\n\n".join(filter(None, (_text(row, "instruction"), context)))
        return SFT, ALPACA, prompt, {"chosen": _given(row, "output")}
    if "label" in row:
        if not isinstance(row["label"], bool):
            raise NoRowError("label is neither true nor false")
        side = "chosen" if row["label"] else "rejected"
        return KTO, "", _prompt(row), {side: _given(row, "completion")}
    if "chosen" in row or "rejected" in row:
        kind = MO_DPO if any(name in row for name in SCORES) else DPO
        answers: dict[str, object] = {name: row[name] for name in ("chosen", "rejected") if name in row}
        if "prompt" in row:
            return kind, "", _prompt(row), answers
        # TRL's implicit prompt: both sides are whole conversations.
        read = {name: _conversation(turns, name) for name, turns in answers.items()}
        prompts = list(dict.fromkeys(prompt for prompt, _ in read.values()))
        if len(prompts) > 1:
            raise NoRowError("prompt is missing, and chosen and rejected begin differently")
        return kind, "", prompts[0], {name: answer for name, (_, answer) in read.items()}
    if "completion" in row:
        return SFT, SHAREGPT, _prompt(row), {"chosen": row["completion"]}
    raise NoRowError("it is no row of sft, dpo, kto or mo-dpo")


def _given(row: dict[str, Any], name: str) -> object:
    if name not in row:
        raise NoRowError(f"{name} is missing")
    return row[name]


def _text(row: dict[str, Any], name: str) -> str:
    value = _given(row, name)
    if not isinstance(value, str):
        raise NoRowError(f"{name} is no text")
    return value


def _prompt(row: dict[str, Any]) -> str:
    value = _given(row, "prompt")
    if isinstance(value, str):
        return value
    turns = read_turns(value, "prompt")
    return _asked(turns, "prompt")


def _answer(value: object, name: str) -> Text:
    """An answer: a text, or a list of one message of the model."""
    if isinstance(value, Text):
        return value
    if isinstance(value, str):
        return Text(value)
    turns = read_turns(value, name)
    if [role for role, _ in turns] != ["assistant"]:
        raise NoRowError(f"{name} is neither a text nor one message of the model")
    return turns[0][1]


def _conversation(value: object, name: str) -> tuple[str, Text]:
    """What was asked in a conversation, and the answer at its end."""
    turns = read_turns(value, name)
    if turns[-1:] and turns[-1][0] == "assistant":
        return _asked(turns[:-1], name), turns[-1][1]
    raise NoRowError(f"{name} does not end with an answer of the model")


def _asked(turns: Sequence[tuple[str, Text]], name: str) -> str:
    """The one question; a system prompt before it is passed over, for the configuration has its own."""
    said = [(role, text.content) for role, text in turns if role != "system"]
    if [role for role, _ in said] != ["user"]:
        raise NoRowError(f"{name} holds {len(said)} turns before the answer; one question of a user is taken")
    return said[0][1]


def read_turns(value: object, name: str) -> list[tuple[str, Text]]:
    """Messages as role and text, whatever they call them.

    Raises:
        NoRowError: They are none.
    """
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise NoRowError(f"{name} is neither a text nor a list of messages")
    turns = []
    for turn in value:
        role = turn.get("role") or turn.get("from")
        content = turn.get("content") if turn.get("content") is not None else turn.get("value")
        if not isinstance(role, str) or not isinstance(content, str):
            raise NoRowError(f"{name} holds a message without a role or a text")
        reasoning = turn.get("reasoning_content")
        text = Text(content, reasoning.strip() if isinstance(reasoning, str) else "")
        turns.append((_ROLES.get(role, role), text))
    return turns


def check_sides(row: InputRow, mode: Mode) -> InputRow:
    """The row, when it has the answers that the mode keeps.

    Raises:
        NoRowError: It lacks one.
    """
    if row.kind == KTO:
        return row
    wanted = ["chosen"] if row.kind == SFT else ["chosen", "rejected"]
    for name in wanted:
        if name != mode.purpose and getattr(row, name) is None:
            raise NoRowError(f"{name} is missing")
    return row


@dataclass(frozen=True, slots=True)
class MadeRow:
    """A row after its calls: its answers, and the judge's new scores where there are some."""

    chosen: Text | None
    rejected: Text | None
    scores: tuple[Scores, Scores] | None = None


class Rendering:
    """The lines of rows, under the settings that concern them."""

    def __init__(self, config: Config, mode: Mode) -> None:
        self._mode = mode
        self._config = config
        self._forms: dict[tuple[str, str, bool], Config] = {}

    def lines(self, row: InputRow, made: MadeRow) -> tuple[bytes, bytes]:
        """The row without and with reasoning, each a JSON line with its newline."""
        plain, thinking = self._rows(row, made)
        return tuple(orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE) for item in (plain, thinking))  # type: ignore[return-value]  # two of them

    def _rows(self, row: InputRow, made: MadeRow) -> tuple[Row, Row]:
        config = self._form(self._kind(row, made), row)
        job = Job(row.place, *(row.topics or (self._config.generation.main_topic, "")), row.prompt)
        if row.kind == KTO:
            return _kto(config, job, made)
        assert made.chosen is not None  # noqa: S101 - every other kind has one
        pair = Pair(job, made.chosen, made.rejected, *(made.scores or (None, None)))
        found = []
        for item in (pair, with_reasoning(config, pair)):
            written = rows_of(config, item)[0]
            if config.generation.dataset_mode == DPO and self._keeps_scores(row):
                written = {"main_topic": job.main_topic, "sub_topic": job.sub_topic, **written, **row.scores}
            found.append(written)
        return found[0], found[1]

    def _kind(self, row: InputRow, made: MadeRow) -> str:
        """The dataset mode of the row that is written."""
        if made.scores is not None:
            return MO_DPO
        return SFT if row.kind == SFT and made.rejected is None else DPO

    def _keeps_scores(self, row: InputRow) -> bool:
        """Whether the scores still are those of the row's answers."""
        return row.kind == MO_DPO and self._mode.name == "add-reasoning"

    def _form(self, kind: str, row: InputRow) -> Config:
        key = kind, row.form or SHAREGPT, row.topics is not None
        if key not in self._forms:
            changes = {"dataset_mode": kind, "sft_format": key[1], "include_topic_columns": key[2]}
            generation = self._config.generation.model_copy(update=changes)
            self._forms[key] = self._config.model_copy(update={"generation": generation})
        return self._forms[key]


def _kto(config: Config, job: Job, made: MadeRow) -> tuple[Row, Row]:
    """A row of kto, which is one side of a pair."""
    label = made.chosen is not None
    text = made.chosen or made.rejected
    assert text is not None  # noqa: S101 - a row of kto has one answer
    # As the side that it is: reasoning of rejected answers is written only where that is asked for.
    pair = Pair(job, text) if label else Pair(job, text, text)
    thinking = with_reasoning(config, pair)
    shown = thinking.chosen if label else thinking.rejected
    assert shown is not None  # noqa: S101 - it was there before
    contents = text.content, shown.content
    plain, other = ({"prompt": job.prompt, "completion": content, "label": label} for content in contents)
    return plain, other
