"""Bids by way of a real broker: who may, what they are answered, and that nothing else gets through."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from tests.server.broker import LONGEST_SECONDS, Broker, broker_in, needs_mosquitto
from tests.server.toy_server import ToyServer, collect, spec_of

from tokenauction.server.mqtt import Mqtt, MqttSettings
from tokenauction.server.mqtt_link import AT_ONCE
from tokenauction.server.mqtt_topics import Address

Start = Callable[..., Any]
JOIN_MS = 60_000
pytestmark = [pytest.mark.slow, needs_mosquitto]


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with broker_in(tmp_path / "broker") as running:
        yield running


class Peer:
    """A program that is not ours: it publishes, and reads what it is answered."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self.client = client
        self._messages = client.messages

    async def ask(
        self,
        agent: str,
        message: dict[str, Any] | bytes,
        token: str | None = None,
        *,
        to: str | None = None,
        correlation: bytes | None = b"c",
    ) -> dict[str, Any]:
        """The answer to one message."""
        answer = await self._ask(agent, message, token, to, correlation)
        assert getattr(answer.properties, "CorrelationData", None) == correlation
        assert isinstance(answer.payload, bytes)
        return dict(json.loads(answer.payload))

    async def _ask(self, agent: str, message: Any, token: Any, to: Any, correlation: Any) -> aiomqtt.Message:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if token is not None:
            properties.UserProperty = [("authorization", f"Bearer {token}")]
        if to is not None:
            properties.ResponseTopic = to
        if correlation is not None:
            properties.CorrelationData = correlation
        payload = message if isinstance(message, bytes) else json.dumps(message).encode()
        await self.client.publish(f"tokenauction/v1/agents/{agent}/bids", payload, qos=1, properties=properties)
        async with asyncio.timeout(LONGEST_SECONDS):
            return await anext(self._messages)  # type: ignore[call-overload, no-any-return]


@asynccontextmanager
async def peer_of(broker: Broker, *topics: str) -> AsyncIterator[Peer]:
    """A peer that reads everybody's replies, or other topics."""
    v5 = aiomqtt.ProtocolVersion.V5
    async with aiomqtt.Client("127.0.0.1", broker.port, protocol=v5, socket_options=[AT_ONCE]) as client:
        for topic in topics or ("tokenauction/v1/agents/+/replies/#",):
            await client.subscribe(topic, qos=1)
        yield Peer(client)


@asynccontextmanager
async def bid_server(start: Start, broker: Broker, *, trusts: bool = False, **options: Any) -> AsyncIterator[ToyServer]:
    """A server that takes bids from a broker, which it has reached."""
    desks: list[Mqtt] = []

    def companions(app: Any) -> list[Mqtt]:
        desks.append(Mqtt(app.context, MqttSettings(Address.parse(broker.url), trusts_broker=trusts)))
        return desks

    async with start(companions=companions, **options) as server:
        async with asyncio.timeout(LONGEST_SECONDS):
            while not desks[0].is_listening:
                await asyncio.sleep(0.01)
        yield server


async def joinable(server: ToyServer, token: str | None = None) -> str:
    client = server.client(token)
    auction_id: str = (await client.begin(spec_of("0.002", "0.001", tmax_join_ms=JOIN_MS)))["auction_id"]
    return auction_id


def join(auction_id: str, agent: str = "agent2") -> dict[str, Any]:
    brief = {"name": "Two", "offer": "offer"}
    common = {"type": "agent.join", "auction_id": auction_id, "agent_id": agent}
    return {**common, "bid_micros": 3_000, "budget_micros": 90_000, "brief": brief}


def bid(auction_id: str, agent: str = "agent2", micros: int = 5_000, **fields: Any) -> dict[str, Any]:
    return {"type": "bid.update", "auction_id": auction_id, "agent_id": agent, "bid_micros": micros, **fields}


async def test_agent_joins_bids_and_leaves_by_way_of_the_broker(start: Start, broker: Broker) -> None:
    async with bid_server(start, broker) as server, peer_of(broker) as peer:
        token = (await server.ledger.create_token(["bid"], "agent2"))[1]
        auction_id = await joinable(server)
        assert (await peer.ask("agent2", join(auction_id), token))["type"] == "agent.joined"
        assert server.house.live[auction_id].agents["agent2"].bid_micros == 3_000
        again = await peer.ask("agent2", join(auction_id), token)  # as one that was away
        assert again["type"] == "agent.joined"
        accepted = await peer.ask("agent2", bid(auction_id, bid_id="b", request_id="r"), token)
        assert (accepted["type"], accepted["bid_micros"], accepted["request_id"]) == ("bid.accepted", 5_000, "r")
        assert (await server.ledger.bids(auction_id))["agent2"] == 5_000
        leave = {"type": "agent.leave", "auction_id": auction_id, "agent_id": "agent2"}
        assert (await peer.ask("agent2", leave, token))["bid_micros"] == 0
        assert "agent2" not in server.house.live[auction_id].agents
        server.house.live[auction_id].no_more_joins.set()
        end = (await collect(server.client().watch(auction_id)))[-1]
        assert end["finish_reason"] == "max_tokens"


