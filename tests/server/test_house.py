"""The house without a socket: the order of bids, budgets and holds, failures, what a model that changed means."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection
from sqlalchemy.event import listens_for
from tests.server.toy_server import FUNDS, SYMBOLS, PacedModel, ToyServer, collect, in_stream, spec_of, step_until

from tokenauction.clients.client import ServerError
from tokenauction.engine.errors import InvalidSpec
from tokenauction.engine.report import Report
from tokenauction.engine.verification import verify
from tokenauction.server.auction_request import AuctionRequest
from tokenauction.server.hub import MAX_LAG, WINDOW, Channel, Reader, Viewpoint
from tokenauction.server.ledger import LedgerError
from tokenauction.server.live_auction import Phase
from tokenauction.server.refusal import Refused

Start = Callable[..., Any]


def event_of(seq: int) -> dict[str, Any]:
    return {"type": "auction.token", "event_id": f"evt_{seq}", "auction_id": "a", "seq": seq, "time": 0.0, "text": "x"}


def reader_of(channel: Channel, after_seq: int = -1) -> Reader:
    reader = Reader(channel, Viewpoint("admin"), after_seq, lambda: None)
    channel.readers.add(reader)
    return reader


def test_reader_takes_every_event_once_in_order() -> None:
    channel, taken = Channel("a"), []
    reader = reader_of(channel)
    for seq in range(10):
        channel.publish(event_of(seq))
        taken += reader.take(3) or [] if seq % 4 == 3 else []
    while texts := reader.take(3):
        taken += texts
    assert [text.count(f'"evt_{seq}"') for seq, text in enumerate(taken)] == [1] * 10


def test_reader_overflows_only_after_it_has_caught_up() -> None:
    channel = Channel("a")
    for seq in range(MAX_LAG + 10):
        channel.publish(event_of(seq))
    late, live = reader_of(channel), reader_of(channel, channel.last_seq)
    live.take(1)
    for seq in range(MAX_LAG + 10, 2 * MAX_LAG + 20):
        channel.publish(event_of(seq))
    assert live.has_overflowed and not late.has_overflowed


def test_reader_behind_the_window_is_sent_to_the_ledger() -> None:
    channel = Channel("a")
    for seq in range(WINDOW + 5):
        channel.publish(event_of(seq))
    assert reader_of(channel, 3).take(1) is None
    assert reader_of(channel, 4).take(1) is not None


def test_event_is_encoded_once_for_each_viewpoint() -> None:
    channel = Channel("a")
    channel.publish(event_of(0))
    published = channel.window[0]
    assert published.text(Viewpoint("public")) is published.text(Viewpoint("public"))
    assert published.text(Viewpoint("bidder", "a")) is not published.text(Viewpoint("bidder", "b"))


def test_agent_without_a_budget_has_declared_its_bid_for_every_token() -> None:
    request = AuctionRequest.from_mapping(spec_of("0.002", max_tokens=50))
    assert request.holds == {"agent0": 100_000}
    assert AuctionRequest.from_mapping(request.to_mapping()) == request


def test_last_event_is_framed_behind_the_bill_of_whoever_reads_it() -> None:
    channel = Channel("a")
    agents = [{"id": name, "total_micros": 5, "total": "0.000005"} for name in ("alpha", "beta")]
    settled = {"type": "auction.settled", "posted": True, "currency": "USD", "receipt_head": "h", "agents": agents}
    channel.publish({**event_of(0), **settled})
    published = channel.window[0]
    frame = published.frame(Viewpoint("bidder", "alpha"))
    assert frame.index(b"payment.posted") < frame.index(b"auction.settled") and b"beta" not in frame
    assert b"payment.posted" not in published.frame(Viewpoint("public"))
    assert published.frame(Viewpoint("admin")).count(b"payment.posted") == 2
    assert published.bill(Viewpoint("admin")) is published.bill(Viewpoint("admin"))


def test_reader_is_pushed_what_is_next_and_woken_for_anything_else() -> None:
    channel, pushed, woken = Channel("a"), [], []

    def push(reader: Reader, published: Any) -> bool:
        pushed.append(published.seq)
        return published.seq != 2

    reader = Reader(channel, Viewpoint("admin"), -1, lambda: woken.append(channel.last_seq), push)
    channel.readers.add(reader)
    channel.publish(event_of(0))  # it has not caught up yet
    assert (pushed, woken) == ([], [0]) and len(reader.take(9) or []) == 1
    for seq in (1, 2, 3):
        channel.publish(event_of(seq))
    assert (pushed, woken, reader.after_seq) == ([1, 2], [0, 2, 3], 1)
    assert len(reader.take(9) or []) == 2
    channel.publish(event_of(4))
    assert pushed == [1, 2, 4] and reader.after_seq == 4


async def test_last_of_two_bids_counts_whatever_their_commits_do(start: Start) -> None:
    async with start(is_paced=True) as server:
        auction_id = (await server.client().begin(spec_of("0.002", "0.002", max_tokens=30)))["auction_id"]
        bidding = server.app.context.bidding
        both = asyncio.gather(*(bidding.bid(auction_id, "agent0", micros) for micros in (5_000, 7_000)))

        async def done() -> list[int]:
            return await both

        steps = await step_until(server.model, done())
        server.model.free()
        tokens = [e for e in await collect(server.client().watch(auction_id)) if e["type"] == "auction.token"]
    assert {event["agents"][0]["bid_micros"] for event in tokens[max(steps) :]} == {7_000}


async def test_hold_is_taken_at_creation_and_given_back_with_the_settlement(start: Start) -> None:
    async with start(is_paced=True) as server:
        auction_id = (await server.client().begin(spec_of("0.002", max_tokens=20)))["auction_id"]
        account = await server.ledger.account("agent0")
        assert account is not None and (account.balance_micros, account.held_micros) == (FUNDS - 40_000, 40_000)
        server.model.free()
        events = await collect(server.client().watch(auction_id))
        account = await server.ledger.account("agent0")
        assert account is not None and account.held_micros == 0
        assert account.balance_micros == FUNDS - events[-1]["agents"][0]["total_micros"]


async def test_slow_auction_is_written_at_its_pace_and_a_drain_hurries_it(start: Start) -> None:
    async with start() as server:
        quick = await collect(server.client().create(spec_of("0.002", "0.001", token_ms=1)))
        slow = (await server.client().begin(spec_of("0.002", "0.001", token_ms=10_000)))["auction_id"]
        first = await collect(server.client().watch(slow), lambda event: event["type"] == "auction.token")
        effective = await server.app.context.bidding.bid(slow, "agent0", 9_000)
        live = server.house.live[slow]
    assert live.text == quick[-1]["text"][:1] + live.text[1:] and live.num_tokens == quick[-1]["num_tokens"]
    assert first[-1]["text"] == live.text[:1] and effective == 1


@pytest.mark.parametrize("token_ms", [-1, 10_001, 1.5, True, "9"])
def test_pace_that_cannot_be_is_refused(token_ms: Any) -> None:
    with pytest.raises(InvalidSpec, match="token_ms"):
        AuctionRequest.from_mapping(spec_of("0.002", token_ms=token_ms))


async def test_capacity_is_a_refusal_with_the_limit(start: Start) -> None:
    async with start(is_paced=True, max_auctions=1) as server:
        await server.house.create(spec_of("0.002"), "me")
        with pytest.raises(Refused, match="1 auctions are running"):
            await server.house.create(spec_of("0.002"), "me")


async def test_joining_late_is_refused_and_joining_twice_is_a_bid(server: ToyServer) -> None:
    bidding, house = server.app.context.bidding, server.house
    brief = {"name": "Late", "offer": "offer"}
    accepted = await house.create({**spec_of(max_tokens=9), "tmax_join_ms": 60_000}, "me")
    assert await bidding.join(accepted.auction_id, "agent1", 1_000, None, brief) == 0
    assert await bidding.join(accepted.auction_id, "agent1", 2_000, None, None) == 0
    live = house.live[accepted.auction_id]
    live.no_more_joins.set()
    events = in_stream(await collect(server.client().watch(accepted.auction_id)))
    assert events[1]["agents"][0]["bid_micros"] == 2_000
    with pytest.raises(Refused) as refused:
        await bidding.join(accepted.auction_id, "agent2", 1_000, None, brief)
    assert refused.value.code == "not_live"


class BrokenModel(PacedModel):
    """Fails at a step."""

    def step(self, gangs: Any, tokens: Any) -> Any:
        if gangs and gangs[0].num_tokens == 4:
            raise RuntimeError("the device is gone")
        return super().step(gangs, tokens)


async def test_model_that_breaks_ends_the_server_and_its_auction_goes_on_afterwards(start: Start) -> None:
    with pytest.raises(RuntimeError, match="the device is gone"):
        async with start(model=BrokenModel) as server:
            auction_id = (await server.client().begin(spec_of("0.002", max_tokens=20)))["auction_id"]
            await asyncio.wait([server.serving])
    async with start() as server:
        events = in_stream(await collect(server.client().watch(auction_id)))
        lines = await server.receipt(auction_id)
        assert not await server.ledger.audit()
    assert verify(lines).holds and events[-1]["num_tokens"] == 20
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events].count("stream.reset") == 1


async def test_other_model_settles_on_what_is_durable(start: Start) -> None:
    with pytest.raises(RuntimeError):
        async with start(model=BrokenModel) as server:
            auction_id = (await server.client().begin(spec_of("0.002", "0.002", max_tokens=20)))["auction_id"]
            await asyncio.wait([server.serving])
    async with start(world=4) as server:
        events = in_stream(await collect(server.client().watch(auction_id)))
        lines = await server.receipt(auction_id)
        assert not await server.ledger.audit()
    assert verify(lines).holds
    assert [event["code"] for event in events if event["type"] == "error"] == ["not_resumed"]
    assert events[-1]["finish_reason"] == "cancelled" and 0 < events[-1]["num_tokens"] < 20


async def test_ledger_that_cannot_be_written_ends_the_server_though_no_auction_runs(start: Start) -> None:
    with pytest.raises(LedgerError, match="no space left"):
        async with start() as server:

            @listens_for(server.ledger._database.writer, "commit")
            def fail(_: Connection) -> None:
                raise OSError("no space left on device")

            with pytest.raises(ServerError) as refused:
                await server.client().begin(spec_of("0.002"))
            assert refused.value.code == "failed"
            await asyncio.wait([server.serving])


async def test_replay_tells_no_end_that_is_durable_before_its_money_is_posted(server: ToyServer) -> None:
    events = await collect(server.client().create(spec_of("0.002", max_tokens=3)))
    settled = events[-1]
    channel = Channel(settled["auction_id"], settled["seq"] - 1)
    reader = reader_of(channel)
    texts = await server.app.context.catalogue.replay(reader, 100)
    assert len(texts) == settled["seq"] and reader.after_seq == channel.last_seq
    channel.last_seq += 1
    assert len(await server.app.context.catalogue.replay(reader, 100)) == 2  # with its payment.posted


class Silent:
    """A connection of an agent with a model of its own, which says nothing by itself."""

    def __init__(self) -> None:
        self.was_asked = asyncio.Event()

    def open_step(self, *_: object, **__: object) -> None:
        self.was_asked.set()

    def close_step(self, *_: object) -> None:
        return None


async def test_distribution_that_comes_while_a_cancelled_auction_settles_is_not_committed(start: Start) -> None:
    spec = spec_of("0.002", "0.001", tmax_join_ms=20_000, tmax_token_ms=10_000, commit_reveal=True)
    spec["agents"][1]["own_model"] = True
    report = Report(np.full(len(SYMBOLS) + 1, -np.log(len(SYMBOLS) + 1), np.float32))
    async with start() as server:
        auction_id, gate, agent = (await server.house.create(spec, "me")).auction_id, threading.Event(), Silent()
        live, desk = server.house.live[auction_id], server.house.desk
        desk.attach(auction_id, "agent1", agent)
        live.no_more_joins.set()
        await agent.was_asked.wait()
        held = server.ledger._submit(lambda _: gate.wait(), is_urgent=True)  # the settlement waits behind it
        await server.house.cancel(auction_id)
        while live.phase is not Phase.SETTLING:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)  # the last event has its number
        desk.submit(auction_id, "agent1", 0, server.model.tokenizer.hash, report)
        await asyncio.sleep(0)
        gate.set()
        await held
        events = in_stream(await collect(server.client().watch(auction_id)))
        assert [event["type"] for event in events] == ["auction.created", "auction.settled"]
        assert not server.house.failure.done()
