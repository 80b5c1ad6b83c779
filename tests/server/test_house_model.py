"""Any order of creations, joinings, bids, leavings, cancellations, steps and crashes: what a house wrote and charged is
what a few dictionaries say it must be."""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from tests.server.toy_server import SYMBOLS, PacedModel, spec_of

from tokenauction.engine.decoder import Decoder
from tokenauction.engine.errors import TokenAuctionError
from tokenauction.engine.policy import Policy
from tokenauction.engine.spec import AuctionSpec
from tokenauction.engine.verification import verify
from tokenauction.models.toy import ToyWorld
from tokenauction.server.bidding import Bidding
from tokenauction.server.house import House
from tokenauction.server.ledger import Ledger
from tokenauction.server.live_auction import Phase
from tokenauction.server.recovery import recover

AGENTS = ("agent0", "agent1", "agent2")
FUNDS = 60_000  # micros, so that money runs short now and then
MAX_TOKENS = 60
agents = st.sampled_from(AGENTS)
micros = st.integers(0, 2_000)
budgets = st.integers(0, 9_000)
few = st.sampled_from([False, False, False, True])  # what would end everything too soon is not done every time


@dataclass
class Modelled:
    """An auction as the dictionaries know it."""

    budgets: dict[str, int]
    bids: dict[str, list[tuple[int, int]]]  # by agent, (step from which it counts, micros), as they were accepted
    left: dict[str, int] = field(default_factory=dict)  # by agent, the step from which it is absent
    ids: dict[tuple[str, str], int] = field(default_factory=dict)  # of bids that were accepted
    has_begun: bool = False
    is_over: bool = False

    def bid_at(self, agent: str, step: int) -> int:
        return [bid for first, bid in self.bids[agent] if first <= step][-1]


