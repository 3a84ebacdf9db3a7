"""Where sessions and the ledger are, for the commands that look after them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flows.checking import DEFAULT_CONFIG, load_here
from flows.request import OUTPUT_FOLDER
from tasks.core import files
from tasks.core.config.settings import Output
from tasks.core.errors import UsageError
from tasks.core.files import check_folder
from tasks.core.ledger.schema import ledger_url, usual_url
from tasks.core.session.ledger import open_ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flows.request import Location
    from tasks.core.config.settings import Config
    from tasks.core.ledger.ledger import Ledger


class Workspace:
    """The output folder, and the ledger that goes with it.

    Attributes:
        folder: The output folder.
        config: The configuration that names it, or None where there is no file.
    """

    def __init__(
        self, location: Location | None = None, *, config: Config | None = None, writes: bool = False
    ) -> None:
        """Find the place.

        Args:
            location: The configuration file and the output folder, as they are given.
            config: The configuration itself, in place of the file.
            writes: Whether something is made in the output folder.

        Raises:
            ConfigError: The configuration cannot be used.
            UsageError: The output folder can be none, or the file is of a session from elsewhere.
        """
        file, output = (location.config, location.output) if location else ("", "")
        self.config = config
        if config is None and (file or Path(DEFAULT_CONFIG).exists()):
            overrides = {OUTPUT_FOLDER: output} if output else {}
            self.config = load_here(Path(file or DEFAULT_CONFIG), overrides, for_run=False).config
        section = self.config.output if self.config else Output()
        self.folder = Path(output or section.folder)
        check_folder(self.folder, writes=writes)
        # Whatever the command is: what was left in the folder takes up room, and is nothing to anybody.
        files.sweep(self.folder)
        self._url = ledger_url(self.config) if self.config else usual_url(self.folder)

    @property
    def ledger_file(self) -> Path:
        """The ledger's file.

        Raises:
            UsageError: The ledger is no SQLite file.
        """
        if not self._url.database or self._url.get_backend_name() != "sqlite":
            raise UsageError("this command is for a ledger in an SQLite file; PostgreSQL has its own tools")
        return Path(self._url.database)

    @asynccontextmanager
    async def ledger(self, *, make: bool = False) -> AsyncIterator[Ledger]:
        """The ledger, open.

        Args:
            make: Whether one is made where there is none.

        Raises:
            UsageError: There is none yet.
            LedgerError: It cannot be opened.
        """
        if not make and self._url.get_backend_name() == "sqlite" and not self.ledger_file.exists():
            raise UsageError(f"there is no ledger at {self.ledger_file}")
        async with await open_ledger(self._url, self.folder) as ledger:
            yield ledger
