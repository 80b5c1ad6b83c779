"""The agent at a broker: it joins, bids behind what it reads, comes back with the broker, and is refused by name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.server.broker import LONGEST_SECONDS, Broker, broker_in, free_port, needs_mosquitto
from tests.server.toy_server import ToyServer, spec_of, toy_server

from tokenauction.clients.bidder import Outcome
from tokenauction.clients.client import ServerError, Unreachable
from tokenauction.clients.mqtt_agent import MqttAgent
from tokenauction.clients.strategies import BudgetPaced, Fixed, Sight
from tokenauction.server.mqtt import Mqtt, MqttSettings
from tokenauction.server.mqtt_topics import Address

pytestmark = [pytest.mark.slow, needs_mosquitto]
BRIEF = {"name": "Two", "offer": "offer"}


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with broker_in(tmp_path / "broker") as running:
        yield running


@asynccontextmanager
async def bid_server(folder: Path, broker: Broker, *, trusts: bool = True, **options: Any) -> AsyncIterator[ToyServer]:
    settings = MqttSettings(Address.parse(broker.url), trusts_broker=trusts, tells_payments=True, reconnect_rest=1.5)
    made: list[Mqtt] = []

    def companions(app: Any) -> list[Mqtt]:
        made.append(Mqtt(app.context, settings))
        return made

    async with toy_server(folder, companions=companions, **options) as server:
        async with asyncio.timeout(LONGEST_SECONDS):
            while not made[0].is_listening:
                await asyncio.sleep(0.01)
        yield server


async def joinable(server: ToyServer, **changes: Any) -> str:
    spec = spec_of("0.002", "0.001", tmax_join_ms=60_000, **changes)
    auction_id: str = (await server.client().begin(spec))["auction_id"]
    return auction_id


async def when_joined(server: ToyServer, auction_id: str, agent_id: str) -> None:
    """Begin the text when the agent takes part."""
    async with asyncio.timeout(LONGEST_SECONDS):
        while agent_id not in server.house.live[auction_id].agents:
            await asyncio.sleep(0.01)
    server.house.live[auction_id].no_more_joins.set()


async def run(agent: MqttAgent, auction_id: str) -> Outcome:
    async with asyncio.timeout(LONGEST_SECONDS):
        return await agent.run(auction_id)


class Rising:
    """Bids more behind every token, and keeps what it saw."""

    def __init__(self) -> None:
        self.sights: list[Sight] = []

    def bid(self, sight: Sight) -> int:
        self.sights.append(sight)
        return 1_000 + 100 * sight.num_tokens


async def test_agent_takes_part_by_way_of_a_broker(tmp_path: Path, broker: Broker) -> None:
    async with bid_server(tmp_path, broker, delay=0.02) as server:
        auction_id = await joinable(server)
        strategy = Rising()
        agent = MqttAgent(Address.parse(broker.url), "agent2", strategy, budget_micros=90_000, **BRIEF)
        running = asyncio.create_task(run(agent, auction_id))
        await when_joined(server, auction_id, "agent2")
        outcome = await running
        last = await server.ledger.last_event(auction_id)
        assert last is not None
        paid = {each["id"]: each["total_micros"] for each in last["agents"]}
        assert (outcome.text, outcome.finish_reason) == (last["text"], "max_tokens")
        assert outcome.paid_micros == paid["agent2"]
        assert [bid for _, bid in outcome.bids] == sorted(bid for _, bid in outcome.bids) and outcome.bids
        assert strategy.sights[-1].spent_micros >= paid["agent2"]  # at its own bids, the most that it can be
        assert strategy.sights[-1].text == "".join(last["text"])


async def test_agent_with_a_token_is_known_by_it_and_others_are_refused(tmp_path: Path, broker: Broker) -> None:
    async with bid_server(tmp_path, broker, trusts=False) as server:
        auction_id = await joinable(server)
        address = Address.parse(broker.url)
        for token, code in [(None, "unauthorized"), ("ta_wrong", "unauthorized")]:
            with pytest.raises(ServerError) as caught:
                await run(MqttAgent(address, "agent2", Fixed(5), token=token, **BRIEF), auction_id)
            assert caught.value.code == code
        secret = (await server.ledger.create_token(["bid"], "agent2"))[1]
        running = asyncio.create_task(run(MqttAgent(address, "agent2", Fixed(5), token=secret, **BRIEF), auction_id))
        await when_joined(server, auction_id, "agent2")
        assert (await running).text


async def test_agent_comes_back_with_the_broker(tmp_path: Path, broker: Broker) -> None:
    async with bid_server(tmp_path, broker, is_paced=True) as server:
        auction_id = await joinable(server, max_tokens=20)
        agent = MqttAgent(Address.parse(broker.url), "agent2", Fixed(2_000), budget_micros=90_000, **BRIEF)
        running = asyncio.create_task(run(agent, auction_id))
        await when_joined(server, auction_id, "agent2")
        server.model.allow(6)
        async with asyncio.timeout(LONGEST_SECONDS):
            while agent.sight.num_tokens < 4:
                await asyncio.sleep(0.01)
        await broker.kill()
        await broker.start()
        server.model.free()
        outcome = await running
        last = await server.ledger.last_event(auction_id)
        assert last is not None and outcome.text == last["text"]


async def test_agent_of_an_auction_that_is_over_is_told_so(tmp_path: Path, broker: Broker) -> None:
    async with bid_server(tmp_path, broker):
        agent = MqttAgent(Address.parse(broker.url), "agent2", Fixed(5), **BRIEF)
        with pytest.raises(ServerError) as caught:
            await run(agent, "auc_none")
        assert caught.value.code == "not_live"


async def test_paced_agent_never_bids_beyond_its_budget(tmp_path: Path, broker: Broker) -> None:
    async with bid_server(tmp_path, broker, delay=0.01) as server:
        auction_id = await joinable(server)
        strategy = BudgetPaced(10_000)
        agent = MqttAgent(Address.parse(broker.url), "agent2", strategy, budget_micros=12_000, **BRIEF)
        running = asyncio.create_task(run(agent, auction_id))
        await when_joined(server, auction_id, "agent2")
        assert (await running).paid_micros <= 12_000


async def test_agent_gives_up_where_there_is_no_broker() -> None:
    agent = MqttAgent(Address.parse(f"mqtt://127.0.0.1:{free_port()}"), "agent2", Fixed(5), give_up=0.3, **BRIEF)
    with pytest.raises(Unreachable):
        await run(agent, "auc_x")
