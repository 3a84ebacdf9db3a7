"""What a run opens before its first stage and closes after its last: ledger, session, HTTP client."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import orjson

from tasks.core.llm.database import ledger_url
from tasks.core.llm.ledger import Ledger
from tasks.core.run import open_run
from tasks.core.session.session import open_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flows.console import Console
    from flows.order import Order
    from tasks.core.run import Run
    from tasks.core.session.session import Session


@asynccontextmanager
async def opened(order: Order, console: Console) -> AsyncIterator[tuple[Run, Session]]:
    """Open the ledger, a new session folder and the HTTP client, and close them on leaving.

    Raises:
        LedgerError: The ledger cannot be opened.
        SessionError: The folder cannot be made.
    """
    config, progress = order.config, console.progress
    async with await Ledger.open(ledger_url(config)) as ledger:
        with open_session(config, progress, text=order.text, overridden=order.overridden) as session:
            settings = orjson.dumps(config.model_dump(mode="json")).decode()
            await ledger.add_session(session.name, session.id, settings)
            async with open_run(
                config, order.keys, session=session.name, ledger=ledger, stop=console.stop, progress=progress
            ) as run:
                yield run, session
