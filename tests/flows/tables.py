"""What Prefect's migrations make of an empty SQLite file, as statements: `python -m tests.flows.tables`."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path


def main() -> None:
    """Have the migrations of the Prefect that is installed make a database, and print what it is then."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder, "prefect.db")
        os.environ["PREFECT_API_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{database}"
        # Imported here: Prefect reads its settings with it.
        from prefect.server.database import provide_database_interface  # noqa: PLC0415

        asyncio.run(provide_database_interface().create_db())
        with closing(sqlite3.connect(database)) as made:
            sys.stdout.writelines(f"{statement}\n" for statement in made.iterdump())


if __name__ == "__main__":
    main()
