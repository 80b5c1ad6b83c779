"""A connection over many auctions: whose numbers it sees, what is forgotten at their end, bids that come twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.server.test_app_stream import ask, until
from tests.server.toy_server import ToyServer, collect, in_stream, spec_of, step_until

from tokenauction.clients.client import ServerError
from tokenauction.server.ledger import LedgerError
from tokenauction.server.legality import MAX_AGENTS
from tokenauction.server.wire import AgentJoin, BidUpdate, Brief, Ping, Subscribe, encode

Start = Callable[..., Any]
BRIEF = Brief("Name", "offer")


@pytest.mark.slow
async def test_bidder_that_watches_nothing_may_bid_in_any_number_of_auctions(server: ToyServer) -> None:
    async with server.client().connection() as socket:
        for number in range(MAX_AGENTS + 3):
            auction_id = (await server.client().begin({**spec_of(max_tokens=1), "tmax_join_ms": 60_000}))["auction_id"]
            join = AgentJoin(auction_id=auction_id, agent_id="agent0", bid_micros=5, brief=BRIEF)
            await socket.send(encode(join).decode())
            answer = await until(socket, lambda event: event["type"] in ("agent.joined", "error"))
            assert answer["type"] == "agent.joined", f"auction {number}: {answer}"
            server.house.live[auction_id].no_more_joins.set()
            await collect(server.client().watch(auction_id))
        [connection] = (known for known in server.app.connections if known.own.by_auction)
        assert not connection.session._states and len(connection.own.by_auction) == MAX_AGENTS


async def test_bidder_still_sees_itself_in_an_auction_that_is_over(start: Start) -> None:
    async with start(is_open=False) as server:
        admin = server.client((await server.ledger.create_token(["admin"]))[1])
        bidder = server.client((await server.ledger.create_token(["bid"]))[1])  # it may act for any agent
        auction_id = (await admin.begin({**spec_of(max_tokens=9), "tmax_join_ms": 60_000}))["auction_id"]
        async with bidder.connection() as socket:
            join = AgentJoin(auction_id=auction_id, agent_id="agent0", bid_micros=500, brief=BRIEF)
            await ask(socket, join, "agent.joined")
            server.house.live[auction_id].no_more_joins.set()
            await collect(admin.watch(auction_id))
            await socket.send(encode(Subscribe(auction_id=auction_id)).decode())
            posted = await until(socket, lambda event: event["type"] in ("payment.posted", "auction.settled"))
        assert (posted["type"], posted["agent_id"]) == ("payment.posted", "agent0")
        later = await collect(bidder.watch(auction_id, agent_id="agent0"))
        assert [event["agent_id"] for event in later if event["type"] == "payment.posted"] == ["agent0"]
        assert not [event for event in await collect(bidder.watch(auction_id)) if event["type"] == "payment.posted"]


async def test_nobody_looks_as_an_agent_that_its_token_does_not_act_for(start: Start) -> None:
    async with start(is_open=False) as server:
        admin = server.client((await server.ledger.create_token(["admin"]))[1])
        auction_id = (await admin.begin(spec_of("0.002", "0.001")))["auction_id"]
        for scopes, agent_id in ((["bid"], "agent1"), (["watch"], None)):
            client = server.client((await server.ledger.create_token(scopes, agent_id))[1])
            with pytest.raises(ServerError) as caught:
                await collect(client.watch(auction_id, agent_id="agent0"))
            assert caught.value.code == "not_your_agent"


async def test_bid_that_comes_again_changes_nothing_and_is_answered_as_it_was(start: Start) -> None:
    async with start(is_paced=True) as server:
        auction_id = (await server.client().begin(spec_of("0.001", "0.001", max_tokens=40)))["auction_id"]
        auction = server.house.live[auction_id].performance.auction
        async with server.client().connection() as socket:
            first = BidUpdate(auction_id=auction_id, agent_id="agent0", bid_micros=2_000, bid_id="b1")
            other = BidUpdate(auction_id=auction_id, agent_id="agent0", bid_micros=3_000, bid_id="b2")
            answers = []
            for update in (first, other, first):
                server.model.allow(3)
                answers.append(await step_until(server.model, ask(socket, update, "bid.accepted")))
            changed = BidUpdate(auction_id=auction_id, agent_id="agent0", bid_micros=9, bid_id="b1")
            refused = await step_until(server.model, ask(socket, changed, "bid.rejected"))
        steps = [answer["effective_from_step"] for answer in answers]
        assert steps[0] == steps[2] < steps[1] and refused["code"] == "idempotency_conflict"
        told = [{k: v for k, v in answer.items() if k not in ("event_id", "time")} for answer in answers]
        assert told[0] == told[2]
        assert auction.read_bids().submitted[0] == 3_000


async def test_bid_that_comes_twice_at_once_is_one_bid(start: Start) -> None:
    async with start(is_paced=True) as server:
        auction_id = (await server.client().begin(spec_of("0.001", "0.001", max_tokens=40)))["auction_id"]
        bidding = server.app.context.bidding
        both = asyncio.gather(*(bidding.bid(auction_id, "agent0", 5_000, "b") for _ in range(2)))
        steps = await step_until(server.model, _wait(both))
        assert steps[0] == steps[1]
        with pytest.raises(LedgerError, match="another amount"):
            await bidding.bid(auction_id, "agent0", 6_000, "b")


async def _wait(future: asyncio.Future[Any]) -> Any:
    return await future


@pytest.mark.parametrize("ending", ["nobody", "cancel", "crash", "text"])
async def test_first_and_last_event_say_who_paid_however_the_auction_ends(start: Start, ending: str) -> None:
    listed = {"agents": spec_of("0.002")["agents"]} if ending != "nobody" else {}
    join_ms = 1 if ending == "nobody" else 0 if ending == "text" else 60_000
    spec = {**spec_of(max_tokens=5), **listed, "tmax_join_ms": join_ms}
    try:
        async with start() as server:
            auction_id = (await server.client().begin(spec))["auction_id"]
            if ending == "cancel":
                await server.client().cancel(auction_id)
            if ending == "crash":
                server.house.failure.set_exception(ConnectionAbortedError("killed"))
                await asyncio.wait([server.serving])
    except ConnectionAbortedError:
        pass
    async with start() as server:
        if ending == "crash":
            server.house.live[auction_id].no_more_joins.set()
        events = in_stream(await collect(server.client().watch(auction_id)))
    by = [] if ending == "nobody" else [{"id": "agent0", "name": "Name0"}]
    assert events[0]["seq"] == 0 and events[0]["disclosure"] == events[-1]["disclosure"] == {
        "sponsored": True,
        "by": by,
    }


async def test_pushed_and_pulled_events_come_in_order_between_answers(start: Start) -> None:
    async with start() as server:
        spec = {**spec_of("0.002", max_tokens=400), "tmax_join_ms": 60_000}
        auction_id = (await server.client().begin(spec))["auction_id"]
        async with server.client().connection() as socket:
            await socket.send(encode(Subscribe(auction_id=auction_id)).decode())
            await ask(socket, Ping(id="ready"), "pong")
            server.house.live[auction_id].no_more_joins.set()
            seqs: list[int] = []
            num_pongs = 0
            while not seqs or seqs[-1] < 401:
                if num_pongs < 60 and len(seqs) % 5 == 0:
                    await socket.send(encode(Ping(id="p")).decode())
                event = json.loads(await socket.recv())
                num_pongs += event["type"] == "pong"
                seqs += [event["seq"]] if "seq" in event else []
        assert seqs == list(range(402)) and num_pongs > 10
