"""`report.html` opened from the disk in a real browser: light and dark, and whatever the models wrote."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from tasks.core.report.page import write_report
from tests.browser.stage import browser
from tests.core.report.made import HOSTILE, facts, judged_rows

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

GROUND = {"light": "rgb(244, 242, 238)", "dark": "rgb(20, 22, 26)"}


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A report of twelve pairs whose texts would take the page over, one of them with 1 MB a side."""
    rows = judged_rows(12, text=HOSTILE)
    rows[5]["prompt"] = f"{rows[4]['prompt']} again"
    rows[3] |= {"chosen": "<b>&" * 262_144, "rejected": "\u202e" * 1_048_576}
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "dataset.jsonl").write_text(lines, encoding="utf-8")
    return write_report(tmp_path, facts(rows, topic=HOSTILE))


def test_it_asks_for_nothing_says_nothing_and_shows_hostile_text_as_text(report: Path) -> None:
    assert report.stat().st_size < 2_000_000
    with browser() as page:
        asked, said = _watched(page)
        page.goto(report.as_uri())
        assert asked == [report.as_uri()]
        assert said == []
        assert page.locator("script, img, iframe, object, link, form, [style], [onclick]").count() == 0
        expect(page.get_by_role("img", name="the judge's margins")).to_be_visible()
        assert page.locator("svg.plot").count() == 7
        page.evaluate("document.querySelectorAll('details').forEach(item => item.open = true)")
        shown = page.locator(".side.chosen .text").first
        expect(shown).to_contain_text("<script>document.title = 'taken'</script>")
        expect(shown).to_contain_text("⟨U+202E⟩")
        assert page.title().startswith("</script><script>")
        text = page.locator("body").inner_text()
        assert "Cut: the whole text has 1,048,576 characters." in text
        alike = page.locator("h2:has-text('The most alike prompts') + .card tr")
        assert alike.count() == 2
        expect(alike.nth(1)).to_contain_text("<script>document.title = 'taken'</script>")
        assert not set("\u202e\u2066\x07") & set(text)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert said == []


def test_light_and_dark_have_colours_of_their_own(report: Path) -> None:
    seen: dict[str, dict[str, Any]] = {}
    with browser() as page:
        page.goto(report.as_uri())
        for scheme in GROUND:
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # it is one of the two
            seen[scheme] = page.evaluate(
                "() => ({ground: getComputedStyle(document.body).backgroundColor, fills: [...new Set("
                "[...document.querySelectorAll('svg.plot rect, svg.plot path, svg.plot text')]"
                ".map(item => getComputedStyle(item).fill))].sort()})"
            )
    assert {scheme: look["ground"] for scheme, look in seen.items()} == GROUND
    # Nothing is drawn in a colour that both have but black, of what is not filled at all.
    assert set(seen["light"]["fills"]) & set(seen["dark"]["fills"]) <= {"none", "rgb(0, 0, 0)"}
    assert len(seen["light"]["fills"]) > 5


def _watched(page: Page) -> tuple[list[str], list[str]]:
    """The addresses that a page asks for, and what stands in its console, as they come."""
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    return asked, said
