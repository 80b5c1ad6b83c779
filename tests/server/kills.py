"""A server that is killed at a random moment and started again: nothing acknowledged is lost, nothing charged twice.

    python -m tests.server.kills --moments 50 [--first 0] [--joining] [--postgres]

Three auctions run, watched, one of them bid on; the server gets SIGKILL; a second one finishes on the same ledger. Then
the streams, the texts, every receipt and every account are checked. With --joining the signal comes while agents join.
Run it at the root of the checkout.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.server.postgres import new_url
from tests.server.toy_server import FUNDS, in_stream, spec_of, toy_server

from tokenauction.clients.client import Client, Event
from tokenauction.engine.verification import verify
from tokenauction.server.ledger import Ledger
from tokenauction.server.wire import AgentJoin, BidUpdate, Brief, encode

ROOT = Path(__file__).resolve().parent.parent.parent
STEP_SECONDS = 0.004
NUM_JOINING = 4
BIDS = {f"agent{place}": f"0.00{place + 1}" for place in range(NUM_JOINING)}


@dataclass
class Process:
    """A running server."""

    process: asyncio.subprocess.Process
    client: Client

    async def end(self, number: int) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return await self.process.wait()


@asynccontextmanager
async def toy_process(ledger_url: str, port: int = 0) -> AsyncIterator[Process]:
    """The toy server as a process; killed at the end if it still runs."""
    arguments = ("-m", "tests.server.toy_process", ledger_url, str(STEP_SECONDS), str(port))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None, "its output is a pipe"
    try:
        url = (await process.stdout.readline()).decode().strip()
        yield Process(process, Client(url, give_up=0.0))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def watch_until_lost(client: Client, auction_id: str, events: list[Event]) -> None:
    """Collect a stream until it ends or its server does."""
    after_seq, epoch = (events[-1]["seq"], events[-1]["epoch"]) if events else (-1, None)
    try:
        async for event in client.watch(auction_id, after_seq, epoch):
            if "seq" in event:
                events.append(event)
    except Exception:  # noqa: BLE001  # however a killed server shows itself
        return


def text_of(events: list[Event]) -> str:
    """The text as somebody who heeds resets has it."""
    kept: dict[int, str] = {}
    for event in events:
        if event["type"] == "stream.reset":
            kept = {seq: text for seq, text in kept.items() if seq <= event["after_seq"]}
        elif event["type"] == "auction.token":
            kept[event["seq"]] = event["text"]
    return "".join(kept[seq] for seq in sorted(kept))


async def kill_and_resume(folder: Path, ledger_url: str, moment: int) -> int:
    """One kill, at a moment that follows from its number; how many tokens had been seen when it came.

    The folder is for the server that it is compared with.
    """
    chance = random.Random(moment)
    num_tokens = 150
    ids: list[str] = []
    streams: list[list[Event]] = []
    accepted: list[tuple[str, int]] = []
    async with toy_process(ledger_url) as server:
        for seed in range(3):
            spec = spec_of("0.002", "0.001", max_tokens=num_tokens, seed=seed)
            ids.append((await server.client.begin(spec))["auction_id"])
            streams.append([])
        pairs = zip(ids, streams, strict=True)
        watching = [asyncio.create_task(watch_until_lost(server.client, *pair)) for pair in pairs]
        killed_at = chance.randrange(2, num_tokens)
        bidding = asyncio.create_task(bid_on(server.client, ids[0], accepted))
        while len(streams[0]) < killed_at and not watching[0].done():
            await asyncio.wait(watching, timeout=0.002)
        await server.end(signal.SIGKILL)
        await asyncio.gather(*watching, bidding)
    async with toy_process(ledger_url) as server:
        pairs = zip(ids, streams, strict=True)
        await asyncio.gather(*(watch_until_lost(server.client, *pair) for pair in pairs))
        assert await server.end(signal.SIGTERM) == 0
    texts = await check(ledger_url, ids)
    for text, events in zip(texts, streams, strict=True):
        assert events[-1]["type"] == "auction.settled" and events[-1]["text"] == text
        assert text_of(events) == text, [(event["epoch"], event["seq"], event.get("text")) for event in events]
        for epoch in {event["epoch"] for event in events}:
            seqs = [event["seq"] for event in events if event["epoch"] == epoch]
            assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    async with toy_server(folder, ledger_url=str(folder / "plain.db")) as plain:  # the same seeds, never interrupted
        for seed in (1, 2):
            spec = spec_of("0.002", "0.001", max_tokens=num_tokens, seed=seed)
            events = [event async for event in plain.client().create(spec)]
            assert in_stream(events)[-1]["text"] == streams[seed][-1]["text"]
            assert in_stream(events)[-1]["agents"] == streams[seed][-1]["agents"]
    if accepted:
        last = streams[0][-2] if streams[0][-2]["type"] == "auction.token" else streams[0][-3]
        assert last["agents"][1]["bid_micros"] >= accepted[-1][1]
    return killed_at


async def bid_on(client: Client, auction_id: str, accepted: list[tuple[str, int]]) -> None:
    """Raise a bid again and again; keep what was acknowledged."""
    try:
        async with client.connection() as socket:
            for bid_micros in range(1_001, 1_040):
                update = BidUpdate(auction_id=auction_id, agent_id="agent1", bid_micros=bid_micros)
                await socket.send(encode(update).decode())
                while b'"bid.accepted"' not in (message := await socket.recv(decode=False)):
                    if b'"bid.rejected"' in message:
                        return
                accepted.append((auction_id, bid_micros))
    except Exception:  # noqa: BLE001  # however a killed server shows itself
        return


async def kill_while_agents_join(ledger_url: str, moment: int) -> int:
    """One kill between the first joining and the last; how many had been acknowledged when it came."""
    chance = random.Random(moment)
    spec = {**spec_of(max_tokens=40, seed=moment), "tmax_join_ms": 1_500}
    joined: set[tuple[str, str]] = set()
    async with toy_process(ledger_url) as server:
        ids = [(await server.client.begin(spec))["auction_id"] for _ in range(2)]
        joining = [asyncio.create_task(join_all(server.client, auction_id, joined)) for auction_id in ids]
        num_awaited = chance.randrange(2 * NUM_JOINING)
        while len(joined) < num_awaited and not all(task.done() for task in joining):
            await asyncio.wait(joining, timeout=0.001)
        await asyncio.wait(joining, timeout=chance.random() * 0.01)
        await server.end(signal.SIGKILL)
        await asyncio.gather(*joining)
    acknowledged = frozenset(joined)
    async with toy_process(ledger_url) as server:
        await asyncio.gather(*(join_all(server.client, auction_id, joined) for auction_id in ids))
        streams: list[list[Event]] = [[], []]
        pairs = zip(ids, streams, strict=True)
        await asyncio.gather(*(watch_until_lost(server.client, *pair) for pair in pairs))
        assert await server.end(signal.SIGTERM) == 0
    await check(ledger_url, ids)
    for auction_id, events in zip(ids, streams, strict=True):
        rows = events[0]["rows"]
        assert {agent_id for known, agent_id in joined if known == auction_id} <= set(rows), "who was told is in it"
        assert events[0]["disclosure"]["by"] and [event["seq"] for event in events] == list(range(42))
        bids = {agent["id"]: agent["bid"] for agent in events[0]["spec"]["agents"]}
        assert bids == {agent_id: BIDS[agent_id] for agent_id in rows}
    return len(acknowledged)


async def join_all(client: Client, auction_id: str, joined: set[tuple[str, str]]) -> None:
    """Join as one agent after the other, again where it was acknowledged; keep whoever is acknowledged."""
    try:
        async with client.connection() as socket:
            for place, agent_id in enumerate(BIDS):
                brief = Brief(f"Name{place}", "offer")
                bid_micros = 1_000 * (place + 1)
                join = AgentJoin(auction_id=auction_id, agent_id=agent_id, bid_micros=bid_micros, brief=brief)
                await socket.send(encode(join).decode())
                while b'"agent.joined"' not in (message := await socket.recv(decode=False)):
                    if b'"error"' in message:
                        return
                joined.add((auction_id, agent_id))
    except Exception:  # noqa: BLE001  # however a killed server shows itself
        return


async def check(ledger_url: str, ids: list[str]) -> list[str]:
    """The ledger is in order, and everything has settled as its receipts say; the texts that they have."""
    ledger = await Ledger.open(ledger_url)
    try:
        assert not await ledger.audit()
        assert not await ledger.open_auctions()
        balances = await ledger.balances()
        assert sum(balances.values()) == 0 and balances.get("@held", 0) == 0
        paid: dict[str, int] = {}
        texts: list[str] = []
        for auction_id in ids:
            lines: list[Any] = [event["line"] async for event in ledger.events(auction_id) if "line" in event]
            assert verify(lines).holds
            texts.append(lines[-1]["text"])
            for row, total in zip(lines[0]["rows"], lines[-1]["totals_micros"], strict=True):
                paid[row] = paid.get(row, 0) + total
        assert paid == {agent: FUNDS - balances[agent] for agent in paid}
        return texts
    finally:
        await ledger.close()


def main() -> None:
    """Kill as often as was asked for; the first check that fails ends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--joining", action="store_true", help="kill while agents join")
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL of its own")
    options = parser.parse_args()
    for moment in range(options.first, options.first + options.moments):
        with tempfile.TemporaryDirectory(prefix="tokenauction-kills-") as folder:
            url = new_url() if options.postgres else str(Path(folder) / "ledger.db")
            if options.joining:
                killed_at = asyncio.run(kill_while_agents_join(url, moment))
            else:
                killed_at = asyncio.run(kill_and_resume(Path(folder), url, moment))
        what = "joinings" if options.joining else "events"
        print(f"moment {moment}: killed behind {killed_at} {what}; all is well", flush=True)
    print(f"{options.moments} kills: nothing acknowledged was lost, nothing was charged twice")


if __name__ == "__main__":
    main()
