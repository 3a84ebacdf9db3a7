"""Which recipe for which money: `python -m tests.benchmarks.recipes`.

A model server on loopback gives each answer a hidden quality. Judges see it through noise, with a taste for
length and, where they compare, for what stands first. Each recipe makes pairs of the same prompts, with the
same answers, and what it chose is held against the hidden quality. Qualities, noise and tastes are the
parameters below: they are chosen, not measured at any model, so what counts is how recipes stand to each
other. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import re
import tempfile
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING, Any

from tasks.core.demo.http import RequestParser
from tasks.core.models import Purpose
from tests.core.running import JUDGES, TEMPLATES, running, settled, some_jobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.core.models import Job, Pair

WRITERS = {"strong": 0.6, "weak": 0.0}
"""Mean quality of a model's answers, in standard deviations of the answers of one model."""
WORDS, SPREAD = 180, 0.35
"""The median number of words of an answer, and the standard deviation of its logarithm."""


@dataclass(frozen=True, slots=True)
class Judge:
    """How a judge sees quality.

    Attributes:
        noise: Standard deviation of what it gets wrong about an answer, in those of quality.
        length: What a standard deviation of length is worth to it.
        first: What standing first is worth to it.
    """

    noise: float
    length: float
    first: float


CRITICS = {
    "critic": Judge(0.5, 0.3, 0.5),
    "judge_2": Judge(0.75, 0.15, 0.7),
    "judge_3": Judge(0.75, 0.3, 0.7),
    "judge_4": Judge(0.75, 0.45, 0.7),
}
"""A large judge, and three small ones."""
PRICES = {
    "strong": (2.5, 10.0),
    "weak": (0.15, 0.6),
    "critic": (2.5, 10.0),
    **dict.fromkeys(("judge_2", "judge_3", "judge_4"), (0.12, 0.5)),
}
"""US dollars for a million tokens in and out: three small judges together cost a seventh of the large one."""
RUBRIC = 250
"""Tokens that a template adds to what is judged."""
CHECKS = 6
TIE = 0.15
PANEL = ["judge_2", "judge_3", "judge_4"]

OF_FOUR = {"count": 4, "models": ["main"], "choose": "best_worst"}
OF_EIGHT = OF_FOUR | {"count": 8}
OF_TWO = {"count": 1, "choose": "best_worst"}
RECIPES: dict[str, dict[str, Any]] = {
    "strong against weak, not judged": {},
    "strong against weak, margin 1": {"candidates": {"min_margin": 1.0}},
    "strong against weak, compared": {"judging": {"mode": "pairwise"}},
    "better of two by scores": {"candidates": OF_TWO},
    "better of two, margin 1": {"candidates": OF_TWO | {"min_margin": 1.0}},
    "better of two, one order": {"judging": {"mode": "pairwise", "swap": False}, "candidates": OF_TWO},
    "better of two, both orders": {"judging": {"mode": "pairwise"}, "candidates": OF_TWO},
    "better of two, panel": {"judging": {"models": PANEL}, "candidates": OF_TWO},
    "better of two, panel agrees": {"judging": {"models": PANEL, "agree": 3}, "candidates": OF_TWO},
    "better of two, panel agrees in both orders": {
        "judging": {"models": PANEL, "agree": 3, "mode": "pairwise"},
        "candidates": OF_TWO,
    },
    "better of two, checklist": {"judging": {"mode": "checklist"}, "candidates": OF_TWO},
    "best of 4 against the worst": {"candidates": OF_FOUR},
    "best of 4 against mean - 2 sd": {"candidates": OF_FOUR | {"choose": "best_mean_minus_2_sd"}},
    "best of 4, margin 1": {"candidates": OF_FOUR | {"min_margin": 1.0}},
    "best of 4, both orders": {"judging": {"mode": "pairwise"}, "candidates": OF_FOUR},
    "best of 4, panel": {"judging": {"models": PANEL}, "candidates": OF_FOUR},
    "best of 4, panel agrees": {"judging": {"models": PANEL, "agree": 3}, "candidates": OF_FOUR},
    "best of 4, checklist": {"judging": {"mode": "checklist"}, "candidates": OF_FOUR},
    "best of 8 against the worst": {"candidates": OF_EIGHT},
    "best of 8 against mean - 2 sd": {"candidates": OF_EIGHT | {"choose": "best_mean_minus_2_sd"}},
    "best of 8 against a random one": {"candidates": OF_EIGHT | {"choose": "best_random"}},
    "best of 4, lengths within 1.25": {"candidates": OF_FOUR | {"max_length_ratio": 1.25}},
}


