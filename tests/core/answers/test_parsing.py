"""Model answers into data: what is found, what is refused, and that nothing breaks the parser."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.core.answers.parsing import ParseError, parse_items, parse_scores
from tasks.core.models import Score, Scores

if TYPE_CHECKING:
    from collections.abc import Callable

Row = tuple[str, float, str]

line_characters = st.characters(codec="utf-8", exclude_characters="\0\n\r\t")
json_like = st.sampled_from(
    [
        '"',
        "'",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "\\",
        " ",
        "- ",
        "1. ",
        "a",
        "null",
        "```",
        '["x", "y"]',
        "…",
        "//",
    ]
)
item = (st.text(line_characters) | st.lists(json_like).map("".join)).map(str.strip).filter(bool)
items = st.lists(item, max_size=6)

SHAPES: dict[str, Callable[[list[str]], object]] = {
    "plain": lambda found: found,
    "wrapped": lambda found: {"subtopics": found},
    "wrapped twice": lambda found: {"data": {"count": len(found), "subtopics": found}},
    "objects": lambda found: [{"prompt": text, "level": "hard", "tags": ["t"]} for text in found],
    "questions": lambda found: [
        {"difficulty": "very hard indeed", "id": "q" * 99, "question": text, "answer": "long " * 9}
        for text in found
    ],
    "nested": lambda found: {"prompts": [{"level": "hard", "prompt": {"text": text}} for text in found]},
    "other spelling": lambda found: [{"Genre": "a", "Writing Prompt": text, "tags": ["t"]} for text in found],
    "titles": lambda found: {"topics": [{"description": "d", "title": text} for text in found]},
}
FRAMES = {
    "bare": "%s",
    "fenced": "```json\n%s\n```",
    "prose": 'Sure [1], here\'s the "list" [as you asked]:\n\n%s\n\nDoes [that](http://x.y) help?',
    "thinking": '<think>Maybe ["not", "this"]?</think>\n%s',
}
shapes = st.sampled_from(sorted(SHAPES))
frames = st.sampled_from(sorted(FRAMES))
layouts: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {"indent": 2}, {"ensure_ascii": False}, {"separators": (",", ":")}]
)


@given(items, shapes, frames, layouts)
def test_a_rendered_list_comes_back(found: list[str], shape: str, frame: str, layout: dict[str, Any]) -> None:
    rendered = json.dumps(SHAPES[shape](found), **layout)
    assert parse_items(FRAMES[frame].replace("%s", rendered)) == tuple(found)


@given(items, shapes, frames, layouts, st.data())
def test_a_list_cut_at_any_byte_gives_a_prefix(
    found: list[str], shape: str, frame: str, layout: dict[str, Any], data: st.DataObject
) -> None:
    rendered = json.dumps(SHAPES[shape](found), **layout)
    before = FRAMES[frame].partition("%s")[0]
    answer = (before + rendered).encode()
    cut = data.draw(st.integers(len(before.encode()), len(answer)))
    parsed = parse_items(answer[:cut].decode("utf-8", "ignore"))
    assert parsed == tuple(found)[: len(parsed)]


def test_a_cut_list_keeps_all_that_was_complete() -> None:
    answer = '{"subtopics": ["one", "two", "three"]}'
    kept = [len(parse_items(answer[:cut])) for cut in range(len(answer) + 1)]
    assert kept == sorted(kept)
    assert parse_items('["one", "two", "thr') == ("one", "two")
    assert parse_items('["one", "two"') == ("one",)
    assert parse_items('["one", "two",') == ("one", "two")
    assert parse_items('[{"prompt": "one"}, {"prompt": "two"}') == ("one", "two")
    assert parse_items('{"subtopics": ["one", "two"]') == ("one", "two")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('["a"]\n["b", "c"]', ("a", "b", "c")),
        ('{"easy": ["a"], "hard": ["b"]}', ("a", "b")),
        ('{"prompt": "a"}\n{"prompt": "b"}', ("a", "b")),
        ('{"1": {"prompt": "a"}, "2": {"prompt": "b"}}', ("a", "b")),
        ('[{"question": "a"}, {"n": 1, "x": "b"}, {"n": 1}]', ("a", "b")),
        (
            '[{"difficulty": "easy", "question": "Why do keepers count ships?"}]',
            ("Why do keepers count ships?",),
        ),
        ('[{"level": "easy", "query": "a"}, {"task": "b"}, {"instruction": "c"}]', ("a", "b", "c")),
        (
            '[{"id": "a-long-one-that-means-nothing", "x": "short", "y": "the longer of two"}]',
            ("the longer of two",),
        ),
        ('[{"level": "easy"}]', ("easy",)),
        ('[{"title": "t", "name": "n", "text": "x"}, {"name": "n", "text": "x"}]', ("t", "n")),
        ('[{"subtopic": "s", "title": "t", "topic": "u"}, {"topic": "u", "text": "x"}]', ("s", "x")),
        ('[{"main_topic": "a", "sub_topic": "b"}]', ("b",)),
        ('[{"prompt": {"text": "a"}}, {"prompt": {"en": "b"}, "id": 3}]', ("a", "b")),
        ('[{"level": "hard", "prompt": [{"role": "user", "content": "a"}]}]', ("a",)),
        ('{"prompts": ["a", "b"], "count": 2}', ("a", "b")),
        ('{"prompt": "a", "tags": ["t", "u"]}', ("a",)),
        ('{"tags": ["t", "u"]}', ("t", "u")),
        (
            '[{"category": "c", "prompts": ["a", "b"]}, {"subtopic": "s", "questions": ["d"]}]',
            ("a", "b", "d"),
        ),
        ('[{"title": "t", "tasks": ["a", "b"]}]', ("t",)),
        ('{"difficulty": "easy", "question": "a"}', ("a",)),
        ('{"message": "no", "error": "no"}', ()),
        ('[" a ", "", null, true, 7, 1.5, {}, [], ["b"]]', ("a", "7", "1.5", "b")),
        ('["two\\n\\n  lines", "a\\ttab", "two  spaces", "\\n"]', ("two lines", "a tab", "two  spaces")),
        ('["raw\nline break"]', ("raw line break",)),
        ('["half \\ud83d pair", "nul\\u0000"]', ("half ? pair", "nul")),
        ('["a", "b",]', ("a", "b")),
        ('["a", "b", ...]', ("a", "b")),
        ('["a"\n "b"]', ("a", "b")),
        ("['a', 'b']", ("a", "b")),
        ("[“a”, “b”]", ("a", "b")),
        ('{subtopics: ["a"]}', ("a",)),
        ('["Say "hello, world" twice", "b"]', ('Say "hello, world" twice', "b")),
        ('["He said "hi", then left", "b"]', ('He said "hi", then left', "b")),
        ('["Write "Dune": a review", "b"]', ('Write "Dune": a review', "b")),
        ('["a 5" screen", "b"]', ('a 5" screen', "b")),
        (r'["snake\_case", "C:\dir", "it\'s"]', (r"snake\_case", r"C:\dir", "it's")),
        ('- not this\n- nor this\n["a"]', ("a",)),
        ('["a"]]]}', ("a",)),
    ],
)
def test_lists_in_json(answer: str, expected: tuple[str, ...]) -> None:
    assert parse_items(answer) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Here you are:\n\n1. One\n2. Two\n10. Ten\n\nEnjoy!", ("One", "Two", "Ten")),
        ("1) One\n2) Two", ("One", "Two")),
        ("- One\n* Two\n• Three\n+ Four", ("One", "Two", "Three", "Four")),
        ("1. **One**: first\n**2.** Two\n**3. Three**", ("One: first", "Two", "Three")),
        ("1. One\n   - a detail\n2. Two\n   - another", ("One", "Two")),
        (
            "1. See [this](http://x) and [note: that]\r\n2. Two [2]",
            ("See [this](http://x) and [note: that]", "Two [2]"),
        ),
        ("**Heading**\n- One", ("One",)),
        ("I cannot help with that.", ()),
        ("3.5 is a number, -1 too", ()),
        ("[]", ()),
        ('{"error": "no"}', ()),
        ("", ()),
        ("<think>1. One\n2. Two", ()),
        ("<think>1. x</think> \n<think>2. y</think>\n1. One", ("One",)),
    ],
)
def test_lists_in_prose(answer: str, expected: tuple[str, ...]) -> None:
    assert parse_items(answer) == expected


criterion = st.from_regex(r"[a-z]{1,8}(_[a-z]{1,8})?", fullmatch=True).filter(
    lambda name: name not in {"total", "overall", "average", "mean", "scores", "score"}
)
score = st.floats(1, 5) | st.integers(1, 5).map(float)
reasoning = (
    st.text(st.characters(codec="utf-8", exclude_characters="\0")) | st.lists(json_like).map("".join)
).map(str.strip)
all_scores = st.dictionaries(criterion, st.builds(Score, score, reasoning), min_size=1, max_size=5).map(
    Scores
)

SCORE_SHAPES: dict[str, Callable[[list[Row]], object]] = {
    "objects": lambda rows: {name: {"score": number, "reasoning": why} for name, number, why in rows},
    "list": lambda rows: [
        {"criterion": name, "score": number, "explanation": why} for name, number, why in rows
    ],
    "names": lambda rows: [
        {"Name": name, "Score": number, "justification": why} for name, number, why in rows
    ],
    "wrapped": lambda rows: {
        "scores": {name: {"reasoning": why, "score": number} for name, number, why in rows},
        "confidence": 3,
        "overall": 4.5,
    },
    "wrapped list": lambda rows: {
        "result": [{"criteria": name, "score": number, "reasoning": why} for name, number, why in rows],
        "comment": "fine",
    },
    "as text": lambda rows: {
        name: {"score": f"{number!r} / 5", "reasoning": why} for name, number, why in rows
    },
}


@given(all_scores, st.sampled_from(sorted(SCORE_SHAPES)), frames, layouts, st.booleans())
def test_rendered_scores_come_back(
    scores: Scores,
    shape: str,
    frame: str,
    layout: dict[str, Any],
    named: bool,  # noqa: FBT001 - drawn
) -> None:
    rows = [(name, each.score, each.reasoning) for name, each in scores.criteria.items()]
    rendered = json.dumps(SCORE_SHAPES[shape](rows), **layout)
    criteria = tuple(scores.criteria) if named else None
    parsed = parse_scores(FRAMES[frame].replace("%s", rendered), criteria)
    assert list(parsed.criteria.items()) == list(scores.criteria.items())


@given(all_scores, st.data())
def test_the_order_is_that_of_the_criteria_asked_for(scores: Scores, data: st.DataObject) -> None:
    criteria = tuple(data.draw(st.permutations(sorted(scores.criteria))))
    answer = json.dumps({name: each.score for name, each in scores.criteria.items()} | {"overall": 9})
    assert tuple(parse_scores(answer, criteria).criteria) == criteria


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            '{"Clarity": 4, "story-arc": 3.5, "Plot  Twist": "2"}',
            {"clarity": 4, "story_arc": 3.5, "plot_twist": 2},
        ),
        ('{"a": "4/5", "b": "4.5 / 5", "c": "3 out of 5"}', {"a": 4, "b": 4.5, "c": 3}),
        ('{"a": 4, "overall": 5, "comment": "good", "notes": ["x"], "meta": {"k": 3}}', {"a": 4}),
        ('{"overall": 4}', {"overall": 4}),
        ('{"a": {"score": 1}}\n{"b": {"score": 2}}', {"a": 1, "b": 2}),
        ('{"a": {"score": "1-5"}}\nso:\n{"a": {"score": 2}}', {"a": 2}),
        ('[{"a": {"score": 2}}, {"b": 3}]', {"a": 2, "b": 3}),
        ('{"evaluation": {"scores": {"a": 2}}}', {"a": 2}),
        ('{"a": {"score": 4, "reasoning": "uses "quotes" well",},}', {"a": 4}),
        ('{"x": {"rating": 4}}', {"x": 4}),
        ('{"x": {"points": "4/5"}, "y": {"grade": 3}, "overall": 4}', {"x": 4, "y": 3}),
        ('{"x": {"value": 4}, "y": {"mark": "2 out of 5"}}', {"x": 4, "y": 2}),
        ('{"scores": {"x": {"rating": 4}}, "overall": 4}', {"x": 4}),
        ('[{"aspect": "x", "score": 4}, {"dimension": "y", "score": 3}]', {"x": 4, "y": 3}),
        ('[{"aspect": "x", "rating": 4}, {"metric": "y", "rating": 3}]', {"x": 4, "y": 3}),
        ('{"result": {"value": 4, "plot": 3}}', {"value": 4, "plot": 3}),
        ('{"score": 4, "meta": {"value": 3}}', {"score": 4}),
        ('{"x": {"value": {"rating": 4}}}', {"rating": 4}),
        ('{"scores": {"value": 4}}', {"value": 4}),
        ('{"value": {"score": 4}, "plot": {"score": 3}}', {"value": 4, "plot": 3}),
        ('{"x": {"score": 4}, "meta": {"value": 3}}', {"x": 4}),
        ('{"x": 4/5, "y": 3/5}', {"x": 4, "y": 3}),
        ('{"score": 4}', {"score": 4}),
    ],
)
def test_scores_in_other_forms(answer: str, expected: dict[str, float]) -> None:
    assert {name: each.score for name, each in parse_scores(answer, None).criteria.items()} == expected


def test_names_are_compared_normalized_and_kept_as_asked_for() -> None:
    parsed = parse_scores('{"Story Quality": {"score": 4, "reasoning": " good "}}', ("story-quality",))
    assert parsed == Scores({"story-quality": Score(4.0, "good")})


@pytest.mark.parametrize(
    "bad", [0, 0.99, 5.01, 6, -3, 10**400, True, None, "N/A", "4/10", "", "five", [4], {"of": 4}, "NaN"]
)
def test_a_score_that_is_none_is_refused_by_name(bad: object) -> None:
    with pytest.raises(ParseError, match="clarity"):
        parse_scores(json.dumps({"plot": {"score": 3}, "clarity": {"score": bad}}), None)
    with pytest.raises(ParseError, match="clarity"):
        parse_scores(json.dumps({"plot": 3, "clarity": bad}), ("plot", "clarity"))


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "-Infinity", "1e999", "true"])
def test_a_score_that_is_no_finite_number_is_refused(bad: str) -> None:
    with pytest.raises(ParseError, match="clarity"):
        parse_scores(f'{{"clarity": {bad}}}', None)


@pytest.mark.parametrize(
    ("answer", "criteria", "reason"),
    [
        ("I would give it a 4.", None, "no scores"),
        ("Plot: 4 keepers come aboard.", None, "no scores"),
        ("It ends at 4:30. Time: 4:30", None, "no scores"),
        ("Chapters: 4-5\nThere are: 4, 5 and 6\nShips - 4 of them", None, "no scores"),
        ("Plot: four", ("plot",), "no score for plot"),
        ("Plot: 4/10\nStyle: 3/10", ("plot", "style"), "from 1 to 5"),
        ("Plot: 8\nStyle: 3", None, "from 1 to 5"),
        ("Score: 4", ("plot", "style"), "no score for plot"),
        ("Score: 2\n\nNo.\n\nScore: 4", ("plot",), "from 1 to 5"),
        ("| Plot | 4/10 |", ("plot",), "from 1 to 5"),
        ("| Plot | 4 | 2 |", ("plot",), "no score for plot"),
        ('{"x": {"rating": "4/10"}}', None, "from 1 to 5"),
        ('{"x": {"rating": 4}}', ("plot",), "no score for plot"),
        ('{\n  "plot": 4,\n  "style": 3', None, "cut off"),
        ('{"plot": {"score": 4}}\nStyle: 3', ("plot", "style"), "no score for style"),
        ("", None, "no scores"),
        ("[]", None, "no scores"),
        ('{"comment": "fine"}', None, "no scores"),
        ('{"a": 4, "b": 3', None, "cut off"),
        ('{"a": {"score": 4, "reasoning": "x"}, "b": {"sco', None, "cut off"),
        ('{"a": {"score": 4, "reasoning": "x"}, "b": {"score": 3, "reas', ("a", "b"), "no score for b"),
        ('{"a": 4}', ("a", "b"), "no score for b"),
    ],
)
def test_answers_without_usable_scores(answer: str, criteria: tuple[str, ...] | None, reason: str) -> None:
    with pytest.raises(ParseError, match=reason):
        parse_scores(answer, criteria)


def test_scores_that_were_complete_before_the_cut_count() -> None:
    parsed = parse_scores('{"scores": {"a": {"score": 4}, "b": {"score": 3}}', ("a", "b"))
    assert parsed.total == 3.5


LINES = {
    "bold": "**%n**: %s/5",
    "bold colon": "- **%n:** %s - %r",
    "all bold": "1. **%n: %s/5** \N{EN DASH} %r",
    "plain": "%n: %s",
    "equals": "%n = %s",
    "dash": "%n - %s out of 5",
    "parentheses": "* %n (%s/5): %r",
    "suffix": "%n score: %s/5. %r",
    "heading": "### %n: %s / 5",
    "below": "### %n\n\nScore: %s/5\nReasoning: %r\n",
    "below, reason first": "**%n**\n- Reasoning: %r\n- Score: %s\n",
    "below, alone": "**%n:**\n**%s/5**",
    "row": "| %n | %s |",
    "row with reasoning": "| **%n** | %s/5 | %r |",
    "numbered row": "| 1 | %n | %r | %s |",
    "quoted": "> %n: [[%s]]",
}


@given(
    st.dictionaries(
        st.sampled_from(["plot", "prose", "character_arc", "wit"]),
        st.sampled_from([1.0, 2.0, 3.5, 4.0, 5.0]),
        min_size=1,
    ),
    st.sampled_from(sorted(LINES)),
    st.booleans(),
)
def test_scores_in_lines_come_back(found: dict[str, float], layout: str, named: bool) -> None:  # noqa: FBT001 - drawn
    lines = [
        LINES[layout].replace("%n", name.title()).replace("%s", f"{number:g}").replace("%r", "It holds [1].")
        for name, number in found.items()
    ]
    text = "\n".join(["<think>Plot: 1/5</think>Here is what I think.", "", *lines, "", "Total: 12/20"])
    parsed = parse_scores(text, tuple(found) if named else None)
    assert {name: each.score for name, each in parsed.criteria.items()} == found
    reasoning = "It holds [1]." if "%r" in LINES[layout] else ""
    assert {each.reasoning for each in parsed.criteria.values()} == {reasoning}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("| Criterion | Weight | Score |\n|-|-|-|\n| Plot | 2 | 4 |\n| Wit | 1 | 3 |", {"plot": 4, "wit": 3}),
        ("| Plot | Wit |\n|:-:|:-:|\n| 4 | **3** |", {"plot": 4, "wit": 3}),
        ("Criterion | Score (1-5)\n--- | ---\nPlot | 4/5\nWit | 3/5", {"plot": 4, "wit": 3}),
        ("Plot (1-5): 4\nWit: 3 out of 5 stars", {"plot": 4, "wit": 3}),
        ("Overall score: 4/5\nPlot: 3/5", {"plot": 3}),
        ("Final rating: 4/5", {"overall": 4}),
        ("Score: 4", {"score": 4}),
        ("Plot: 2\nOn second thoughts:\nPlot: 3", {"plot": 3}),
    ],
)
def test_scores_in_tables_and_lines(answer: str, expected: dict[str, float]) -> None:
    assert {name: each.score for name, each in parse_scores(answer, None).criteria.items()} == expected


@pytest.mark.parametrize(
    "answer",
    [
        "Score: 4",
        "**Rating:** 4/5 - clear",
        "Rating: [[4]]",
        "It is clear throughout. [RESULT] 4",
        "Overall: 4",
        '{"score": 4, "reasoning": "clear"}',
        '{"rating": "4/5"}',
        "Clarity: 4\nScore: 2",
    ],
)
def test_where_there_is_one_criterion_a_score_need_not_name_it(answer: str) -> None:
    assert parse_scores(answer, ("clarity",)).total == 4


def test_lines_of_an_answer_that_was_not_finished_are_read_for_known_criteria_alone() -> None:
    assert parse_scores("Plot: 4\nWit: 3", ("plot", "wit"), ended=False).total == 3.5
    with pytest.raises(ParseError, match="cut off"):
        parse_scores("Plot: 4\nWit: 3", None, ended=False)
    assert parse_scores('{"plot": 4} Wit', None, ended=False).total == 4


tokens = json_like | st.sampled_from(
    [
        '"score": 4',
        "NaN",
        "1e999",
        "\\u12",
        "\0",
        "<think>",
        "</think>",
        "\n",
        "/*",
        "|",
        "*",
        "Plot",
        "4/5",
        "[[",
        "###",
        "score",
    ]
)


@given(st.text() | st.lists(tokens, max_size=40).map("".join), st.sampled_from([None, ("a", "b")]))
@example("[" * 100_000, None)
@example('{"a":' * 100_000 + "1" + "}" * 100_000, None)
@example('["a", ' + "[" * 100_000 + "]" * 100_000 + "]", None)
@example("Plot: " + "4" * 100_000, ("plot", "b"))
@example("a:" * 100_000, None)
@example("a (" * 100_000, None)
@example("|" * 200_000, None)
@example("| a " * 50_000, None)
@example("1. " * 70_000, None)
@example("*" * 200_000, None)
@example("_a" * 100_000, None)
@example("a" + " " * 200_000 + ": 4", None)
@example("a: 4" + " " * 200_000 + "x", None)
@example("[result]" * 25_000, None)
@example("[[" * 100_000, None)
@example('{"items": [' * 30_000, None)
@example('[{"prompt": ' + '{"items": [{"x": ' * 15 + "0" + "}]}" * 15 + "}]", None)
@example('["' + "9" * 5_000 + '", ' + "9" * 5_000 + "]", None)
def test_nothing_raises_but_parse_error(answer: str, criteria: tuple[str, ...] | None) -> None:
    assert all(each and each == each.strip() and "\n" not in each for each in parse_items(answer))
    try:
        scores = list(parse_scores(answer, criteria).criteria.values())
    except ParseError:
        scores = []
    assert all(1 <= each.score <= 5 for each in scores)


def test_a_long_answer_is_read_up_to_a_million_characters() -> None:
    parsed = parse_items(json.dumps(["x" * 98] * 20_000, separators=(",", ":")))
    assert set(parsed) == {"x" * 98}
    assert 9_800 < len(parsed) < 10_000


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"1": "Why?", "2": "How?"}', ("Why?", "How?")),
        ('{"prompt_1": "Why?", "prompt_2": "How?"}', ("Why?", "How?")),
        ("Prompt 1: Why?\nPrompt 2: How?", ("Why?", "How?")),
        (
            "**1. The tide**\nWhy does it turn?\n\n**2. The fog**\nHow does it lift?",
            ("Why does it turn?", "How does it lift?"),
        ),
    ],
)
def test_lists_in_further_forms(answer: str, expected: tuple[str, ...]) -> None:
    assert parse_items(answer) == expected


def test_a_score_may_stand_before_its_reason() -> None:
    scores = parse_scores('{"plot": "4/5 - well made", "style": "2 out of 5: flat"}', ("plot", "style"))
    assert scores.criteria == {"plot": Score(4.0, "well made"), "style": Score(2.0, "flat")}
