"""What the ledger takes: events and bids per second, and how long each waits until it is durable.

    python benchmarks/server_ledger.py [--auctions 8] [--tokens 512] [--bids 256] [--ledger postgresql://…]

Auctions append at the same time, as a server's do, each with at most 256 tokens that are not durable; bidders wait for
each of their bids. `sync_ms_floor` is what the disk alone takes in the same folder: write one page, sync, again. Prints
a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tokenauction.server.ledger import Ledger

EVENT_BYTES = 2_500  # of the usual token of three agents, with its line of the receipt
AHEAD = 256  # tokens that an auction has in flight


def sync_ms(folder: Path, count: int = 50) -> float:
    """Median milliseconds that one page takes to the disk."""
    times = []
    with (folder / "page").open("wb", buffering=0) as file:
        for _ in range(count):
            started = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3


async def measure_ledger(
    folder: Path, *, auctions: int = 8, tokens: int = 512, bids: int = 256, ledger_url: str | None = None
) -> dict[str, Any]:
    """Rows per second and waiting times of a ledger without auctions: in a new file of this folder, or by URL."""
    ledger = await Ledger.open(ledger_url or str(folder / "ledger.db"))
    names = [f"auction-{number}" for number in range(auctions)]
    for name in names:
        await ledger.deposit(name, 10**6, name)
    created = [await _timed(ledger.create_auction(name, {}, {name: 10**6}, name, "asked", "sealed")) for name in names]
    started = time.perf_counter()
    waits = await asyncio.gather(*(_tell(ledger, name, tokens) for name in names))
    append_seconds = time.perf_counter() - started
    started = time.perf_counter()
    bid_waits = await asyncio.gather(*(_bid(ledger, name, bids // auctions) for name in names))
    bid_seconds = time.perf_counter() - started
    settled = [await _timed(ledger.settle(name, {name: tokens}, "head")) for name in names]
    await ledger.close()
    return {
        "sync_ms_floor": sync_ms(folder),
        "events_per_s": auctions * tokens / append_seconds,
        **_quantiles("event_durable_ms", [wait for some in waits for wait in some]),
        "bids_per_s": auctions * (bids // auctions) / bid_seconds,
        **_quantiles("bid_durable_ms", [wait for some in bid_waits for wait in some]),
        **_quantiles("create_ms", created),
        **_quantiles("settle_ms", settled),
    }


async def _timed(awaitable: Any) -> float:
    started = time.perf_counter()
    await awaitable
    return time.perf_counter() - started


async def _tell(ledger: Ledger, name: str, tokens: int) -> list[float]:
    """Append tokens, at most AHEAD undurable; how long each took, in seconds."""
    waits: list[float] = []
    for first in range(0, tokens, AHEAD):
        seqs = range(first, min(first + AHEAD, tokens))
        events = [{"type": "auction.token", "seq": seq, "line": "x" * EVENT_BYTES} for seq in seqs]
        waits += await asyncio.gather(*(_timed(ledger.append(name, 1, e["seq"], e, {name: 1})) for e in events))
    return waits


async def _bid(ledger: Ledger, name: str, bids: int) -> list[float]:
    return [await _timed(ledger.accept_bid(name, name, number, f"bid-{number}")) for number in range(bids)]


def _quantiles(name: str, seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {f"{name}_p50": cuts[49] * 1e3, f"{name}_p99": cuts[98] * 1e3}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--auctions", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=512, help="of each auction")
    parser.add_argument("--bids", type=int, default=256, help="of all auctions together")
    parser.add_argument("--ledger", help="by URL, with no auctions in it; a temporary file if left out")
    sizes = vars(parser.parse_args())
    url: str | None = sizes.pop("ledger")  # it may hold a password: it is not printed
    with tempfile.TemporaryDirectory(prefix="server-ledger-") as folder:
        figures = asyncio.run(measure_ledger(Path(folder), ledger_url=url, **sizes))
    database = "sqlite" if url is None else url.partition(":")[0]
    table = Table("figure", "value", title="the ledger")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.2f}")
    Console().print(table)
    print(json.dumps({"benchmark": "server_ledger", "database": database, **sizes, **figures}))


if __name__ == "__main__":
    main()
