"""What viewers and bidders wait for, beside what any server in Python pays.

    python benchmarks/server.py [--viewers 1 10 100 500] [--auctions 50] [--each 10] [--token-ms 20]

A real server on the shipped model; readers in this process that only note when bytes come. Latency is from the moment a
token is told of to the arrival of its event. In the same run plain `websockets` broadcasts messages as large, as often,
to as many. The cost of a delivery is CPU time of the process once all are connected, less that of
the same auctions with one viewer each. The
case of many auctions is run without and with one more viewer, who watches all of them and never reads: when it is gone,
what memory the server took, what the others waited. Last, bids on as many connections as there are agents, each sent
when the one before it is answered. Prints a table, then one JSON line.
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
from server_plain import LAST
from server_process import ServerProcess, server_process
from server_readers import RawReader, read, stick

from tokenauction.clients.client import Client
from tokenauction.server.wire import BidUpdate, Subscribe, encode

VIEWERS = (1, 10, 100, 500)
SETTLED = b'"auction.settled"'
PLAIN = Path(__file__).with_name("server_plain.py")
STUCK_SECONDS = 30.0  # after which one that does not read should be long gone
BIDS_EACH = 90  # of one connection: fewer than may be sent at once
BID_AUCTIONS = 20


def spec_of(num_agents: int, *, join_ms: int, token_ms: int, num_tokens: int) -> dict[str, Any]:
    """An auction as everybody here watches it."""
    agents = [{"id": f"a{i}", "name": f"Brand{i}", "offer": "rooms", "bid": "0.001"} for i in range(num_agents)]
    pace = {"tmax_join_ms": join_ms, "token_ms": token_ms}
    return {"query": "Hawaii", "agents": agents, "max_tokens": num_tokens, **pace}


async def begin(server: ServerProcess, spec: dict[str, Any], count: int) -> list[str]:
    """Auctions that begin when everybody is there."""
    async with Client(server.url) as client:
        return [(await client.begin({**spec, "seed": seed}))["auction_id"] for seed in range(count)]


def subscribe(auction_id: str) -> bytes:
    return encode(Subscribe(auction_id=auction_id))


async def watch(
    server: ServerProcess, num_auctions: int, num_viewers: int, arguments: argparse.Namespace, *, is_stuck: bool = False
) -> dict[str, Any]:
    """Some auctions with so many viewers each; what they waited for, and what it cost."""
    join_ms = min(60_000, 1_500 + 8 * num_auctions * (num_viewers + 2))
    num_agents = 3 if num_auctions == 1 else 1  # so that all of them have room in the model at once
    spec = spec_of(num_agents, join_ms=join_ms, token_ms=arguments.token_ms, num_tokens=arguments.tokens)
    server.most_mib = 0.0
    auction_ids = await begin(server, spec, num_auctions)
    stuck = stick(server.stream, [subscribe(auction_id) for auction_id in auction_ids]) if is_stuck else None
    started = time.time()
    wanted = [auction_id for auction_id in auction_ids for _ in range(num_viewers)]
    reading = [asyncio.create_task(read(server.stream, [subscribe(name)], SETTLED)) for name in wanted]
    while await server.num_connections() < len(wanted) + is_stuck:
        await asyncio.sleep(0.1)
    cpu = server.cpu_seconds()
    readers = await asyncio.gather(*reading)
    result = of_readers(readers) | {"cpu_seconds": server.cpu_seconds() - cpu}
    if stuck is not None:
        while await server.num_connections() and time.time() - started < STUCK_SECONDS:
            await asyncio.sleep(0.1)
        result["stuck_gone_after_s"] = time.time() - max(result["first"], started)
        stuck.close()
    return result | {"memory_mib": server.most_mib}


def of_readers(readers: list[RawReader]) -> dict[str, Any]:
    """Latencies, times of the tokens, sizes of their events."""
    latencies: list[float] = []
    sizes: list[int] = []
    times: set[float] = set()
    for reader in readers:
        for at, message in reader.messages():
            event = json.loads(message)
            if event["type"] == "auction.token":
                latencies.append(at - event["time"])
                sizes.append(len(message))
                times.add(event["time"])
    pace = (max(times) - min(times)) / max(1, len(times) - 1)
    return {"latencies": latencies, "size": int(statistics.median(sizes)), "pace": pace, "first": min(times)}


async def watch_plain(num_readers: int, size: int, pace: float, count: int) -> dict[str, Any]:
    """The same of plain websockets: as many readers, messages as large and as often."""
    numbers = map(str, (num_readers, size, pace, count))
    process = await asyncio.create_subprocess_exec(sys.executable, PLAIN, *numbers, stdout=-1)
    assert process.stdout is not None, "its output is a pipe"
    address = f"ws://127.0.0.1:{int(await process.stdout.readline())}"
    readers = await asyncio.gather(*(read(address, [], LAST.encode()) for _ in range(num_readers)))
    cpu_seconds = float(await process.stdout.readline())
    await process.wait()
    messages = [(at, text) for reader in readers for at, text in reader.messages() if text != LAST.encode()]
    return {"latencies": [at - float(text.split(b" ", 1)[0]) for at, text in messages], "cpu_seconds": cpu_seconds}


async def bid(server: ServerProcess) -> dict[str, Any]:
    """Bids while texts are written: how many in a second, what each waits, how many rows the ledger takes meanwhile."""
    auction_ids = await begin(server, spec_of(3, join_ms=1_000, token_ms=1_000, num_tokens=64), BID_AUCTIONS)
    waits: list[float] = []
    is_time = asyncio.Event()

    async def bidder(auction_id: str, agent_id: str) -> None:
        async with Client(server.url).connection() as socket:
            await socket.recv()
            await is_time.wait()
            for number in range(BIDS_EACH):
                update = BidUpdate(auction_id=auction_id, agent_id=agent_id, bid_micros=900 + number)
                sent = time.perf_counter()
                await socket.send(encode(update).decode())
                answer = json.loads(await socket.recv())
                if answer["type"] != "bid.accepted":
                    return
                waits.append(time.perf_counter() - sent)

    bidding = [asyncio.create_task(bidder(name, f"a{i}")) for name in auction_ids for i in range(3)]
    await asyncio.sleep(2.0)  # until the texts have begun
    rows, started = server.num_rows(), time.perf_counter()
    is_time.set()
    await asyncio.gather(*bidding)
    seconds = time.perf_counter() - started
    return {"latencies": waits, "bids_per_s": len(waits) / seconds, "rows_per_s": (server.num_rows() - rows) / seconds}


def line(name: str, auctions: int, viewers: int, found: dict[str, Any], alone: dict[str, Any] | None) -> dict[str, Any]:
    """One line of the result; `alone` is the same with one viewer an auction."""
    hundredths = statistics.quantiles(found["latencies"], n=100, method="inclusive")
    count = len(found["latencies"])
    result = {"server": name, "auctions": auctions, "viewers": viewers, "deliveries": count}
    result |= {"ms_p50": hundredths[49] * 1e3, "ms_p99": hundredths[98] * 1e3}
    if alone is None:
        result["us_cpu_per_delivery"] = found["cpu_seconds"] / count * 1e6
    elif count > len(alone["latencies"]):
        more = (found["cpu_seconds"] - alone["cpu_seconds"]) / (count - len(alone["latencies"]))
        result["us_cpu_per_delivery"] = more * 1e6
    kept = ("memory_mib", "stuck_gone_after_s", "bids_per_s", "rows_per_s")
    return result | {name: found[name] for name in kept if name in found}


async def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All cases, on one server."""
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        async with server_process(Path(folder)) as server:
            memory = asyncio.create_task(server.watch_memory())
            await watch(server, 1, 1, arguments)  # the first text loads what is loaded once
            alone = await watch(server, 1, 1, arguments)
            for num in arguments.viewers:
                found = await watch(server, 1, num, arguments)
                results.append(line("tokenauction", 1, num, found, alone))
                results.append(await plain_line(num, found))
            many, each = arguments.auctions, arguments.each
            alone = await watch(server, many, 1, arguments)
            for is_stuck in (False, True):
                found = await watch(server, many, each, arguments, is_stuck=is_stuck)
                name = "tokenauction, one stuck" if is_stuck else "tokenauction"
                results.append(line(name, many, many * each, found, alone))
            results.append(await plain_line(many * each, found))
            found = await bid(server)
            results.append(line("tokenauction, bids", BID_AUCTIONS, 3 * BID_AUCTIONS, found, found))
            memory.cancel()
    return results


