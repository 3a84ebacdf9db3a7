"""What all tests share."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tasks.core.chat.negotiation import LEARNED
from tasks.core.session.dataset import ROOT as ROOT_LOGGER
from tests.flows.prepared import SHARED, authorities

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

# How long an example takes is the machine's business: no test asserts on speed.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

# A shell starts what it puts in the background with SIGINT ignored, and so would be every process that a test
# starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Whatever the shell has set: without bytecode each worker and each process that is started compiles all anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

MOST_WORKERS = 4
ROOT = Path(__file__).parent
LONGEST = (
    "flows/test_shards.py",
    "browser/test_pages.py",
    "flows/test_deployments.py",
    "deployments/",
    "flows/test_cancel.py",
    "flows/test_exactly.py",
    "flows/test_transform.py",
    "flows/test_api_lost.py",
    "flows/",
    "",
)
"""How the paths of tests begin, in the order in which they run: first what starts processes."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder that all workers share; they are started later, with this environment."""
    if not hasattr(config, "workerinput"):
        os.environ[SHARED] = tempfile.mkdtemp(prefix="vellumforge-tests-")
        os.environ["SSL_CERT_FILE"] = authorities()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage meanwhile, a third of the time, and later not among what was collected."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_xdist_auto_num_workers() -> int:
    """Two more than there are processors, up to four: some always wait for what they watch."""
    return min(len(os.sched_getaffinity(0)) + 2, MOST_WORKERS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that all workers end together."""

    def rank(item: pytest.Item) -> int:
        path = str(item.path.relative_to(ROOT))
        return next(place for place, start in enumerate(LONGEST) if path.startswith(start))

    items.sort(key=rank)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove it."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(SHARED))
        del os.environ["SSL_CERT_FILE"]


@pytest.fixture(autouse=True)
def _unlearned() -> Iterator[None]:
    """What one test's server refused is not known of the next one's, which may have its port."""
    LEARNED.forget()
    handlers = logging.getLogger(ROOT_LOGGER).handlers
    before = list(handlers)
    yield
    LEARNED.forget()
    # A command that a test ran in this process shows records from then on.
    handlers[:] = before