class HouseMachine(RuleBasedStateMachine):
    """One house after the other, all on one ledger."""

    auctions = Bundle("auctions")

    @initialize(target=auctions)
    def open(self) -> Any:
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.count = itertools.count()
        self.modelled: dict[str, Modelled] = {}
        self.do(self.start())
        for agent in AGENTS:
            self.do(self.ledger.deposit(agent, FUNDS, f"funds of {agent}"))
        return self.create({"agent0": (900, 9_000), "agent1": (1_100, 9_000)}, may_join=False)

    async def start(self) -> None:
        """A server's inside, on the ledger as it is."""
        self.ledger = await Ledger.open(str(Path(self.folder.name) / "ledger.db"))
        self.model = PacedModel(ToyWorld(3, SYMBOLS), is_paced=True)
        decoder = Decoder(self.model, stamp=lambda: (f"evt_{next(self.count)}", 0.0), entropy=os.urandom)

        def prepare(spec: AuctionSpec) -> tuple[list[list[int]], Policy]:
            return [self.model.tokenizer.encode_prompt(f"{spec.query} for {row}") for row in spec.hosted_ids], Policy()

        self.house = House(decoder, prepare, self.ledger, takes_seeds=True)
        self.bidding = Bidding(self.house)
        for name, auction in self.modelled.items():  # whatever was accepted counts from the next token
            steps = [event["step"] async for event in self.ledger.events(name, -1) if event["type"] == "auction.token"]
            durable = 1 + max(steps, default=-1)
            for agent, bids in auction.bids.items():
                auction.bids[agent] = [(min(first, durable), bid) for first, bid in bids]
            auction.left = {agent: min(first, durable) for agent, first in auction.left.items()}
        await recover(self.house)

    def do(self, work: Coroutine[Any, Any, Any] | Awaitable[Any]) -> Any:
        """What comes of it, or the code of what was refused; the model steps as long as it is waited for."""

        async def outcome() -> Any:
            try:
                return await work
            except TokenAuctionError as error:
                return error.code

        if not hasattr(self, "house"):
            return self.loop.run_until_complete(outcome())
        return self.loop.run_until_complete(self.stepping(outcome()))

    async def stepping(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What comes of it, while the model may step; steps that nobody took are not saved up."""
        waiting = asyncio.create_task(work)
        while not waiting.done():
            await asyncio.wait([waiting], timeout=0.01)
            if not waiting.done():
                self.model.allow()
        while self.model.leave.acquire(blocking=False):
            pass
        return await waiting

    def look(self, name: str) -> Modelled:
        """The auction, having taken in what has happened to it by itself."""
        auction, live = self.modelled[name], self.house.live.get(name)
        auction.has_begun = auction.has_begun or live is None or live.phase is not Phase.JOINING
        auction.is_over = live is None or not live.is_live
        return auction

    # --- Rules ----------------------------------------------------------------------------------------------------

    @rule(target=auctions, first=st.dictionaries(agents, st.tuples(micros, budgets)), may_join=st.booleans())
    def create_another(self, first: dict[str, tuple[int, int]], may_join: bool) -> Any:
        return self.create(first, may_join=may_join)

    def create(self, first: dict[str, tuple[int, int]], *, may_join: bool) -> Any:
        spec = spec_of(max_tokens=MAX_TOKENS, reference_weight="0.0005", seed=next(self.count))
        spec["agents"] = [
            {"id": agent, "name": agent, "offer": "o", "bid": f"{bid / 1e6:.6f}", "budget": f"{budget / 1e6:.6f}"}
            for agent, (bid, budget) in first.items()
        ]
        spec |= {"tmax_join_ms": 60_000} if may_join else {}
        made = self.do(self.house.create(spec, "owner"))
        if not first and not may_join:
            assert made == "invalid_spec"
            return multiple()
        if made == "insufficient_funds":
            return multiple()
        self.modelled[made.auction_id] = Modelled(
            {agent: budget for agent, (_, budget) in first.items()},
            {agent: [(0, bid)] for agent, (bid, _) in first.items()},
            has_begun=not may_join,
        )
        return made.auction_id

    @rule(name=auctions, agent=agents, bid=micros, budget=budgets)
    def join(self, name: str, agent: str, bid: int, budget: int) -> None:
        auction = self.look(name)
        done = self.do(self.bidding.join(name, agent, bid, budget, {"name": agent, "offer": "o"}))
        if auction.is_over or (self.look(name).is_over and done == "not_live"):
            assert done == "not_live"
        elif agent in auction.left and auction.has_begun:
            assert done == "left"
        elif agent in auction.bids:
            auction.bids[agent].append((done, bid))
        elif auction.has_begun:
            assert done == "joining_closed"
        elif done != "insufficient_funds":
            assert done == 0
            auction.bids[agent], auction.budgets[agent] = [(0, bid)], budget

    @rule(name=auctions, agent=agents, bid=micros, bid_id=st.sampled_from([None, "one", "two"]))
    def bid(self, name: str, agent: str, bid: int, bid_id: str | None) -> None:
        auction = self.look(name)
        done = self.do(self.bidding.bid(name, agent, bid, bid_id))
        known = None if bid_id is None else auction.ids.get((agent, bid_id))
        if auction.is_over or (self.look(name).is_over and done == "not_live"):
            assert done == "not_live"
        elif agent not in auction.bids:
            assert done == "unknown_agent"
        elif agent in auction.left:
            assert done == "left"
        elif known is not None:
            assert done == "idempotency_conflict" if known != bid else isinstance(done, int)
        else:
            auction.bids[agent].append((done, bid))
            if bid_id is not None:
                auction.ids[agent, bid_id] = bid

    @rule(name=auctions, agent=agents)
    def leave(self, name: str, agent: str) -> None:
        auction = self.look(name)
        done = self.do(self.bidding.leave(name, agent))
        if auction.is_over or (self.look(name).is_over and done == "not_live"):
            assert done == "not_live"
        elif agent not in auction.bids or agent in auction.left:
            assert done == "unknown_agent"
        elif auction.has_begun:
            auction.left[agent] = done
        else:
            del auction.bids[agent]  # it may join again; what was held stays held until the end

    @rule(name=auctions)
    def begin(self, name: str) -> None:
        live = self.house.live.get(name)
        if live is not None and live.phase is Phase.JOINING:
            live.no_more_joins.set()
            self.do(live.started.wait())

    @rule(name=auctions, is_meant=few)
    def cancel(self, name: str, is_meant: bool) -> None:
        if not is_meant:
            return
        was_over = self.look(name).is_over
        done = self.do(self.house.cancel(name))
        assert done is None or (done == "not_live" and (was_over or self.look(name).is_over))

    @rule(num_steps=st.integers(1, 3))
    def step(self, num_steps: int) -> None:
        self.model.allow(num_steps)
        self.loop.run_until_complete(asyncio.sleep(0.002))

    @rule(is_meant=few)
    def fall(self, is_meant: bool) -> None:
        if is_meant:
            self.crash()

    @rule(name=auctions, bid=micros)
    def fall_behind_a_bid(self, name: str, bid: int) -> None:
        """The server falls when a bid is durable that no step has read; it counts, though nobody was told."""
        auction = self.look(name)
        if auction.is_over or not auction.has_begun or "agent0" not in auction.bids or "agent0" in auction.left:
            return

        async def bid_and_wait() -> None:
            bidding = asyncio.create_task(self.bidding.bid(name, "agent0", bid))
            while (await self.ledger.bids(name)).get("agent0") != bid and not bidding.done():
                await asyncio.sleep(0.001)
            await self.shut()
            await asyncio.wait([bidding])
            assert bidding.exception() is None or isinstance(bidding.exception(), TokenAuctionError)

        self.loop.run_until_complete(bid_and_wait())
        auction.bids["agent0"].append((MAX_TOKENS, bid))
        self.loop.run_until_complete(self.stepping(self.start()))

    def crash(self) -> None:
        """The server ends without any of what it does at its end; the next one takes up what is on the ledger."""
        self.loop.run_until_complete(self.shut())
        self.loop.run_until_complete(self.stepping(self.start()))

    async def shut(self) -> None:
        stopping = asyncio.create_task(self.house.stop())
        await asyncio.sleep(0)  # it has been told to stop behind the step that is under way
        self.model.free()
        await stopping
        await self.ledger.close()

    # --- What must hold -------------------------------------------------------------------------------------------

    @invariant()
    def accounts_sum_to_zero(self) -> None:
        if hasattr(self, "ledger"):
            assert sum(self.loop.run_until_complete(self.ledger.balances()).values()) == 0

    def teardown(self) -> None:
        if not hasattr(self, "house"):
            return
        try:
            self.model.free()
            self.loop.run_until_complete(self.house.drain(30))
            assert not self.loop.run_until_complete(self.ledger.audit())
            for name, auction in self.modelled.items():
                self.loop.run_until_complete(self.check(name, auction))
        finally:
            self.loop.run_until_complete(self.shut())
            self.loop.close()
            self.folder.cleanup()

    async def check(self, name: str, auction: Modelled) -> None:
        """The receipt holds, says what was bid, and the ledger took what it says."""
        events = [event async for event in self.ledger.events(name, -1)]
        settled = events[-1]
        lines = [event["line"] for event in events if "line" in event]
        record = await self.ledger.auction(name)
        assert record is not None and record.state == ("settled" if settled["posted"] else "void")
        if not lines:
            assert not settled["posted"]
            return
        assert verify(lines).holds
        rows = lines[0]["rows"]
        assert set(rows) - {"reference"} == set(auction.bids)
        for line in lines[1:-1]:
            for row, agent in enumerate(rows[:-1]):
                has_left = auction.left.get(agent, MAX_TOKENS + 1) <= line["step"]
                assert (line["status"][row] == "absent") == has_left
                assert line["bids"][row] == auction.bid_at(agent, line["step"])
        for row, agent in enumerate(rows[:-1]):
            assert lines[-1]["totals_micros"][row] <= auction.budgets[agent]


HouseMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestHouse = pytest.mark.slow(HouseMachine.TestCase)
