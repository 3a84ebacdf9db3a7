"""`report.html` at a run's end, and `vellumforge2 report`, as processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from tasks.core.printable import escaped
from tests.flows.command import PROGRAM, TIMEOUT, config, rows_of

if TYPE_CHECKING:
    from tests.flows.command import Model, User


def test_a_run_writes_its_report_and_the_command_writes_it_again(user: User, demo_model: Model) -> None:
    user.write("config.toml", config(demo_model.url, mode="mo-dpo", subtopics=4, prompts=5))
    ended = user.run("--json")
    assert (ended.code, ended.err) == (0, "")
    (session,) = user.sessions()
    path = session / "report.html"
    assert ended.summary["report"] == f"output/{session.name}/report.html"
    assert not [*user.home.glob(".[!p]*")], "something was created in the user's home"
    first = path.read_text(encoding="utf-8")
    assert "every prompt that was wanted has its row" in first

    path.unlink()
    paid = demo_model.stats()["requests"]
    told = user.run("report", session.name, program=PROGRAM)
    assert (told.code, told.out, told.err) == (0, f"output/{session.name}/report.html\n", "")
    assert path.read_text(encoding="utf-8") == first
    assert demo_model.stats()["requests"] == paid

    wanted = {"artifacts": {"key": {"any_": ["summary"]}}}
    found = httpx.post(f"{user.variables['PREFECT_API_URL']}/artifacts/filter", json=wanted, timeout=TIMEOUT)
    assert [page for page in found.json() if escaped(str(path.absolute())) in page["data"]]


def test_what_did_not_come_about_stands_in_the_report(user: User, demo_model: Model) -> None:
    text = config(demo_model.url, subtopics=3, prompts=2)
    user.write("config.toml", text)
    assert user.run().code == 0
    prompt = rows_of(user.sessions()[0])[4]["prompt"]
    demo_model.start(fail_matching=prompt)
    user.write("config.toml", text + '\n[output]\nfolder = "second"\n')
    assert user.run().code == 3
    (session,) = user.sessions("second")
    pages = [(session / "report.html").read_text(encoding="utf-8")]
    assert user.run("report", session.name, program=PROGRAM).code == 0
    pages.append((session / "report.html").read_text(encoding="utf-8"))
    for page in pages:
        assert "failed: question refused" in page
    demo_model.start()


def test_a_report_that_cannot_be_written_spoils_nothing(user: User, demo_model: Model) -> None:
    user.write("config.toml", config(demo_model.url))
    assert user.run().code == 0
    (session,) = user.sessions()
    (session / "report.html").unlink()
    (session / "report.html").mkdir()
    ended = user.run("--resume", session.name, "--accept-changes", "--json")
    assert (ended.code, ended.summary["report"], ended.summary["rows"]) == (0, "", 6)
    assert "no report was written: " in " ".join(ended.err.split())
    assert "Traceback" not in ended.err

    refused = user.run("report", session.name, program=PROGRAM)
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.endswith("report.html cannot be written: Is a directory\n")
    (session / "dataset.jsonl").unlink()
    refused = user.run("report", session.name, program=PROGRAM)
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    refused = user.run("report", "session_2020-01-01T00-00-00", program=PROGRAM)
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
