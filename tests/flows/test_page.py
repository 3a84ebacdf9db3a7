"""The name of a run and what its artifacts say, beside what `tests/browser` sees of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from flows.pages.run_page import run_name
from flows.process.demo import demo_settings
from tasks.core.printable import escaped

SESSION = "session_2026-01-31T12-00-00"
NAME = f"dpo · Fantasy Fiction · {SESSION}"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("nonchalant-velociraptor", NAME),
        ("zeta2-morgan", NAME),
        ("Generic-Mule", NAME),
        ("", NAME),
        (NAME, NAME),
        ("the run for Monday", "the run for Monday"),
    ],
)
def test_a_run_is_named_after_its_work_unless_it_has_a_name_of_its_own(before: str, after: str) -> None:
    config = demo_settings("http://127.0.0.1:1/v1", {"generation.main_topic": "Fantasy  Fiction"})
    assert run_name(before, config, SESSION) == after


@given(st.text(alphabet="<>[]()*_`#|!&;:/\\\"'-+.~=ab1 \n"))
def test_markdown_shows_an_escaped_text_as_it_is(text: str) -> None:
    (inline,) = MarkdownIt("commonmark").parse(f"x{escaped(text)}x")[1:-1]
    shown = "".join(child.content for child in inline.children or ())
    assert shown == f"x{' '.join(text.split())}x"
    assert {child.type for child in inline.children or ()} <= {"text", "text_special"}
