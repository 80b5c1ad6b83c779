"""The toy server as a process of its own, to be stopped and killed; says its URL as its first line.

python -m tests.server.toy_process LEDGER [SECONDS PER STEP [PORT]]
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from tests.server.toy_server import toy_server


async def main(ledger_url: str, delay: float = 0.0, port: int = 0) -> None:
    """Serve until SIGTERM; what `serve` raises ends the process with an error."""
    async with toy_server(Path(), ledger_url=ledger_url, delay=delay, port=port) as server:
        loop = asyncio.get_running_loop()
        assert loop.remove_signal_handler(signal.SIGINT), "the server has taken the signals over"
        print(server.url, flush=True)
        await server.serving


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(float, sys.argv[2:3]), *map(int, sys.argv[3:4])))