def drawn(*words: object) -> float:
    """A number of the normal distribution that is always the same for these words."""
    share = (int.from_bytes(sha256(repr(words).encode()).digest()[:7], "big") + 0.5) / 2**56
    return NormalDist().inv_cdf(share)


@dataclass(slots=True)
class World:
    """The model server, and what it knows of its answers.

    Attributes:
        answers: Quality and length of each answer by its mark; the length in standard deviations.
        asked: The keys of the requests of a recipe by model and prompt: the first is answered with the first
            answer, whatever the server's address is.
    """

    answers: dict[str, tuple[float, float]] = field(default_factory=dict)
    asked: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def write(self, model: str, prompt: str, key: str) -> str:
        """An answer of some length, whose mark tells its quality to the server alone."""
        keys = self.asked.setdefault((model, prompt), [])
        if key not in keys:
            keys.append(key)
        mark = sha256(f"{model} {prompt} {keys.index(key)}".encode()).hexdigest()[:8]
        quality = WRITERS[model] + drawn("quality", mark)
        length = 0.2 * drawn("quality", mark) + math.sqrt(1 - 0.2**2) * drawn("length", mark)
        self.answers[mark] = quality, length
        return f"#{mark} " + "word " * round(WORDS * math.exp(SPREAD * length)) + "end."

    def answer(self, model: str, asked: str, key: str) -> str:
        """What a model answers."""
        word, _, rest = asked.partition(" ")
        purpose, marks = Purpose(word), re.findall(r"#([0-9a-f]{8}) ", rest)
        match purpose:
            case Purpose.JUDGE:
                return json.dumps({name: self.score(model, marks[0], name) for name in "abcd"})
            case Purpose.COMPARISON:
                return json.dumps({"better": self.better(model, marks[0], marks[1])})
            case Purpose.CHECKLIST:
                return json.dumps([f"Is it so, for the {number}th time?" for number in range(CHECKS)])
            case Purpose.CHECKS:
                said = (self.check(model, marks[0], place) for place in range(CHECKS))
                return json.dumps({str(number): word for number, word in enumerate(said, 1)})
            case _:
                return self.write(model, rest, key)

    def seen(self, model: str, mark: str) -> float:
        """An answer's quality as a judge sees it."""
        judge, (quality, length) = CRITICS[model], self.answers[mark]
        return quality + judge.length * length + judge.noise * drawn(model, mark)

    def score(self, model: str, mark: str, criterion: str) -> int:
        """A criterion's score."""
        seen = self.seen(model, mark) + 0.3 * drawn(model, mark, criterion)
        return min(5, max(1, round(3 + 0.9 * seen)))

    def better(self, model: str, one: str, other: str) -> str:
        """The better one of two, or a tie."""
        judge = CRITICS[model]
        by_order = judge.first + 0.2 * drawn(model, one, other)
        difference = self.seen(model, one) - self.seen(model, other) + by_order
        return "tie" if abs(difference) < TIE else "A" if difference > 0 else "B"

    def check(self, model: str, mark: str, place: int) -> str:
        """Yes or no to one of the questions, of which some are harder; length counts for half as much."""
        judge, (quality, length) = CRITICS[model], self.answers[mark]
        hard = (place - (CHECKS - 1) / 2) * 0.6
        seen = quality + judge.length / 2 * length + judge.noise * drawn(model, mark)
        return "yes" if seen + judge.noise * drawn(model, mark, place) > hard else "no"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests."""
        parser = RequestParser()
        while data := await reader.read(1 << 16):
            parser.feed(data)
            while request := parser.next_request():
                body = json.loads(request.body)
                asked = body["messages"][-1]["content"]
                said = self.answer(body["model"], asked, request.headers["idempotency-key"])
                tokens = RUBRIC + len(asked) // 4, len(said) // 4
                usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
                choice = {"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
                content = json.dumps({"choices": [choice], "usage": usage}).encode()
                writer.write(b"HTTP/1.1 200 -\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content))
                await writer.drain()
        writer.close()


@dataclass(slots=True)
class Result:
    """What a recipe came to.

    Attributes:
        pairs: The pairs that it kept, as quality and length of chosen and rejected.
        prompts: Prompts that it was given.
        calls: Calls that it paid for.
        usd: What they cost.
    """

    pairs: list[tuple[tuple[float, float], tuple[float, float]]]
    prompts: int
    calls: int
    usd: float

    def row(self, name: str) -> str:
        """The line of the table."""
        wrong = fmean(chosen[0] < rejected[0] for chosen, rejected in self.pairs)
        quality = fmean(chosen[0] for chosen, _ in self.pairs)
        apart = fmean(chosen[0] - rejected[0] for chosen, rejected in self.pairs)
        longer = fmean(chosen[1] > rejected[1] for chosen, rejected in self.pairs)
        kept = len(self.pairs)
        cells = (
            f"{kept / self.prompts:.0%}",
            f"{wrong:.1%}",
            f"{quality:.2f}",
            f"{apart:.2f}",
            f"{longer:.0%}",
            f"{self.calls / kept:.1f}",
            f"{1000 * self.usd / kept:.2f}",
        )
        return f"| {name} | {' | '.join(cells)} |"


async def measure(world: World, url: str, recipe: dict[str, Any], prompts: int) -> Result:
    """Make the pairs of a recipe, in a folder of its own, so that it pays for all that it needs."""
    small = {"base_url": url, "rate_limit_per_minute": 0}
    settings: dict[str, Any] = {
        "generation__concurrency": 64,
        "generation__dataset_mode": "dpo",
        "execution__stop_at_loss": 1.0,
        "prompt_templates": TEMPLATES | JUDGES,
        "pricing": {name: {"input": price[0], "output": price[1]} for name, price in PRICES.items()},
        **{f"models__{name}": small | {"model_name": name} for name in PANEL},
        **recipe,
    }
    kept: list[Pair] = []
    world.asked.clear()

    def keep(_job: Job, pair: Pair | None) -> None:
        if pair is not None:
            kept.append(pair)

    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder), url, **settings) as run:
            outcomes = await settled(run, some_jobs(prompts), keep)
            failures = [failure for outcome in outcomes for failure in outcome.failures]
            if failures:
                raise RuntimeError(failures[0].message)
            cost = run.budget.run.cost(run.budget.prices)
            calls = run.progress.paid.total()

    def of(text: str) -> tuple[float, float]:
        return world.answers[text[1:9]]

    sides = [(of(pair.chosen.content), of(pair.rejected.content)) for pair in kept if pair.rejected]
    return Result(sides, prompts, calls, float(cost.usd))


async def table(prompts: int, wanted: Callable[[str], bool]) -> None:
    """Print a row for each recipe."""
    world = World()
    server = await asyncio.start_server(world.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    print(f"{prompts:,} prompts")
    columns = ("kept", "wrong way round", "quality of chosen", "apart", "chosen longer", "calls")
    print(f"| recipe | {' | '.join(columns)} | USD for 1,000 |")
    print("|:--|--:|--:|--:|--:|--:|--:|--:|")
    for name, recipe in RECIPES.items():
        if wanted(name):
            print((await measure(world, f"http://{host}:{port}/v1", recipe, prompts)).row(name), flush=True)
    server.close()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--prompts", type=int, default=1_000)
    parser.add_argument("--only", default="", help="recipes whose name holds this")
    options = parser.parse_args()
    asyncio.run(table(options.prompts, lambda name: options.only in name))


if __name__ == "__main__":
    main()
