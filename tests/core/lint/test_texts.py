"""What lint sees in texts, and what it leaves alone because good answers have it too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.lint.checks import NEARLY, breaks_off, first_markup, likeness, script_of, scripts_of
from tasks.core.printable import printable_line

ANY = st.text(alphabet=st.sampled_from("ab *#-|`~<>/.1\n\u202e\x1b\u4e00\u0416\u3042 ")) | st.text()


@pytest.mark.parametrize(
    "text",
    [
        "The keeper went down to the harbour and then he",
        "Nobody had seen the ship,",
        "It was dark, and the lamp was \N{EM DASH}",
        "# The keeper\n\nHe went down all of the stairs to the harbour, where by now all of the",
        "Run this:\n```\nmake all",
        "Run this:\n````\n```\nmake all\n```",
        "~~~python\nprint()",
    ],
)
def test_texts_that_break_off(text: str) -> None:
    assert breaks_off(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Paris",
        "42",
        "The capital of France is Paris",
        "He went home.",
        "\N{LEFT DOUBLE QUOTATION MARK}Who goes there?\N{RIGHT DOUBLE QUOTATION MARK}",
        "He said that it would never be seen again \N{HORIZONTAL ELLIPSIS}",
        "All he had:\n\n- a lamp of brass that nobody had lit for years\n- a box of matches",
        "All of it is described where everybody can read it: https://example.com/lamps",
        "The lamps were lit at dusk, and the ships came home. #lighthouse",
        "The lamp is lit.\nThe ships come home\nto sleep",
        "Run this:\n```\nmake all\n```",
        "Write ``` for code and ```x``` for less.",
        "灯台守は夕暮れに港へ降りて、船が来る前に灯りをともした、それから家に帰って眠った",
    ],
)
def test_texts_that_have_an_end(text: str) -> None:
    assert not breaks_off(text)


@pytest.mark.parametrize(
    "text",
    [
        "# Title\nText",
        "Text\n```\ncode\n```",
        "- one\n- two",
        "1. one\n2. two",
        "| a | b |\n| c | d |",
        "**One** and **two**.",
        "<p>One</p><p>two</p>",
        "- one of **many**",
    ],
)
def test_texts_with_markup(text: str) -> None:
    assert first_markup(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Plain.",
        "We are no. #1, and 2 * 3 * 4 is 24.",
        "- Who goes there? he asked.\nNobody answered.",
        "One word was **bold** there.",
        "One part ended.\n\n* * *\n\nAnother began.\n\n---\n\nAnd a third.",
        "It cost $5 - 10 | 20.",
        "1984 was a year.\n2001. That was another.\n-5 degrees",
        "#hashtag and a < b </ c",
    ],
)
def test_texts_without_markup(text: str) -> None:
    assert first_markup(text) == ""


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("The keeper lit the lamp at dusk, and so on.", "Latin"),
        ("L\u2019été dernier, la mer était plus calme \u2013 à minuit.", "Latin"),
        ("Смотритель зажёг лампу на закате, как всегда.", "Cyrillic"),
        ("Κάθε βράδυ ένας φύλακας άναβε τη λάμπα.", "Greek"),
        ("أشعل حارس المنارة المصباح عند الغسق كل يوم", "Arabic"),
        ("灯塔看守人在黄昏时分点亮了灯船只都平安地回到了港口里", "Chinese"),
        ("灯台守は夕暮れに灯りをともし、船はみな無事に港へ帰ってきた。", "Japanese"),
        ("등대지기는 해질녘에 등불을 켰고 배들은 모두 돌아왔다", "Hangul"),
        ("He said да and lit the lamp at dusk, as always.", "Latin"),
        ("42.", ""),
        ("", ""),
    ],
)
def test_the_script_of_a_text(text: str, script: str) -> None:
    assert script_of(text) == script


def test_scripts_are_compared_where_both_are_known() -> None:
    english, russian = "The keeper lit the lamp at dusk.", "Смотритель зажёг лампу на закате."
    assert scripts_of(english, russian) == ("Latin", "Cyrillic")
    assert scripts_of(russian, english) == ("Cyrillic", "Latin")
    assert scripts_of(english, "Да.") == ("", "")
    assert scripts_of(russian, russian[::-1]) == ("", "")


WORDS = st.lists(st.sampled_from([f"word{number}" for number in range(60)]), min_size=30, max_size=300)


@given(WORDS)
def test_a_text_is_like_itself_however_its_lines_are_broken(words: list[str]) -> None:
    assert likeness(" ".join(words), " ".join(words)) == 1
    assert likeness(" ".join(words), " ".join(words).replace("word1 ", "word1\n")) == 1


@given(st.integers(60, 800), st.data())
def test_a_few_edits_leave_a_text_nearly_identical(count: int, data: st.DataObject) -> None:
    words = [f"w{number}" for number in range(count)]
    edits = data.draw(st.sets(st.integers(0, count - 1), max_size=count // 25))
    other = [f"e{number}" if number in edits else word for number, word in enumerate(words)]
    # Each edit changes two of the neighbouring words.
    assert likeness(" ".join(words), " ".join(other)) >= NEARLY
    assert likeness(" ".join(other), " ".join(words)) == likeness(" ".join(words), " ".join(other))


def test_other_words_and_other_orders_are_not_alike() -> None:
    words = [f"w{number}" for number in range(200)]
    assert likeness(" ".join(words), " ".join(reversed(words))) < NEARLY
    assert likeness(" ".join(words), " ".join(f"v{number}" for number in range(200))) == 0
    assert likeness("The answer is 4.", "The answer is 5.") < NEARLY
    assert likeness("", "") == 0


def test_texts_without_spaces_are_compared_by_characters() -> None:
    text = "灯塔看守人在黄昏时分点亮了灯。船只都平安地回到了港口。" * 3
    assert likeness(text, text.replace("黄昏", "傍晚", 1)) >= NEARLY


@given(ANY, ANY)
def test_every_text_can_be_looked_at(one: str, other: str) -> None:
    assert 0 <= likeness(one, other) <= 1
    assert first_markup(one) in one
    assert isinstance(breaks_off(one.strip()), bool)
    assert all(scripts_of(one, other)) or not any(scripts_of(one, other))


@given(ANY, st.integers(1, 50))
def test_a_line_is_one_line_that_can_be_printed(text: str, most: int) -> None:
    line = printable_line(text, most)
    assert line.isprintable()
    assert len(line) <= most
