"""Programs that the tests need, and no package of Python's brings: found, installed where that may be.

`python -m tests.needs` installs what is missing: Debian's packages, as root or with a sudo that asks nothing;
else what PyPI carries of it. Tests that need what cannot be had are skipped, with a line each at the end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FROM_PYPI = ROOT / ".venv" / "needs"
LOCK = ROOT / "tests" / "needs.lock"
NEEDS_ALL = "VELLUMFORGE_TESTS_NEED_ALL"
"""The environment variable with which a test that cannot be run fails and is not skipped."""


@dataclass(frozen=True, slots=True)
class Need:
    """A program, or several of one package.

    Attributes:
        package: The package of Debian that has it.
        program: One of its programs, which tells that it is there.
        proves: What is proved with it.
        folders: Where its programs are besides PATH, the best first; `*` stands for a version.
    """

    package: str
    program: str
    proves: str
    folders: tuple[str, ...] = ()

    def folder(self) -> Path | None:
        """The folder of its programs; None where it is not installed."""
        for pattern in self.folders:
            found = sorted(Path("/").glob(f"{pattern.lstrip('/')}/{self.program}"), key=_version)
            if found:
                return found[-1].parent
        path = shutil.which(self.program)
        return Path(path).parent if path else None

    def programs(self) -> Path:
        """The folder of its programs; where there is none, the test is skipped."""
        folder = self.folder()
        if folder is None:
            message = f"not proved here: {self.proves}; install {self.package}"
            if os.environ.get(NEEDS_ALL):
                pytest.fail(message, pytrace=False)
            pytest.skip(message)
        return folder


def _version(path: Path) -> list[int]:
    return [int(part) for part in path.parts if part.isdigit()]


CHROMIUM = Need("chromium", "chromium", "Prefect's pages and the report in a browser")
POSTGRESQL = Need(
    "postgresql",
    "initdb",
    "ledgers in PostgreSQL, pairs on several workers",
    ("/usr/lib/postgresql/*/bin", str(FROM_PYPI / "pgserver/pginstall/bin")),
)
# Prefect's own tables want the extension pg_trgm, which PyPI's PostgreSQL does not have.
WHOLE_POSTGRESQL = Need("postgresql", "initdb", "a server for many", ("/usr/lib/postgresql/*/bin",))
REDIS = Need("redis-server", "redis-server", "a server for many")
NEEDS = (CHROMIUM, POSTGRESQL, WHOLE_POSTGRESQL, REDIS)


def main() -> None:
    """Install what is missing, and say so."""
    if missing := _missing():
        _install_with_apt(missing)
    # PostgreSQL does not run as root, and root's folders are closed to others.
    if os.geteuid() and POSTGRESQL.folder() is None:
        _install_from_pypi()


def _missing() -> list[Need]:
    return [need for need in NEEDS if need.folder() is None]


def _install_with_apt(missing: list[Need]) -> None:
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    apt = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    if not shutil.which("apt-get") or (sudo and not _succeeds("sudo", "-n", "true")):
        return
    packages = sorted({need.package for need in missing})
    print(f"Installing what the tests need, with apt-get: {', '.join(packages)}.", flush=True)
    install = (*apt, "install", "--no-install-recommends", "--yes", *packages)
    if not (_succeeds(*apt, "update") and _succeeds(*install)):
        print("apt-get failed; what needs these packages is skipped.", file=sys.stderr)


def _install_from_pypi() -> None:
    print("Installing PostgreSQL for the tests into .venv, from PyPI.", flush=True)
    install = ("install", "--quiet", "--no-deps", "--require-hashes", "--target", str(FROM_PYPI))
    if not _succeeds(sys.executable, "-m", "pip", *install, "--requirement", str(LOCK)):
        print("pip failed; what needs PostgreSQL is skipped.", file=sys.stderr)


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    main()
