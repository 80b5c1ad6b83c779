"""A ledger at work, in a process that may be stopped at any moment, which writes down what was acknowledged to it.

    python tests/server/ledger_workload.py LEDGER --acknowledged FILE [--seed 7] [--auctions 8] [--synchronous FULL]
    python tests/server/ledger_workload.py LEDGER --check FILE

An acknowledgement is a JSON line, written when the call has returned and not before. The second form opens the ledger
again, looks for each of them, ends every open auction, and prints what is not there or out of balance, one line each.
Auctions run at the same time, so that they share commits.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenauction.server.journal import to_json
from tokenauction.server.ledger import Created, Ledger, Replayed

AGENTS = ("palm", "reef", "volcano")
BRIEF = {"name": "Volcano"}
NUM_TOKENS = 24  # of one auction; a bid is accepted behind every fourth
Acknowledgement = dict[str, Any]


@dataclass
class Workload:
    """One ledger, some auctions, and what was acknowledged."""

    ledger: Ledger
    seed: int
    acknowledge: Callable[[Acknowledgement], None]
    owed: dict[str, dict[str, int]] = field(default_factory=dict)

    async def run(self, names: Iterable[str]) -> None:
        """Deposits, then all auctions at once."""
        for agent in AGENTS:
            for number, name in enumerate(names):
                reference = f"{agent}/{name}"
                await self.ledger.deposit(agent, 10_000 + number, reference)
                self.acknowledge({"is": "deposit", "reference": reference, "micros": 10_000 + number})
        await asyncio.gather(*(self._auction(name) for name in names))
        token_id, secret = await self.ledger.create_token(["bid"], "palm")
        self.acknowledge({"is": "token", "secret": secret, "works": True})
        self.acknowledge({"is": "token", "secret": secret, "works": None})  # from here on it may or may not
        await self.ledger.revoke_token(token_id)
        self.acknowledge({"is": "token", "secret": secret, "works": False})

    async def _auction(self, name: str) -> None:
        chance = random.Random(f"{self.seed}/{name}")
        holds = dict.fromkeys(AGENTS[:2], 2_000)
        made = await self.ledger.create_auction(name, {"name": name}, holds, f"key-{name}", "asked", "sealed")
        assert made == Created(name)
        self.acknowledge({"is": "auction", "name": name, "holds": holds})
        await self.ledger.join(name, AGENTS[2], 3_000, 5, BRIEF)
        self.acknowledge({"is": "joined", "name": name, "agent": AGENTS[2], "micros": 3_000})
        owed = dict.fromkeys(AGENTS, 0)
        last = None
        for seq in range(NUM_TOKENS):
            charges = {agent: chance.randrange(40) for agent in AGENTS}
            text = "palm " * chance.randrange(1, 800)
            event = {"type": "auction.token", "seq": seq, "charges": charges, "text": text}
            last = self.ledger.append(name, 1, seq, event, charges)
            last.add_done_callback(self._told(name, seq, to_json(event), last))
            owed = {agent: owed[agent] + charges[agent] for agent in AGENTS}
            if seq % 4 == 3:
                bid = {"agent": chance.choice(AGENTS), "micros": chance.randrange(10**6), "bid_id": f"bid-{seq}"}
                await self.ledger.accept_bid(name, bid["agent"], bid["micros"], bid["bid_id"])
                self.acknowledge({"is": "bid", "name": name, **bid})
        assert last is not None
        await last
        if chance.random() < 0.25:
            await self.ledger.void(name, "cancelled")
            self.acknowledge({"is": "void", "name": name})
        else:
            await self.ledger.settle(name, owed, f"head-{name}")
            self.acknowledge({"is": "settled", "name": name, "totals": owed, "head": f"head-{name}"})

    def _told(self, name: str, seq: int, body: str, future: asyncio.Future[int]) -> Callable[[Any], None]:
        def note(_: Any) -> None:
            if not future.cancelled() and future.exception() is None:
                self.acknowledge({"is": "event", "name": name, "seq": seq, "body": body})

        return note


async def examine(ledger: Ledger, acknowledged: Sequence[Acknowledgement]) -> tuple[list[str], list[str]]:
    """What is lost, and what is out of balance, before and after every open auction is ended."""
    faults = await ledger.audit()
    lost = await check_acknowledged(ledger, acknowledged)
    for record in await ledger.open_auctions():
        owed: Counter[str] = Counter()
        async for event in ledger.events(record.auction_id):
            owed.update(event["charges"])
        await ledger.settle(record.auction_id, owed, "recovered")
    faults += await ledger.audit()
    if sum((await ledger.balances()).values()):
        faults.append("the balances do not sum to zero")
    return lost, faults


async def check_acknowledged(ledger: Ledger, acknowledged: Sequence[Acknowledgement]) -> list[str]:
    """What the ledger does not have of what it acknowledged, one line each."""
    deposits = {entry.reference: entry.micros for entry in await _entries(ledger) if entry.kind == "deposit"}
    secrets = {a["secret"]: a["works"] for a in acknowledged if a["is"] == "token"}  # the last word counts
    works = {secret: await ledger.check_token(secret) is not None for secret in secrets}
    lost = [f"token {secret}" for secret, word in secrets.items() if word not in (None, works[secret])]
    bodies: dict[str, list[str]] = {}
    for a in acknowledged:
        name = a.get("name", "")
        if name and name not in bodies:
            bodies[name] = [to_json(event) async for event in ledger.events(name)]
        if a["is"] == "deposit":
            is_there = deposits.get(a["reference"]) == a["micros"]
        elif a["is"] == "event":
            is_there = bodies[name][a["seq"] : a["seq"] + 1] == [a["body"]]
        elif a["is"] == "token":
            continue
        else:
            is_there = await _has(ledger, name, a)
        if not is_there:
            lost.append(f"{a['is']} {name} {a.get('seq', a.get('bid_id', a.get('reference', '')))}")
    return lost


async def _has(ledger: Ledger, name: str, a: Acknowledgement) -> bool:
    record = await ledger.auction(name)
    if record is None:
        return False
    held = await ledger.holds(name)
    if a["is"] == "auction":
        again = await ledger.create_auction(name, {"name": name}, a["holds"], f"key-{name}", "asked", "sealed")
        return again == Replayed(name) and all(held.get(agent, -1) >= micros for agent, micros in a["holds"].items())
    if a["is"] == "joined":
        has_joined = (a["agent"], BRIEF) in await ledger.joins(name)
        return has_joined and held.get(a["agent"], -1) >= a["micros"] and a["agent"] in await ledger.bids(name)
    if a["is"] == "bid":  # one that is there is a replay; on an auction that has ended, one that is not is refused
        return not await ledger.accept_bid(name, a["agent"], a["micros"], a["bid_id"])
    if a["is"] == "settled":
        await ledger.settle(name, a["totals"], a["head"])  # a second time, which must post nothing
    return record.state == a["is"]


async def _entries(ledger: Ledger) -> list[Any]:
    found: list[Any] = []
    while page := await ledger.entries(after=found[-1].entry_id if found else 0):
        found += page
    return [entry for entry in found if not entry.account_id.startswith("@")]


async def work(arguments: argparse.Namespace) -> None:
    """Two sessions of one ledger, each with half of the auctions."""
    target = os.open(arguments.acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def acknowledge(acknowledgement: Acknowledgement) -> None:
        os.write(target, json.dumps(acknowledgement).encode() + b"\n")

    names = [f"auction-{number}" for number in range(arguments.auctions)]
    half = len(names) // 2
    for session in (names[:half], names[half:]):
        ledger = await Ledger.open(arguments.ledger, synchronous=arguments.synchronous)
        await Workload(ledger, arguments.seed, acknowledge).run(session)
        await ledger.close()


async def check(arguments: argparse.Namespace) -> None:
    """Print what is lost or out of balance."""
    lines = arguments.check.read_text(encoding="utf-8").splitlines()
    ledger = await Ledger.open(arguments.ledger)
    lost, faults = await examine(ledger, [json.loads(line) for line in lines])
    await ledger.close()
    for fault in lost + faults:
        print(fault)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("ledger", help="a path or a URL")
    parser.add_argument("--acknowledged", type=Path)
    parser.add_argument("--check", type=Path)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--auctions", type=int, default=8)
    parser.add_argument("--synchronous", choices=("FULL", "NORMAL"), default="FULL")
    arguments = parser.parse_args()
    asyncio.run(check(arguments) if arguments.check else work(arguments))


if __name__ == "__main__":
    main()
