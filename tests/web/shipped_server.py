"""The server with the shipped model, as it is started from the command line."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

TOKENAUCTION = ("-c", "from tokenauction.clients.cli import main; main()")


async def tokenauction(*arguments: str) -> asyncio.subprocess.Process:
    """The command line, with what it prints as a pipe."""
    environment = {**os.environ, "COLUMNS": "200"}
    return await asyncio.create_subprocess_exec(
        sys.executable, *TOKENAUCTION, *arguments, env=environment, stdout=asyncio.subprocess.PIPE
    )


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[str]:
    """The URL of `tokenauction serve` with the shipped model."""
    process = await tokenauction("serve", "--port", "0", "--ledger", str(folder / "ledger.db"), "--play-money", "100")
    assert process.stdout is not None
    try:
        line = (await process.stdout.readline()).decode()
        yield next(word for word in line.split() if word.startswith("http"))
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()
