"""Any sequence of calls, repeated, refused and across restarts: the ledger is what a few dictionaries say it is."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from tests.server.places import needs_postgres
from tests.server.postgres import shared_postgres

from tokenauction.server.ledger import Created, Ledger, LedgerError, Replayed

AGENTS = ("palm", "reef")
BRIEF = {"name": "Palm"}
agents = st.sampled_from(AGENTS)
amounts = st.integers(0, 40)
few = st.sampled_from(("one", "two", "three"))


@dataclass
class Modelled:
    """An auction, as the model knows it."""

    held: dict[str, int]
    request: dict[str, int]
    state: str = "open"
    events: list[dict[str, Any]] = field(default_factory=list)
    epoch: int = 1
    owed: dict[str, int] = field(default_factory=dict)
    bids: dict[str, int] = field(default_factory=dict)
    joins: list[tuple[str, dict[str, str] | None]] = field(default_factory=list)
    bid_ids: dict[tuple[str, str], int] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)


class LedgerMachine(RuleBasedStateMachine):
    """Every rule does the same to the ledger and to the dictionaries, and compares what both say."""

    auctions = Bundle("auctions")

    @initialize()
    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.url = self.new_url()
        self.ledger = self.loop.run_until_complete(Ledger.open(self.url))
        self.funds = dict.fromkeys(AGENTS, 0)
        self.revenue = 0
        self.references: dict[str, tuple[str, int]] = {}
        self.keys: dict[str, str] = {}
        self.modelled: dict[str, Modelled] = {}

    def new_url(self) -> str:
        """Where there is no ledger yet."""
        return f"sqlite:///{Path(self.folder.name) / 'ledger.db'}"

    def do(self, awaitable: Any) -> Any:
        """The result, or the code of what was refused."""

        async def outcome() -> Any:
            try:
                return await awaitable
            except LedgerError as error:
                return error.code

        return self.loop.run_until_complete(outcome())

    # --- Rules ----------------------------------------------------------------------------------------------------

    @rule(agent=agents, micros=st.integers(1, 200), reference=few)
    def deposit(self, agent: str, micros: int, reference: str) -> None:
        before = self.references.get(reference)
        done = self.do(self.ledger.deposit(agent, micros, reference))
        if before is None:
            assert done is True
            self.references[reference] = (agent, micros)
            self.funds[agent] += micros
        else:
            assert done == (False if before == (agent, micros) else "idempotency_conflict")

    @rule(agent=agents, micros=st.integers(1, 200))
    def deposit_more(self, agent: str, micros: int) -> None:
        reference = f"wire {len(self.references)}"
        self.references[reference] = (agent, micros)
        assert self.do(self.ledger.deposit(agent, micros, reference)) is True
        self.funds[agent] += micros

    @rule(target=auctions, holds=st.dictionaries(agents, amounts), key=st.none() | few)
    def create(self, holds: dict[str, int], key: str | None) -> Any:
        name = f"auction {len(self.modelled)}"
        made = self.do(
            self.ledger.create_auction(name, {"holds": holds}, holds, key, repr(sorted(holds.items())), "sealed")
        )
        if key in self.keys:
            first = self.keys[key]
            same = self.modelled[first].request == holds
            assert made == (Replayed(first) if same else "idempotency_conflict")
            return multiple()
        if any(micros > self.funds[agent] for agent, micros in holds.items()):
            assert made == "insufficient_funds"
            return multiple()
        assert made == Created(name)
        self.modelled[name] = Modelled(dict(holds), dict(holds))
        if key is not None:
            self.keys[key] = name
        for agent, micros in holds.items():
            self.funds[agent] -= micros
        return name

    @rule(name=auctions, agent=agents, micros=amounts)
    def join(self, name: str, agent: str, micros: int) -> None:
        auction, more = self.modelled[name], max(micros - self.modelled[name].held.get(agent, 0), 0)
        done = self.do(self.ledger.join(name, agent, micros, 5, BRIEF))
        if auction.state != "open":
            assert done == "not_open"
        elif more > self.funds[agent]:
            assert done == "insufficient_funds"
        else:
            assert done is None
            self.funds[agent] -= more
            auction.held[agent] = auction.held.get(agent, 0) + more
            auction.bids[agent] = 5
            auction.joins.append((agent, BRIEF))

    @rule(name=auctions, agent=agents)
    def leave(self, name: str, agent: str) -> None:
        auction = self.modelled[name]
        assert self.do(self.ledger.leave(name, agent)) == (None if auction.state == "open" else "not_open")
        if auction.state == "open":
            auction.joins.append((agent, None))

    @rule(name=auctions, agent=agents, micros=amounts, bid_id=st.none() | few)
    def bid(self, name: str, agent: str, micros: int, bid_id: str | None) -> None:
        auction = self.modelled[name]
        before = None if bid_id is None else auction.bid_ids.get((agent, bid_id))
        if before is not None:
            expected: Any = False if before == micros else "idempotency_conflict"
        elif auction.state != "open":
            expected = "not_open"
        else:
            expected = True if agent in auction.held else "no_hold"
        assert self.do(self.ledger.accept_bid(name, agent, micros, bid_id)) == expected
        if expected is True:
            auction.bids[agent] = micros
            if bid_id is not None:
                auction.bid_ids[agent, bid_id] = micros

    @rule(name=auctions, steps=st.lists(st.dictionaries(agents, st.integers(0, 6)), min_size=1, max_size=5))
    def append(self, name: str, steps: list[dict[str, int]]) -> None:
        """Some tokens at once: they share a commit, and one that is refused takes those behind it with it."""
        auction = self.modelled[name]
        first = len(auction.events)
        events = [{"type": "auction.token", "n": first + n} for n in range(len(steps))]
        rows = zip(events, steps, strict=True)

        async def tell() -> list[Any]:
            told = [self.ledger.append(name, auction.epoch, event["n"], event, step) for event, step in rows]
            outcomes = await asyncio.gather(*told, return_exceptions=True)
            return [outcome.code if isinstance(outcome, LedgerError) else outcome for outcome in outcomes]

        is_broken = False
        for event, step, outcome in zip(events, steps, self.do(tell()), strict=True):
            owed = {agent: auction.owed.get(agent, 0) + micros for agent, micros in step.items() if micros}
            if auction.state != "open":
                assert outcome == "not_open"
            elif is_broken:
                assert outcome == "out_of_order"
            elif any(micros > auction.held.get(agent, 0) for agent, micros in owed.items()):
                assert outcome == "hold_exceeded"
                is_broken = True
            else:
                assert outcome == event["n"]
                auction.events.append(event)
                auction.owed.update(owed)

    @rule(name=auctions, is_right=st.sampled_from((True, True, False)))
    def settle(self, name: str, is_right: bool) -> None:
        auction = self.modelled[name]
        totals = auction.owed if is_right else {**auction.owed, "palm": auction.owed.get("palm", 0) + 1}
        done = self.do(self.ledger.settle(name, totals, "head"))
        if auction.state == "settled":
            assert done == (None if is_right else "settlement_conflict")
        elif auction.state == "void":
            assert done == "not_open"
        elif not is_right:
            assert done == "totals_differ"
        else:
            assert done is None
            self.end(auction, "settled", auction.owed)

    @rule(name=auctions)
    def void(self, name: str) -> None:
        auction = self.modelled[name]
        done = self.do(self.ledger.void(name, "cancelled"))
        assert done == ("not_open" if auction.state == "settled" else None)
        if auction.state == "open":
            self.end(auction, "void", {})

    def end(self, auction: Modelled, state: str, totals: dict[str, int]) -> None:
        auction.state, auction.totals = state, dict(totals)
        self.revenue += sum(totals.values())
        for agent, micros in auction.held.items():
            self.funds[agent] += micros - totals.get(agent, 0)

    @rule()
    def reopen(self) -> None:
        """As after a restart; what is open goes on in a new epoch."""
        self.do(self.ledger.close())
        self.ledger = self.do(Ledger.open(self.url))
        open_now = [record.auction_id for record in self.do(self.ledger.open_auctions())]
        assert open_now == [name for name, auction in self.modelled.items() if auction.state == "open"]
        for name in open_now:
            self.modelled[name].epoch += 1

    # --- What always holds ----------------------------------------------------------------------------------------

    @invariant()
    def balances_are_those_of_the_model(self) -> None:
        balances = self.do(self.ledger.balances())
        assert sum(balances.values()) == 0
        assert {agent: balances.get(agent, 0) for agent in AGENTS} == self.funds
        assert balances["@house"] == self.revenue
        held = sum(sum(auction.held.values()) for auction in self.modelled.values() if auction.state == "open")
        assert balances["@held"] == held

    @invariant()
    def nothing_is_out_of_order(self) -> None:
        assert self.do(self.ledger.audit()) == []

    @rule(name=auctions)
    def read(self, name: str) -> None:
        async def everything() -> tuple[Any, ...]:
            ledger = self.ledger
            events = [event async for event in ledger.events(name)]
            books = (await ledger.bids(name), await ledger.holds(name), await ledger.joins(name))
            return events, *books, await ledger.auction(name)

        auction = self.modelled[name]
        events, bids, held, joins, record = self.do(everything())
        assert (events, bids, held, record.state) == (auction.events, auction.bids, auction.held, auction.state)
        assert joins == auction.joins

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.do(self.ledger.close())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            self.folder.cleanup()


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLedgerMachine = pytest.mark.slow(TestLedgerMachine)


class PostgresMachine(LedgerMachine):
    """The same on PostgreSQL."""

    def new_url(self) -> str:
        return shared_postgres().url(self.loop.run_until_complete(shared_postgres().new_database()))


TestPostgresMachine = PostgresMachine.TestCase
TestPostgresMachine.settings = settings(
    max_examples=5, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestPostgresMachine = needs_postgres(pytest.mark.slow(TestPostgresMachine))
