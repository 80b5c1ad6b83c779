"""The mirror on a real mosquitto, seen by mosquitto_sub: the ledger's events, whatever happens to the broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.server.broker import LONGEST_SECONDS, Broker, Witness, broker_in, free_port, needs_mosquitto, witness_of
from tests.server.toy_server import ToyServer, collect, spec_of

from tokenauction.server.mqtt import Mqtt, MqttSettings
from tokenauction.server.mqtt_topics import Address

Start = Callable[..., Any]
EVERYTHING = "tokenauction/v1/auctions/+/events/#"
pytestmark = [pytest.mark.slow, needs_mosquitto]


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with broker_in(tmp_path / "broker") as running:
        yield running


@asynccontextmanager
async def mirrored(start: Start, url: str, **options: Any) -> AsyncIterator[ToyServer]:
    """A server that tells a broker, and an owner who chose some of the settings."""
    mine = {
        name: options.pop(name) for name in ("trusts_broker", "tells_payments", "reconnect_rest") if name in options
    }
    settings = replace(MqttSettings(Address.parse(url)), **mine)
    async with start(companions=lambda app: [Mqtt(app.context, settings)], **options) as server:
        yield server


def events_topic(auction_id: str) -> str:
    return f"tokenauction/v1/auctions/{auction_id}/events/#"


async def on_ledger(server: ToyServer, auction_id: str) -> list[tuple[int, str, str]]:
    """Seq, type and id of every event."""
    return [(event["seq"], event["type"], event["event_id"]) async for event in server.ledger.events(auction_id)]


def told(witness: Witness) -> list[tuple[int, str, str]]:
    """The same of what mosquitto_sub has printed; the topic says the type."""
    for topic, event in witness.seen:
        assert topic.endswith(f"/events/{event['type']}")
    return [(event["seq"], event["type"], event["event_id"]) for _, event in witness.seen]


def has_settled(witness: Witness) -> bool:
    return bool(witness.seen) and witness.seen[-1][1]["type"] == "auction.settled"


async def test_witness_receives_the_ledgers_events_in_order(start: Start, broker: Broker) -> None:
    async with mirrored(start, broker.url) as server:
        accepted = await server.client().begin(spec_of("0.002", "0.001", tmax_join_ms=60_000))
        auction_id = accepted["auction_id"]
        async with witness_of(broker, events_topic(auction_id)) as witness:
            server.house.live[auction_id].no_more_joins.set()
            seen = await witness.until(has_settled)
            assert told(witness) == await on_ledger(server, auction_id)
        numbers = server.house.telemetry.metrics.registry
        assert numbers.get_sample_value("tokenauction_mqtt_connected") == 1
    assert numbers.get_sample_value("tokenauction_mqtt_connected") == 0
    assert numbers.get_sample_value("tokenauction_mqtt_events_total") == len(seen)  # all are acknowledged by now
    public = [event async for event in _public(seen)]
    assert not any(agent for event in public for agent in event.get("agents", ()))
    assert not any("line" in event or "seed" in event for event in public)
    assert public[-1]["disclosure"]["sponsored"] and public[-1]["text"]


async def _public(seen: list[tuple[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    for _, event in seen:
        yield event


async def test_broker_killed_and_restarted_in_the_middle_loses_nothing(start: Start, broker: Broker) -> None:
    everything = witness_of(broker, EVERYTHING)
    async with mirrored(start, broker.url, is_paced=True) as server, everything as witness:
        auction_id = (await server.client().begin(spec_of("0.002", "0.001", max_tokens=20)))["auction_id"]
        server.model.allow(6)
        await witness.until(lambda seen: len(seen.seen) >= 5)
        await acknowledged(server)  # else the one under way may come twice
        await broker.kill()
        server.model.allow(6)
        await tokens_on_ledger(server, auction_id, 10)  # nobody waits for the broker
        await broker.start()
        await witness.until(lambda seen: seen.num_subscribed == 2)
        server.model.free()
        await witness.until(has_settled)
        assert told(witness) == await on_ledger(server, auction_id)


async def acknowledged(server: ToyServer) -> None:
    """Return when the broker has acknowledged everything that is on the ledger."""
    async with asyncio.timeout(LONGEST_SECONDS):
        while await server.ledger.outbox("mqtt").unsent(1):
            await asyncio.sleep(0.02)


async def tokens_on_ledger(server: ToyServer, auction_id: str, enough: int) -> None:
    """Return when so many events are durable."""
    async with asyncio.timeout(LONGEST_SECONDS):
        while len(await on_ledger(server, auction_id)) < enough:
            await asyncio.sleep(0.02)


async def test_whole_auction_without_a_broker_is_told_when_there_is_one(start: Start, tmp_path: Path) -> None:
    port = free_port()
    broker = Broker(tmp_path / "broker", port)
    broker.folder.mkdir()
    async with mirrored(start, broker.url, reconnect_rest=1.5) as server:
        events = await collect(server.client().create(spec_of("0.002", "0.001")))  # as fast as ever
        auction_id = events[0]["auction_id"]
        await broker.start()
        try:
            async with witness_of(broker, events_topic(auction_id)) as witness:
                await witness.until(has_settled)
                assert told(witness) == await on_ledger(server, auction_id)
        finally:
            await broker.kill()


async def test_server_that_starts_again_goes_on_where_it_was(start: Start, tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker", free_port())
    broker.folder.mkdir()
    async with mirrored(start, broker.url) as server:
        auction_id = (await collect(server.client().create(spec_of("0.002", "0.001"))))[0]["auction_id"]
        expected = await on_ledger(server, auction_id)
    await broker.start()
    try:
        async with witness_of(broker, EVERYTHING) as witness:
            async with mirrored(start, broker.url):
                await witness.until(has_settled)
            async with mirrored(start, broker.url) as server:  # and tells nothing twice
                other = (await collect(server.client().create(spec_of("0.002"))))[0]["auction_id"]
                await witness.until(lambda seen: has_settled(seen) and seen.seen[-1][1]["auction_id"] == other)
                assert told(witness) == [*expected, *await on_ledger(server, other)]
    finally:
        await broker.kill()


@pytest.mark.parametrize("num_kills", [2])
async def test_kills_under_load_lose_nothing_and_keep_the_order(start: Start, broker: Broker, num_kills: int) -> None:
    lasting = ("-c", "-i", "witness", "-x", "3600")  # the broker keeps what comes while it is away
    everything = witness_of(broker, EVERYTHING, *lasting)
    async with mirrored(start, broker.url, delay=0.004, reconnect_rest=1.5) as server, everything as witness:
        ids = [(await server.client().begin(spec_of("0.002", max_tokens=250)))["auction_id"] for _ in range(3)]
        for number in range(num_kills):
            before = len(witness.seen)
            await witness.until(lambda seen, before=before: len(seen.seen) > before + 50)  # type: ignore[misc]
            await broker.kill()
            await broker.start()
            await witness.until(lambda seen, number=number: seen.num_subscribed >= number + 2)  # type: ignore[misc]
        await witness.until(lambda seen: {last(seen, auction_id) for auction_id in ids} == {"auction.settled"})
        for auction_id in ids:
            events = zip(told(witness), witness.seen, strict=True)
            own = [place for place, (_, event) in events if event["auction_id"] == auction_id]
            once = [place for n, place in enumerate(own) if place not in own[:n]]
            assert once == await on_ledger(server, auction_id)


def last(witness: Witness, auction_id: str) -> str:
    own = [event["type"] for _, event in witness.seen if event["auction_id"] == auction_id]
    return own[-1] if own else ""


async def test_state_is_retained_and_says_where_an_auction_stands(start: Start, broker: Broker) -> None:
    async with mirrored(start, broker.url) as server:
        spec = spec_of("0.002", "0.001", tmax_join_ms=60_000)
        auction_id = (await server.client().begin(spec))["auction_id"]
        topic = f"tokenauction/v1/auctions/{auction_id}/state"
        async with witness_of(broker, topic) as witness:
            assert (await witness.until(lambda seen: bool(seen.seen)))[0][1]["state"] == "joining"
            server.house.live[auction_id].no_more_joins.set()
            await witness.until(lambda seen: seen.seen[-1][1]["state"] == "settled")
        async with witness_of(broker, topic) as late:
            state = (await late.until(lambda seen: bool(seen.seen)))[0][1]
            assert (state["state"], state["num_tokens"], state["last_seq"]) == ("settled", 12, 13)


async def test_server_is_online_then_offline_and_the_will_says_so_for_it(start: Start, broker: Broker) -> None:
    async with witness_of(broker, "tokenauction/v1/server/state") as witness:
        async with mirrored(start, broker.url):
            await witness.until(lambda seen: [event["state"] for _, event in seen.seen] == ["online"])
        await witness.until(lambda seen: [event["state"] for _, event in seen.seen] == ["online", "offline"])


async def test_payments_are_told_to_each_agent_where_the_owner_wants_it(start: Start, broker: Broker) -> None:
    payments = witness_of(broker, "tokenauction/v1/agents/+/payments")
    async with mirrored(start, broker.url, tells_payments=True) as server, payments as witness:
        end = (await collect(server.client().create(spec_of("0.002", "0.001"))))[-1]
        await witness.until(lambda seen: len(seen.seen) == 2)
        paid = {topic.split("/")[3]: event["total_micros"] for topic, event in witness.seen}
        assert paid == {agent["id"]: agent["total_micros"] for agent in end["agents"]}


async def test_stopping_server_tells_the_rest_first(start: Start, broker: Broker) -> None:
    async with witness_of(broker, EVERYTHING) as witness:
        async with mirrored(start, broker.url, is_paced=True) as server:
            auction_id = (await server.client().begin(spec_of("0.002")))["auction_id"]
            server.stopping.set()
            server.model.free()
        await witness.until(has_settled)
        assert witness.seen[-1][1]["auction_id"] == auction_id
