"""Strategies by hand-made sights; an agent against a real server; how long a client waits between tries."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.server.toy_server import collect, spec_of, toy_server

from tokenauction.clients.agent import Agent
from tokenauction.clients.client import LONGEST_DELAY, Client, Delays, Event, ServerError, Unreachable
from tokenauction.clients.strategies import BudgetPaced, Decreasing, Fixed, NameContest, NameFirst, Sight, Strategy


@pytest.mark.parametrize(
    ("strategy", "sight", "bid"),
    [
        (Fixed(5), Sight(num_tokens=9), 5),
        (Decreasing(1_000, 0.5), Sight(num_tokens=0), 1_000),
        (Decreasing(1_000, 0.5), Sight(num_tokens=3), 125),
        (Decreasing(1_000, 0.5, 300), Sight(num_tokens=3), 300),
        (BudgetPaced(1_000), Sight(budget_micros=None), 1_000),
        (BudgetPaced(1_000), Sight(budget_micros=1_000, spent_micros=400, num_tokens=4, max_tokens=10), 100),
        (BudgetPaced(1_000), Sight(budget_micros=1_000, spent_micros=1_200, num_tokens=4, max_tokens=10), 0),
        (BudgetPaced(10), Sight(budget_micros=1_000, num_tokens=4, max_tokens=10), 10),
        (NameFirst("Alpha", 9, 1), Sight(text="Fly with"), 9),
        (NameFirst("Alpha", 9, 1), Sight(text="Fly with ALPHA"), 1),
        (NameContest("Alpha", ["Beta"], 10), Sight(text=""), 10),
        (NameContest("Alpha", ["Beta"], 10), Sight(text="Beta is"), 20),
        (NameContest("Alpha", ["Beta", "Gamma"], 10, max_micros=30), Sight(text="Beta, Gamma"), 30),
        (NameContest("Alpha", ["Beta"], 10), Sight(text="Beta and Alpha"), 10),
    ],
)
def test_strategy_bids(strategy: Strategy, sight: Sight, bid: int) -> None:
    assert strategy.bid(sight) == bid


class Alternating:
    """Another bid for every token."""

    def bid(self, sight: Sight) -> int:
        return 1_000 + sight.num_tokens


class Listening(Agent):
    """Keeps what it is told."""

    def on_event(self, event: Event) -> None:
        self.heard = [*getattr(self, "heard", []), event]


async def test_agent_joins_bids_by_its_strategy_and_learns_what_it_paid(tmp_path: Path) -> None:
    async with toy_server(tmp_path, delay=0.005) as server:
        client = server.client()
        auction_id = (await client.begin(spec_of("0.002", "0.002", max_tokens=60)))["auction_id"]
        agent = Listening(client, "agent1", Alternating())
        outcome = await agent.run(auction_id)
        events = await collect(client.watch(auction_id))
    assert (outcome.text, outcome.finish_reason) == (events[-1]["text"], "max_tokens")
    assert outcome.paid_micros == events[-1]["agents"][1]["total_micros"]
    assert (outcome.outcome, outcome.loss_reason) == ("won", None) and outcome.num_tokens_won > 0
    assert outcome.bids and not set(outcome.refusals) - {"not_live", "rate_limited"}
    tokens = [event for event in events if event["type"] == "auction.token"]
    steps = [step for step, _ in outcome.bids]
    assert steps == sorted(steps)
    for number, (step, bid) in enumerate(outcome.bids):
        is_last_of_step = number + 1 == len(steps) or steps[number + 1] > step
        if step < 60 and is_last_of_step:
            assert tokens[step]["agents"][1]["bid_micros"] == bid
    assert any(event["type"] == "auction.created" for event in agent.heard)


async def test_agent_whose_connection_breaks_comes_back(tmp_path: Path) -> None:
    async with toy_server(tmp_path, delay=0.005) as server:
        client = server.client()
        auction_id = (await client.begin(spec_of("0.002", "0.002", max_tokens=100)))["auction_id"]
        agent = Listening(client, "agent1", Fixed(3_000))
        running = asyncio.create_task(agent.run(auction_id))
        await collect(client.watch(auction_id), lambda event: event.get("step") == 30)
        for connection in list(server.app.connections):
            connection.abort()
        outcome = await running
        assert outcome.finish_reason == "max_tokens" and outcome.text == agent.sight.text
    seqs = [event["seq"] for event in agent.heard if "seq" in event]
    assert seqs == list(range(102))


async def test_agent_that_is_not_wanted_says_why(tmp_path: Path) -> None:
    async with toy_server(tmp_path, is_paced=True) as server:
        client = server.client()
        auction_id = (await client.begin(spec_of("0.002")))["auction_id"]
        with pytest.raises(ServerError) as refused:
            await Agent(client, "stranger", Fixed(1)).run(auction_id)
    assert refused.value.code == "joining_closed"


async def test_client_gives_up_where_nobody_listens() -> None:
    with pytest.raises(Unreachable):
        await Client("http://127.0.0.1:9", give_up=0.0).begin(spec_of("0.002"))


async def test_delays_double_up_to_a_limit_and_begin_anew_behind_a_success(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("tokenauction.clients.client.asyncio.sleep", wait)
    monkeypatch.setattr("tokenauction.clients.client.random.uniform", lambda low, high: high)
    delays = Delays(60.0)
    for _ in range(8):
        await delays.wait(OSError())
    delays.restart()
    await delays.wait(OSError())
    assert waited == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, LONGEST_DELAY, LONGEST_DELAY, 0.1]
