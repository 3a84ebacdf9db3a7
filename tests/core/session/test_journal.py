"""`session.log`: JSON lines, and never what stops a run."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tasks.core.session.dataset import ROOT, journal

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(f"{ROOT}.tests")


@pytest.fixture(autouse=True)
def root() -> Iterator[logging.Logger]:
    """The logger, which must be after the test what it was before."""
    logger = logging.getLogger(ROOT)
    before = (logger.level, list(logger.handlers))
    yield logger
    assert (logger.level, list(logger.handlers)) == before


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_record_is_a_line_of_json(tmp_path: Path) -> None:
    path = tmp_path / "session.log"
    with journal(path):
        log.info("%d prompts of «%s»", 3, "Nebel\nund Salz")
        log.warning("late")
        log.debug("nobody wants to know")
        logging.getLogger("another").warning("not ours")
    log.info("after the end")
    first, second = read(path)
    assert datetime.fromisoformat(first.pop("time")).tzinfo is not None
    assert first == {"level": "INFO", "logger": log.name, "message": "3 prompts of «Nebel\nund Salz»"}
    assert (second["level"], second["message"]) == ("WARNING", "late")


def test_an_exception_stands_in_a_field_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "session.log"
    with journal(path):
        try:
            int("fog")
        except ValueError:
            log.exception("failed")
    (record,) = read(path)
    assert record["message"] == "failed"
    assert record["error"].endswith("ValueError: invalid literal for int() with base 10: 'fog'")


def test_a_finer_level_is_written_when_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "session.log"
    with journal(path, logging.DEBUG):
        log.debug("all of it")
    assert [record["message"] for record in read(path)] == ["all of it"]


def test_the_handler_goes_when_the_block_raises(tmp_path: Path) -> None:
    with pytest.raises(KeyError), journal(tmp_path / "session.log"):
        raise KeyError
    # The fixture sees to it that nothing is left.


def test_two_journals_at_once_have_all_records_each(tmp_path: Path) -> None:
    paths = [tmp_path / "one.log", tmp_path / "other.log"]
    with journal(paths[0]), journal(paths[1]):
        log.info("both")
    assert [[record["message"] for record in read(path)] for path in paths] == [["both"], ["both"]]


@pytest.mark.parametrize(
    ("path", "reason"),
    [(Path("/dev/full"), "No space left on device"), (Path("/dev/null/log"), "Not a directory")],
)
def test_a_log_that_cannot_be_written_warns_once_and_the_run_goes_on(
    path: Path, reason: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with journal(path):
        for number in range(3):
            log.info("%d", number)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"{path} cannot be written: {reason}; going on without it"]
    assert [record.getMessage() for record in caplog.records if record.levelname == "INFO"] == ["0", "1", "2"]
    assert capfd.readouterr().err == ""
