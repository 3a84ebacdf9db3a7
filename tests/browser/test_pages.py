"""Prefect's pages as a person uses them: a run that goes well, the form, a run that fails, and *Retry*."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import httpx
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError
from playwright.sync_api import expect

from tests.browser.stage import browser, stage
from tests.flows.command import asked_twice, config, rows_of, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.browser.stage import Stage

ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
LISTENS_MS = 20_000.0
"""How long a press may take to show; it takes milliseconds where the page listens."""


def test_a_run_is_started_watched_and_retried_in_the_browser(tmp_path: Path) -> None:
    with stage(tmp_path, subtopics=3, prompts=2) as at, browser() as page:
        assert at.user.run().code == 0
        (run,) = at.asked("/flow_runs/filter", limit=2)
        assert re.fullmatch(r"dpo · Lighthouse keepers & the sea · session_\S+", run["name"])
        page.goto(f"{at.pages}/v2/runs/flow-run/{run['id']}")
        expect(page.get_by_text(run["name"]).first).to_be_visible()
        expect(page.get_by_text("Completed").first).to_be_visible()
        kinds = ["first-rows", "pairs", "prompts", "session", "subtopics", "summary"]
        artifacts = _artifacts(at, run)
        assert sorted(artifacts) == kinds
        page.goto(f"{at.pages}/v2/artifacts/artifact/{artifacts['summary']['id']}")
        expect(page.get_by_role("heading", name="dpo · Lighthouse keepers & the sea")).to_be_visible()
        expect(page.get_by_text("Complete.", exact=True)).to_be_visible()
        (session,) = at.user.sessions()
        assert all(artifacts[kind]["data"] == 100 for kind in ("subtopics", "prompts", "pairs"))

        # The same questions with another ledger, and a server that refuses one of the prompts.
        rows = rows_of(session)
        text = config(at.model.url, subtopics=3, prompts=2, more='[output]\nfolder = "second"')
        at.user.write("config.toml", text)
        at.model.start(fail_matching=rows[4]["prompt"])
        failed = _start_with_the_form(at, page)
        assert (
            failed["state"]["message"] == "finished with 1 failure (1 question_refused); 5 rows are written"
        )
        assert failed["state_name"] == "Failed"
        (failure,) = _table(_artifacts(at, failed)["failures"])
        assert (failure["item"], failure["cause"]) == ("job 4", "question_refused")
        assert asked_twice(at.model.requests()) == []

        at.model.start()
        _retry(at, page, failed)
        again = at.asked(f"/flow_runs/{failed['id']}")
        assert (again["name"], again["state_name"]) == (failed["name"], "Completed")
        # The two answers of the one prompt, and nothing else.
        assert at.model.stats()["requests"] == 2
        (session,) = at.user.sessions("second")
        assert rows_of(session) == rows
        page.goto(f"{at.pages}/v2/runs/flow-run/{failed['id']}")
        expect(page.get_by_text("Completed").first).to_be_visible()

        lines = at.asked("/logs/filter", limit=200)
        assert not [line for line in lines if "Traceback" in line["message"]]


def _start_with_the_form(at: Stage, page: Page) -> dict[str, Any]:
    """Submit the deployment's form as it is; the run, once it has ended."""
    before = len(at.runs())
    page.goto(f"{at.pages}/v2/deployments/deployment/{at.deployment()}/run")
    for label in ("config", "settings", "resume", "accept"):
        expect(page.get_by_text(re.compile(f"^{label}", re.IGNORECASE)).first).to_be_visible()
    _until_asked(page, "/create_flow_run", page.get_by_role("button", name="Submit").click)
    until(lambda: len(at.runs()) > before, "the run is there")
    until(lambda: at.runs()[0]["state_type"] in ENDED, "the run's end")
    return at.runs()[0]


def _until_asked(page: Page, path: str, press: Callable[[], None]) -> None:
    """Press until the server takes a request that ends with `path`; the last try fails as it does.

    On a busy machine a page shows its buttons before it listens to them, and a server says that it is busy.
    """
    for last in (False, False, True):
        try:
            with page.expect_request(lambda request: request.url.endswith(path), timeout=LISTENS_MS) as sent:
                press()
        except PlaywrightTimeoutError:
            if last:
                raise
            continue
        answer = sent.value.response()
        assert answer is not None, sent.value.failure
        if answer.ok:
            return
        assert answer.status == httpx.codes.SERVICE_UNAVAILABLE, answer.text()
        assert not last, answer.text()


def _retry(at: Stage, page: Page, run: dict[str, Any]) -> None:
    """Press *Retry*; returns once the run has ended again."""

    def press() -> None:
        page.goto(f"{at.pages}/v2/runs/flow-run/{run['id']}")
        page.get_by_role("button", name="Open menu").click()
        page.get_by_role("menuitem", name="Retry").click(timeout=LISTENS_MS)
        page.get_by_role("alertdialog").get_by_role("button", name="Retry").click(timeout=LISTENS_MS)

    _until_asked(page, "/set_state", press)
    until(lambda: at.asked(f"/flow_runs/{run['id']}")["run_count"] > run["run_count"], "the second try")
    until(lambda: at.asked(f"/flow_runs/{run['id']}")["state_type"] in ENDED, "the end of the second try")


def _artifacts(at: Stage, run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A run's artifacts by key; each is there once."""
    found = at.asked("/artifacts/filter", flow_runs={"id": {"any_": [run["id"]]}})
    assert len({artifact["key"] for artifact in found}) == len(found)
    return {artifact["key"]: artifact for artifact in found}


def _table(artifact: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(artifact["data"])
    return found
