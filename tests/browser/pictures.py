"""The pictures of `docs/pictures`: `python -m tests.browser.pictures` takes them anew."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import expect

from tests.browser.stage import browser, settled, stage
from tests.flows.command import ROOT, config, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.flows.command import User

PICTURES = ROOT / "docs" / "pictures"
TALL = {"width": 1280, "height": 1750}
MODELS = ("strong-writer", "weak-writer", "critic")
ENOUGH = 6
"""Task runs that are shown at work."""


def main() -> None:
    """Take the pictures of the form, of a run at work, of its summary, and of the report."""
    PICTURES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        stage(Path(folder), subtopics=4, prompts=5, concurrency=2) as at,
        browser() as page,
    ):
        at.model.start(latency_ms=2500.0)
        page.goto(f"{at.pages}/v2/deployments/deployment/{at.deployment()}/run")
        expect(page.get_by_text("accept_changes").first).to_be_visible()
        settled(page)
        _take(page, "form")
        page.get_by_role("button", name="Submit").click()
        until(lambda: len(at.runs()) == 1, "the run is there")
        until(lambda: at.model.stats()["requests"] > 2 * ENOUGH, "the run is at work")
        run = at.runs()[0]["id"]
        page.goto(f"{at.pages}/v2/runs/flow-run/{run}")
        expect(page.get_by_text("Running").first).to_be_visible()
        expect(page.locator("canvas").first).to_be_visible()
        page.wait_for_function("document.querySelectorAll('.animate-pulse').length === 0")
        _take(page, "running")
        until(lambda: at.runs()[0]["state_type"] == "COMPLETED", "the run's end")
        found = at.asked("/artifacts/filter", artifacts={"key": {"any_": ["summary"]}})
        page.goto(f"{at.pages}/v2/artifacts/artifact/{found[0]['id']}")
        expect(page.get_by_role("heading", name="dpo")).to_be_visible()
        settled(page)
        _take(page, "summary")
        at.model.start(refuse=0.2)
        _take_report(at.user, at.model.url, page)


def _take_report(user: User, url: str, page: Page) -> None:
    """The report of a larger run, which a judge has looked at."""
    more = "\n".join(f"[pricing.{name}]\ninput = 2.0\noutput = 8.0" for name in MODELS)
    more += '\n[output]\nfolder = "large"'
    user.write(
        "large.toml",
        config(url, mode="mo-dpo", subtopics=30, prompts=12, models="max_retries = 1", more=more),
    )
    ended = user.run("--config", "large.toml")
    # Some prompts are refused twice, and stay without a row.
    assert ended.code == 3, ended.err
    (session,) = user.sessions("large")
    page.goto((session / "report.html").as_uri())
    page.set_viewport_size(TALL)  # type: ignore[arg-type]  # the size is as it wants it
    _take(page, "report")


def _take(page: Page, name: str) -> None:
    page.screenshot(path=PICTURES / f"{name}.png", animations="disabled")


if __name__ == "__main__":
    main()