async def plain_line(num_readers: int, found: dict[str, Any]) -> dict[str, Any]:
    """Plain websockets doing what was just done."""
    count = max(2, len(found["latencies"]) // num_readers)
    plain = await watch_plain(num_readers, found["size"], max(found["pace"], 0.001), count)
    return line("plain websockets", 1, num_readers, plain, None)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, nargs="+", default=VIEWERS, help="of one auction")
    parser.add_argument("--auctions", type=int, default=50, help="at the same time")
    parser.add_argument("--each", type=int, default=10, help="viewers of each of them")
    parser.add_argument("--tokens", type=int, default=64, help="the most of a text")
    parser.add_argument("--token-ms", type=int, default=20, help="rest behind every token; 0: as fast as it goes")
    arguments = parser.parse_args()
    results = asyncio.run(run(arguments))
    names = ("auctions", "viewers", "deliveries", "ms_p50", "ms_p99", "us_cpu_per_delivery", "memory_mib")
    table = Table("server", *names, "more")
    for result in results:
        more = ", ".join(f"{name} {result[name]:,.1f}" for name in result if name.endswith("_s"))
        numbers = (result.get(name, "") for name in names)
        table.add_row(result["server"], *(f"{n:,.2f}" if isinstance(n, float) else str(n) for n in numbers), more)
    Console(width=160).print(table)
    options = {name: value for name, value in vars(arguments).items() if name != "viewers"}
    print(json.dumps({"benchmark": "server", **options, **origin(), "results": results}))


if __name__ == "__main__":
    main()
