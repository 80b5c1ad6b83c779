"""`tokenauction serve` as a process that a benchmark watches from outside: its CPU, its memory, its connections."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

CLI = ("-c", "from tokenauction.clients.cli import main; main()")
SAMPLE_SECONDS = 0.05
TABLES = ("events", "bids", "holds", "transfers", "entries", "auctions")


@dataclass
class ServerProcess:
    """A running server; CPU and memory are known on Linux alone."""

    url: str
    ledger: Path
    process: asyncio.subprocess.Process
    most_mib: float = field(default=0.0)  # memory, since `most_mib` was set to 0

    @property
    def stream(self) -> str:
        return f"ws{self.url.removeprefix('http')}/v1/stream"

    def cpu_seconds(self) -> float:
        """Of all its threads, so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    async def watch_memory(self) -> None:
        """Keep the most that it has, for as long as this runs."""
        while True:
            self.most_mib = max(self.most_mib, self.memory_mib())
            await asyncio.sleep(SAMPLE_SECONDS)

    async def num_connections(self) -> int:
        """WebSockets that are open."""

        def ask() -> int:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=10) as answer:
                return int(json.load(answer)["connections"])

        return await asyncio.to_thread(ask)

    def num_rows(self) -> int:
        """Rows of the ledger that are durable."""
        with closing(sqlite3.connect(f"file:{self.ledger}?mode=ro", uri=True)) as connection:
            return sum(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES)


@asynccontextmanager
async def server_process(folder: Path) -> AsyncIterator[ServerProcess]:
    """A server on the shipped model with a ledger of its own; stopped at the end."""
    ledger = folder / "ledger.db"
    options = ("--port", "0", "--ledger", str(ledger), "--play-money", "1000000")
    process = await asyncio.create_subprocess_exec(sys.executable, *CLI, "serve", *options, stdout=-1)
    assert process.stdout is not None, "its output is a pipe"
    try:
        line = (await process.stdout.readline()).decode()
        yield ServerProcess(line.split()[2], ledger, process)
    finally:
        process.terminate()
        await process.wait()
