"""Everything that a person at Prefect's pages needs: a server with pages, a worker, a model, a browser."""

from __future__ import annotations

import re
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
from playwright.sync_api import expect, sync_playwright

from tests.flows.command import PREFECT, ROOT, TIMEOUT, User, config, model, prefect_server, until
from tests.needs import CHROMIUM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.flows.command import Model

POOL = "vellumforge"
SIZE = {"width": 1280, "height": 800}
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT_MS = 1000.0 * TIMEOUT


@dataclass(frozen=True)
class Stage:
    """What is running.

    Attributes:
        api: URL of the Prefect server's API.
        user: Who deployed the flows, from their working folder.
        model: The demo model server that their `config.toml` names.
        client: A client of the API.
    """

    api: str
    user: User
    model: Model
    client: httpx.Client

    @property
    def pages(self) -> str:
        """URL of the Prefect server's pages."""
        return self.api.removesuffix("/api")

    def asked(self, path: str, **document: Any) -> Any:
        """What the server's API says: POST with the document, else GET."""
        client, answers = self.client, list[httpx.Response]()

        def answered() -> bool:
            # A busy server says 503, or closes an idle connection; Prefect's own client asks again too.
            with suppress(httpx.TransportError):
                answers.append(client.post(path, json=document) if document else client.get(path))
            return bool(answers) and answers[-1].status_code != httpx.codes.SERVICE_UNAVAILABLE

        until(answered, f"an answer to {path}")
        return answers[-1].raise_for_status().json()

    def deployment(self) -> str:
        """The id of the deployment `generate/generate`."""
        return str(self.asked("/deployments/name/generate/generate")["id"])

    def runs(self) -> list[dict[str, Any]]:
        """The runs of that deployment, the newest first."""
        chosen = {"id": {"any_": [self.deployment()]}}
        found: list[dict[str, Any]] = self.asked(
            "/flow_runs/filter", deployments=chosen, sort="EXPECTED_START_TIME_DESC"
        )
        return found


@contextmanager
def stage(where: Path, **settings: Any) -> Iterator[Stage]:
    """Deploy to a Prefect server of its own, with a worker that waits for runs.

    Args:
        where: A folder for all that is written.
        settings: Arguments of `config`, for the configuration that is deployed with.
    """
    with (
        prefect_server(where / "server", pages=True) as api,
        model() as server,
        httpx.Client(base_url=api, timeout=TIMEOUT, trust_env=False) as client,
    ):
        user = User.made(where, PREFECT_API_URL=api, PREFECT_HOME=str(where / "prefect"))
        user.write("config.toml", config(server.url, **settings))
        shutil.copy(ROOT / "prefect.yaml", user.folder)
        for words in (("work-pool", "create", POOL, "--type", "process"), ("deploy", "--all")):
            ended = user.run(*words, program=PREFECT)
            assert ended.code == 0, ended.out + ended.err
        worker = user.start("worker", "start", "--pool", POOL, program=PREFECT)
        try:
            yield Stage(api, user, server, client)
        finally:
            worker.kill(group=True)
            worker.end()


@contextmanager
def browser() -> Iterator[Page]:
    """A page of Chromium, which asks nobody but the loopback interface."""
    path = CHROMIUM.programs() / CHROMIUM.program
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(OPTIONS))
        page = chromium.new_page(viewport=SIZE)  # type: ignore[arg-type]  # the size is as it wants it
        page.set_default_timeout(WAIT_MS)
        # Prefect's newer pages ask for the settings of their makers' statistics, whatever the server says.
        page.route(re.compile(r"^https?://(?!127\.0\.0\.1:)"), lambda route: route.abort())
        expect.set_options(timeout=WAIT_MS)
        yield page
        chromium.close()


def settled(page: Page) -> None:
    """Wait until the page asks for nothing more."""
    page.wait_for_load_state("networkidle")