@pytest.mark.parametrize("below", ["", "/mine", "/a/b"])
async def test_answer_goes_where_it_is_wanted(start: Start, broker: Broker, below: str) -> None:
    where = f"tokenauction/v1/agents/agent2/replies{below}"
    async with bid_server(start, broker, trusts=True) as server, peer_of(broker, where) as peer:
        auction_id = await joinable(server)
        answer = await peer.ask("agent2", join(auction_id), to=where, correlation=b"\x00\xff")
        assert answer["type"] == "agent.joined"


@pytest.mark.parametrize(
    "topic",
    [
        "tokenauction/v1/auctions/auc_1/events/auction.settled",
        "tokenauction/v1/server/state",
        "tokenauction/v1/agents/agent1/replies",
        "tokenauction/v1/agents/agent2/bids",
        "tokenauction/v1/agents/agent2/payments",
        "tokenauction/v1/agents/agent2/repliesx",
        "elsewhere",
    ],
)
async def test_server_is_not_made_to_speak_on_other_topics(start: Start, broker: Broker, topic: str) -> None:
    async with bid_server(start, broker, trusts=True) as server, peer_of(broker) as peer:
        auction_id = await joinable(server)
        refused = await peer.ask("agent2", join(auction_id), to=topic)  # answered on its own replies
        assert refused["code"] == "invalid_field" and "agent2" not in server.house.live[auction_id].agents


async def test_who_may_bid_for_whom(start: Start, broker: Broker) -> None:
    async with bid_server(start, broker, is_open=False) as server, peer_of(broker) as peer:
        tokens: dict[str, str] = {}
        for name, scopes, agent in [
            ("admin", ["admin"], None), ("any", ["bid"], None), ("agent2", ["bid"], "agent2"),
            ("agent3", ["bid"], "agent3"), ("watch", ["watch"], None), ("chat", ["chat"], None),
        ]:  # fmt: skip
            tokens[name] = (await server.ledger.create_token(scopes, agent))[1]
        auction_id = await joinable(server, tokens["admin"])
        refusals = {None: "unauthorized", "ta_wrong": "unauthorized", tokens["agent3"]: "not_your_agent"}
        refusals |= {tokens["watch"]: "forbidden", tokens["chat"]: "forbidden"}
        for token, code in refusals.items():
            assert (await peer.ask("agent2", join(auction_id), token))["code"] == code
        assert "agent2" not in server.house.live[auction_id].agents
        for name in ("agent2", "any", "admin"):
            assert (await peer.ask("agent2", join(auction_id), tokens[name]))["type"] == "agent.joined"
        other = await peer.ask("agent2", bid(auction_id, "agent1"), tokens["admin"])  # another one's by this topic
        assert other["code"] == "not_your_agent"


async def test_open_server_does_not_take_a_bid_from_a_broker_without_a_token(start: Start, broker: Broker) -> None:
    async with bid_server(start, broker) as server, peer_of(broker) as peer:
        auction_id = await joinable(server)
        assert (await peer.ask("agent2", join(auction_id)))["code"] == "unauthorized"


async def test_trusted_broker_says_who_may_by_its_own_rules(start: Start, tmp_path: Path) -> None:
    (tmp_path / "acl").write_text(
        "topic readwrite tokenauction/v1/auctions/#\ntopic readwrite tokenauction/v1/server/#\n"
        "topic tokenauction/v1/agents/agent2/#\ntopic read tokenauction/v1/agents/+/bids\n"
        "topic tokenauction/v1/agents/+/replies/#\n"
    )
    lines = ("allow_anonymous true", f"acl_file {tmp_path / 'acl'}")
    async with (
        broker_in(tmp_path / "broker", *lines) as broker,
        bid_server(start, broker, trusts=True) as server,
        peer_of(broker) as peer,
    ):
        auction_id = await joinable(server)
        others = json.dumps(join(auction_id, "agent3"))
        await peer.client.publish("tokenauction/v1/agents/agent3/bids", others, qos=1)
        assert (await peer.ask("agent2", join(auction_id)))["type"] == "agent.joined"
        assert set(server.house.live[auction_id].agents) == {"agent0", "agent1", "agent2"}


