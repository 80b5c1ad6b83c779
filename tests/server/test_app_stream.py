"""Streams through a real socket: live and replayed, bids in mid-text, money that agrees everywhere."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from tests.server.toy_server import ToyServer, collect, in_stream, spec_of, step_until
from websockets.asyncio.client import ClientConnection

from tokenauction.clients.client import ServerError
from tokenauction.engine.verification import verify
from tokenauction.server.wire import AgentJoin, BidUpdate, Brief, Ping, Subscribe, Unsubscribe, encode

Start = Callable[..., Any]


async def ask(socket: ClientConnection, message: Any, answer: str) -> dict[str, Any]:
    """Send a message and wait for the answer of this type."""
    await socket.send(encode(message).decode())
    return await until(socket, lambda event: event["type"] == answer)


async def until(socket: ClientConnection, accepts: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            event: dict[str, Any] = json.loads(await socket.recv())
            if accepts(event):
                return event


async def test_watching_gives_every_event_once_and_replaying_gives_the_same(server: ToyServer) -> None:
    client = server.client()
    live = await collect(client.create(spec_of("0.002", "0.001", max_tokens=40)))
    auction_id = live[0]["auction_id"]
    assert [event["seq"] for event in in_stream(live)] == list(range(42))
    replayed = await collect(client.watch(auction_id))
    for first, again in zip(in_stream(live), in_stream(replayed), strict=True):
        assert {**first, "durable_seq": 0} == {**again, "durable_seq": 0}
    assert "".join(event.get("text", "") for event in replayed if event["type"] == "auction.token") == live[-1]["text"]


@pytest.mark.parametrize("after", [0, 5, 11, 12])
async def test_watching_behind_a_seq_gives_what_follows_it(server: ToyServer, after: int) -> None:
    client = server.client()
    auction_id = (await client.begin(spec_of("0.002", max_tokens=12)))["auction_id"]
    await collect(client.watch(auction_id))
    events = in_stream(await collect(client.watch(auction_id, after)))
    assert [event["seq"] for event in events] == list(range(after + 1, 14))


async def test_watching_behind_the_end_is_told_that_nothing_follows(server: ToyServer) -> None:
    client = server.client()
    auction_id = (await client.begin(spec_of("0.002", max_tokens=3)))["auction_id"]
    events = await collect(client.watch(auction_id))
    for position in ((events[-1]["seq"],), (events[-1]["seq"], events[-1]["epoch"])):
        with pytest.raises(ServerError) as refused:
            await collect(client.watch(auction_id, *position))
        assert refused.value.code == "over"


@pytest.mark.parametrize("chance", range(3))
async def test_watcher_cut_off_twenty_times_sees_every_seq_once(start: Start, chance: int) -> None:
    cuts = sorted(random.Random(chance).sample(range(1, 200), 20))
    async with start(delay=0.001) as server:
        client = server.client()
        auction_id = (await client.begin(spec_of("0.002", "0.001", max_tokens=200)))["auction_id"]
        seen: list[int] = []
        for cut in cuts:
            async with client.connection() as socket:
                await socket.send(encode(Subscribe(auction_id=auction_id, after_seq=len(seen) - 1, epoch=1)).decode())
                while len(seen) < cut:
                    event = json.loads(await socket.recv())
                    seen += [event["seq"]] if "seq" in event else []
                socket.transport.abort()
        rest = in_stream(await collect(client.watch(auction_id, len(seen) - 1, 1)))
        last = await server.ledger.last_event(auction_id)
        assert seen + [event["seq"] for event in rest] == list(range(202))
        assert last is not None and rest[-1]["text"] == last["text"]


async def test_bid_in_mid_text_counts_from_the_step_that_its_answer_names(start: Start) -> None:
    spec = spec_of("0.001", "0.001", "0.001", max_tokens=30)
    async with start() as plain:
        unchanged = in_stream(await collect(plain.client().create(spec)))
    async with start(is_paced=True) as server:
        client = server.client()
        auction_id = (await client.begin(spec))["auction_id"]
        async with client.connection() as bidder, client.connection() as viewer:
            await viewer.send(encode(Subscribe(auction_id=auction_id)).decode())
            server.model.allow(5)
            await until(viewer, lambda event: event.get("step") == 5)
            update = BidUpdate(auction_id=auction_id, agent_id="agent0", bid_micros=2_000)
            answer = await step_until(server.model, ask(bidder, update, "bid.accepted"))
            step = answer["effective_from_step"]
            server.model.free()
            await until(viewer, lambda event: event["type"] == "auction.settled")
        changed = in_stream(await collect(client.watch(auction_id)))
    assert step > 5
    before, after = tokens(unchanged), tokens(changed)
    assert [shares(event) for event in before[:step]] == [shares(event) for event in after[:step]]
    assert [event["agents"][0]["bid_micros"] for event in after] == [1_000] * step + [2_000] * (30 - step)
    assert shares(before[step]) != shares(after[step])
    assert changed[-1]["voids"] == ["a bid changed in mid-text"]


def tokens(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == "auction.token"]


def shares(event: dict[str, Any]) -> list[float]:
    return [agent["influence"] for agent in event["agents"]]


async def test_totals_agree_to_the_micro_at_viewers_bidders_ledger_and_verification(start: Start) -> None:
    async with start() as server:
        client = server.client()
        before = await server.ledger.balances()
        auction_id = (await client.begin({**spec_of(max_tokens=60), "tmax_join_ms": 60_000}))["auction_id"]
        bidders = [
            asyncio.create_task(bid_until_paid(server, auction_id, f"agent{i}", 1_000 * (i + 1))) for i in range(3)
        ]
        viewers = [asyncio.create_task(collect(client.watch(auction_id))) for _ in range(2)]
        live = server.house.live[auction_id]
        while len(live.agents) < 3:
            await asyncio.wait(bidders, timeout=0.01)
        live.no_more_joins.set()
        paid = await asyncio.gather(*bidders)
        streams = await asyncio.gather(*viewers)
        lines = await server.receipt(auction_id)
        after = await server.ledger.balances()
        assert not await server.ledger.audit()
    verdict = verify(lines, head=streams[0][-1]["receipt_head"])
    assert verdict.holds, verdict
    totals = {agent["id"]: agent["total_micros"] for agent in streams[0][-1]["agents"]}
    assert totals == {f"agent{i}": paid[i] for i in range(3)} and sum(paid) > 0
    assert totals == {f"agent{i}": before[f"agent{i}"] - after[f"agent{i}"] for i in range(3)}
    assert list(totals.values()) == lines[-1]["totals_micros"]
    assert after["@house"] == sum(paid) and after.get("@held", 0) == 0 and sum(after.values()) == 0
    assert in_stream(streams[0]) == in_stream(streams[1])


async def bid_until_paid(server: ToyServer, auction_id: str, agent_id: str, bid_micros: int) -> int:
    """Join as a remote agent and say what its `payment.posted` says."""
    async with server.client().connection() as socket:
        brief = Brief(agent_id, "an offer")
        join = AgentJoin(auction_id=auction_id, agent_id=agent_id, bid_micros=bid_micros, brief=brief)
        await ask(socket, join, "agent.joined")
        await socket.send(encode(Subscribe(auction_id=auction_id)).decode())
        posted = await until(socket, lambda event: event["type"] == "payment.posted")
        assert posted["agent_id"] == agent_id
        total: int = posted["total_micros"]
        return total


async def test_auction_that_nobody_joins_is_void_and_says_so(server: ToyServer) -> None:
    events = await collect(server.client().create({**spec_of(max_tokens=9), "tmax_join_ms": 1}))
    assert [event["type"] for event in events] == ["auction.accepted", "error", "auction.settled"]
    assert events[-1]["posted"] is False and events[1]["disclosure"] == {"sponsored": True, "by": []}
    record = await server.ledger.auction(events[0]["auction_id"])
    assert record is not None and record.state == "void"


async def test_creation_that_comes_twice_makes_one_auction(server: ToyServer) -> None:
    client = server.client()
    first = await client.begin(spec_of("0.002"), "key")
    again = await client.begin(spec_of("0.002"), "key")
    assert (again["auction_id"], again["replayed"]) == (first["auction_id"], True)
    with pytest.raises(ServerError, match="came before with another request"):
        await client.begin(spec_of("0.003"), "key")


async def test_creation_without_money_is_refused(server: ToyServer) -> None:
    spec = spec_of("0.002")
    spec["agents"][0]["id"] = "nobody"
    with pytest.raises(ServerError) as refused:
        await server.client().begin(spec)
    assert refused.value.code == "insufficient_funds"


async def test_agent_never_owes_more_than_its_budget(server: ToyServer) -> None:
    spec = spec_of("0.002", "0.002", max_tokens=200)
    spec["agents"][0]["budget"] = "0.0005"
    events = await collect(server.client().create(spec))
    assert events[-1]["agents"][0]["total_micros"] <= 500
    assert "a budget cut a bid" in events[-1]["voids"]


async def test_agent_that_leaves_pays_nothing_more(start: Start) -> None:
    async with start(is_paced=True) as server:
        client = server.client()
        auction_id = (await client.begin(spec_of("0.002", "0.002", max_tokens=40)))["auction_id"]
        server.model.allow(5)
        await collect(client.watch(auction_id), lambda event: event.get("step") == 5)
        step = await step_until(server.model, server.app.context.bidding.leave(auction_id, "agent0"))
        server.model.free()
        events = in_stream(await collect(client.watch(auction_id)))
    statuses = [event["agents"][0]["status"] for event in tokens(events)]
    assert statuses == ["bid"] * step + ["absent"] * (40 - step)
    assert [event["agent_id"] for event in events if event["type"] == "agent.left"] == ["agent0"]


async def test_cancelled_auction_charges_what_was_written(start: Start) -> None:
    async with start(is_paced=True) as server:
        client = server.client()
        auction_id = (await client.begin(spec_of("0.002", "0.002", max_tokens=40)))["auction_id"]
        server.model.allow(5)
        await collect(client.watch(auction_id), lambda event: event.get("step") == 5)
        cancelling = asyncio.create_task(client.cancel(auction_id))
        server.model.free()
        await cancelling
        events = await collect(client.watch(auction_id))
        lines = await server.receipt(auction_id)
        assert not await server.ledger.audit()
    assert verify(lines).holds
    assert events[-1]["finish_reason"] in ("cancelled", "max_tokens")


async def test_unsubscribing_at_once_leaves_no_reader_behind(start: Start) -> None:
    async with start(is_paced=True) as server:
        client = server.client()
        auction_id = (await client.begin(spec_of("0.002", max_tokens=30)))["auction_id"]
        channel = server.house.live[auction_id].channel
        async with client.connection() as socket:
            for message in (Subscribe(auction_id=auction_id), Unsubscribe(auction_id=auction_id)) * 3:
                await socket.send(encode(message).decode())
            await ask(socket, Ping(id="p"), "pong")
            await ask(socket, Subscribe(auction_id=auction_id), "auction.created")
            assert len(channel.readers) == 1


async def test_bid_whose_connection_breaks_reaches_its_auction(start: Start) -> None:
    async with start(is_paced=True) as server:
        client = server.client()
        auction_id = (await client.begin(spec_of("0.001", "0.001", max_tokens=30)))["auction_id"]
        auction = server.house.live[auction_id].performance.auction
        async with client.connection() as socket:
            update = BidUpdate(auction_id=auction_id, agent_id="agent0", bid_micros=9_000)
            await socket.send(encode(update).decode())
            while not await server.ledger.bids(auction_id):
                assert not server.house.failure.done()
            socket.transport.abort()
        server.model.free()
        await collect(client.watch(auction_id))
        assert auction.read_bids().submitted[0] == 9_000
