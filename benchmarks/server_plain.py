"""The plainest server there can be: `websockets` broadcasts messages of one size to all, at one pace; no ledger.

    python benchmarks/server_plain.py READERS BYTES SECONDS_BETWEEN COUNT

Prints its port; begins when all are there; then the seconds of CPU that the sending took.
"""

from __future__ import annotations

import asyncio
import sys
import time

from websockets.asyncio.server import ServerConnection, broadcast, serve

LAST = "the end"


async def main(num_readers: int, size: int, pace: float, count: int) -> None:
    """Serve one broadcast."""
    readers: set[ServerConnection] = set()
    are_there = asyncio.Event()

    async def handle(socket: ServerConnection) -> None:
        readers.add(socket)
        if len(readers) == num_readers:
            are_there.set()
        await socket.wait_closed()

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await are_there.wait()
        await asyncio.sleep(0.2)
        begun, loop = time.process_time(), asyncio.get_running_loop()
        first = loop.time()
        for number in range(count):
            broadcast(readers, f"{time.time():.6f} ".ljust(size, "x"))
            await asyncio.sleep(max(0.0, first + (number + 1) * pace - loop.time()))
        print(time.process_time() - begun, flush=True)
        broadcast(readers, LAST)
        await asyncio.sleep(1)


if __name__ == "__main__":
    readers, size, pace, count = sys.argv[1:]
    asyncio.run(main(int(readers), int(size), float(pace), int(count)))