HOSTILE: list[tuple[dict[str, Any] | bytes, str]] = [
    (b"", "invalid_json"),
    (b"\xff\xfe", "invalid_utf8"),
    (b"{", "invalid_json"),
    (b"[]", "not_an_object"),
    (b"[" * 5_000, "too_deep"),
    (b'{"type": "bid.update", "type": "ping"}', "duplicate_field"),
    (b'{"type": "bid.update", "bid_micros": 1e999}', "invalid_number"),
    (b'{"type": "bid.update", "bid_micros": ' + b"9" * 500 + b"}", "number_too_long"),
    (b"x" * 70_000, "message_too_large"),
    ({"type": "bid.updat"}, "unknown_type"),
    ({"type": "bid.update"}, "missing_field"),
    (bid("AUCTION", micros=-1), "invalid_field"),
    (bid("AUCTION", micros=10**16), "invalid_field"),
    (bid("AUCTION", authorization="Bearer x"), "unknown_field"),
    (bid("auc_none"), "not_live"),
    (bid("AUCTION"), "unknown_agent"),
    (bid("AUCTION", "agent0"), "not_your_agent"),
    ({"type": "agent.join", "auction_id": "AUCTION", "agent_id": "agent2", "bid_micros": 1}, "brief_missing"),
    ({"type": "auction.cancel", "auction_id": "AUCTION"}, "forbidden"),
    ({"type": "auction.create", "spec": {}}, "forbidden"),
    ({"type": "subscribe", "auction_id": "AUCTION"}, "forbidden"),
]


async def test_hostile_messages_are_answered_and_change_nothing(start: Start, broker: Broker) -> None:
    async with bid_server(start, broker, clock=iter(range(10**6)).__next__) as server, peer_of(broker) as peer:
        token = (await server.ledger.create_token(["admin"]))[1]
        auction_id = await joinable(server)

        async def state() -> Any:
            live = server.house.live[auction_id]
            return (await server.ledger.bids(auction_id), await server.ledger.balances(), live.phase, dict(live.agents))

        before = await state()
        failures = []
        for sent, code in HOSTILE:
            message = sent if isinstance(sent, bytes) else json.dumps(sent).replace("AUCTION", auction_id).encode()
            answer = await peer.ask("agent2", message, token)
            if answer.get("code") != code or await state() != before:
                failures.append((sent, code, answer))
        assert not failures
        for agent in ("x" * 500, "%2F", "%00", "reference"):
            answer = await peer.ask(agent, bid(auction_id, "agent2"), token)
            assert answer["type"] in ("error", "bid.rejected") and await state() == before
        assert (await peer.ask("agent2", join(auction_id), token))["type"] == "agent.joined"  # and it lives


@pytest.mark.parametrize("topic", ["agent%32", "agen%74%32", "%61gent2", "agent2%"])
async def test_id_written_otherwise_is_nobodys(start: Start, broker: Broker, topic: str) -> None:
    async with bid_server(start, broker, trusts=True) as server, peer_of(broker) as peer:
        auction_id = await joinable(server)
        assert (await peer.ask(topic, join(auction_id)))["code"] == "invalid_field"
        assert set(server.house.live[auction_id].agents) == {"agent0", "agent1"}


async def test_too_many_messages_are_told_when_the_next_is_read(start: Start, broker: Broker) -> None:
    async with bid_server(start, broker, trusts=True) as server, peer_of(broker) as peer:
        auction_id = await joinable(server)
        codes = [(await peer.ask("agent2", bid(auction_id))).get("code") for _ in range(105)]
        assert codes[-1] == "rate_limited"
        other = await peer.ask("agent3", bid(auction_id, "agent3"))
        assert other["code"] == "unknown_agent"  # another agent has its own rate


async def test_retained_bid_is_not_taken_again_and_again(start: Start, broker: Broker) -> None:
    async with peer_of(broker) as peer:
        await peer.client.publish("tokenauction/v1/agents/agent2/bids", json.dumps(bid("auc_x")), qos=1, retain=True)
        async with bid_server(start, broker, trusts=True) as server:
            auction_id = await joinable(server)
            answer = await peer.ask("agent2", bid(auction_id), correlation=b"mine")
            assert answer["auction_id"] == auction_id
