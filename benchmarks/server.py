"""What a viewer waits for: from the moment a token is told of to the moment it is read, by the number of viewers.

    python benchmarks/server.py [--viewers 1 10 100 500] [--tokens 60] [--stuck]

A real server on the shipped model and viewers in another process watch one auction over sockets; each event carries the
time it was made. Beside it, in the same run, plain `websockets` sends messages of the same size to as many readers at
the same pace: what any server in Python pays. With --stuck one more viewer never reads. Prints a table, then one JSON
line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from peers_report import origin
from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import connect

from tokenauction.clients.client import Client
from tokenauction.server.wire import Subscribe, encode

VIEWERS = (1, 10, 100, 500)
CLI = ("-c", "from tokenauction.clients.cli import main; main()")
PLAIN = """
import asyncio, sys, time
from websockets.asyncio.server import broadcast, serve
async def main():
    num, size, pace, count = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    readers, full = set(), asyncio.Event()
    async def handle(socket):
        readers.add(socket)
        if len(readers) == num:
            full.set()
        await socket.wait_closed()
    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await full.wait()
        await asyncio.sleep(0.2)
        for _ in range(count):
            broadcast(readers, f'{time.time():.6f} '.ljust(size, 'x'))
            await asyncio.sleep(pace)
        broadcast(readers, 'end')
        await asyncio.sleep(1)
asyncio.run(main())
"""


async def process_of(*arguments: str) -> asyncio.subprocess.Process:
    """A Python process whose output can be read."""
    return await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)


async def first_line(process: asyncio.subprocess.Process) -> str:
    """What it says when it is ready."""
    assert process.stdout is not None, "its output is a pipe"
    return (await process.stdout.readline()).decode().strip()


async def view(url: str, auction_id: str, latencies: list[float], sizes: list[int], times: set[float]) -> None:
    """Watch one auction to its end; seconds from each token's time to its arrival."""
    async with connect(f"{url.replace('http', 'ws', 1)}/v1/stream", compression=None, max_queue=None) as socket:
        await socket.send(encode(Subscribe(auction_id=auction_id)).decode())
        async for message in socket:
            now = time.time()
            event = json.loads(message)
            if event["type"] == "auction.token":
                latencies.append(now - event["time"])
                sizes.append(len(message))
                times.add(event["time"])
            if event["type"] == "auction.settled":
                return


async def stick(url: str, auction_id: str) -> None:
    """Subscribe and never read."""
    async with connect(f"{url.replace('http', 'ws', 1)}/v1/stream", compression=None, max_queue=1) as socket:
        await socket.send(encode(Subscribe(auction_id=auction_id)).decode())
        await asyncio.Event().wait()


async def measure(url: str, num_viewers: int, num_tokens: int, has_stuck: bool) -> tuple[list[float], int, float]:
    """Latencies of all viewers of one auction, which begins when they are there; an event's size, seconds a token."""
    agents = [{"id": f"a{i}", "name": f"Brand{i}", "offer": "rooms", "bid": "0.001", "budget": "0.5"} for i in range(3)]
    spec = {"query": "Hawaii", "agents": agents, "max_tokens": num_tokens, "tmax_join_ms": 3000 + 6 * num_viewers}
    async with Client(url) as client:
        auction_id = (await client.begin(spec))["auction_id"]
    latencies: list[float] = []
    sizes: list[int] = []
    times: set[float] = set()
    stuck = asyncio.create_task(stick(url, auction_id)) if has_stuck else None
    await asyncio.gather(*(view(url, auction_id, latencies, sizes, times) for _ in range(num_viewers)))
    if stuck is not None:
        stuck.cancel()
    return latencies, int(statistics.median(sizes)), (max(times) - min(times)) / max(1, len(times) - 1)


async def measure_plain(num_viewers: int, size: int, pace: float, count: int) -> list[float]:
    """The same of plain websockets: as many readers, messages as large and as often."""
    process = await process_of("-c", PLAIN, *map(str, (num_viewers, size, pace, count)))
    port = await first_line(process)
    latencies: list[float] = []

    async def read() -> None:
        async with connect(f"ws://127.0.0.1:{port}", compression=None, max_queue=None) as socket:
            async for message in socket:
                now = time.time()
                if message == "end":
                    return
                latencies.append(now - float(str(message).split(" ", 1)[0]))

    await asyncio.gather(*(read() for _ in range(num_viewers)))
    await process.wait()
    return latencies


def row(name: str, viewers: int, latencies: list[float]) -> dict[str, Any]:
    """One line of the result."""
    hundredths = statistics.quantiles(latencies, n=100, method="inclusive")
    return {
        "server": name,
        "viewers": viewers,
        "deliveries": len(latencies),
        "ms_p50": hundredths[49] * 1e3,
        "ms_p99": hundredths[98] * 1e3,
    }


async def run(viewers: list[int], num_tokens: int, has_stuck: bool) -> list[dict[str, Any]]:
    """All cases, on one server."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        options = ("--port", "0", "--ledger", str(Path(folder) / "ledger.db"), "--play-money", "100")
        server = await process_of(*CLI, "serve", *options)
        try:
            url = (await first_line(server)).split()[2]
            for num in viewers:
                started = time.perf_counter()
                latencies, size, pace = await measure(url, num, num_tokens, has_stuck)
                count = max(2, len(latencies) // num)
                print(f"{num} viewers: {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
                results.append(row("tokenauction", num, latencies) | {"ms_per_token": pace * 1e3})
                results.append(row("plain websockets", num, await measure_plain(num, size, pace, count)))
        finally:
            server.terminate()
            await server.wait()
    return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, nargs="+", default=VIEWERS)
    parser.add_argument("--tokens", type=int, default=60, help="the most of a text")
    parser.add_argument("--stuck", action="store_true", help="one more viewer, who never reads")
    arguments = parser.parse_args()
    results = asyncio.run(run(list(arguments.viewers), arguments.tokens, arguments.stuck))
    table = Table("server", "viewers", "deliveries", "ms p50", "p99")
    for line in results:
        numbers = (f"{line[name]:.2f}" for name in ("ms_p50", "ms_p99"))
        table.add_row(line["server"], str(line["viewers"]), str(line["deliveries"]), *numbers)
    Console().print(table)
    json.dump({"benchmark": "server", "stuck": arguments.stuck, **origin(), "results": results}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
