"""What a server that starts makes of what the ledger holds open: joinings, beginnings, what is unreadable."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.server.toy_server import FUNDS, ToyServer, collect, in_stream, spec_of

from tokenauction.server.ledger import Ledger
from tokenauction.server.refusal import Refused

Start = Callable[..., Any]
BRIEF = {"name": "Late", "offer": "offer"}


async def stop_as_if_killed(server: ToyServer) -> None:
    """End a server without any of what it does at its end."""
    server.house.failure.set_exception(ConnectionAbortedError("killed"))
    await asyncio.wait([server.serving])


async def begun(server: ToyServer, **changes: Any) -> str:
    """An auction that agents may join for long."""
    spec = {**spec_of(max_tokens=9), "tmax_join_ms": 60_000, **changes}
    return (await server.house.create(spec, "me")).auction_id


async def finished(server: ToyServer, auction_id: str) -> list[dict[str, Any]]:
    server.house.live[auction_id].no_more_joins.set()
    return in_stream(await collect(server.client().watch(auction_id)))


async def test_agents_that_had_joined_are_in_the_text_after_a_crash(start: Start) -> None:
    with pytest.raises(ConnectionAbortedError):
        async with start() as server:
            auction_id = await begun(server)
            bidding = server.app.context.bidding
            await bidding.join(auction_id, "agent1", 1_000, 5_000, BRIEF)
            await bidding.join(auction_id, "agent2", 2_000, None, BRIEF)
            await bidding.bid(auction_id, "agent1", 3_000)
            await bidding.join(auction_id, "agent3", 1_000, None, BRIEF)
            await bidding.leave(auction_id, "agent3")
            await stop_as_if_killed(server)
    async with start() as server:
        bidding = server.app.context.bidding
        account = await server.ledger.account("agent1")
        assert account is not None and account.held_micros == 5_000
        await bidding.join(auction_id, "agent1", 4_000, None, None)  # its client comes back
        await bidding.join(auction_id, "agent4", 500, None, BRIEF)
        account = await server.ledger.account("agent1")
        assert account is not None and (account.held_micros, account.balance_micros) == (5_000, FUNDS - 5_000)
        events = await finished(server, auction_id)
        assert not await server.ledger.audit()
    assert events[0]["type"] == "auction.created" and events[0]["rows"] == ["agent1", "agent2", "agent4"]
    assert [agent["id"] for agent in events[0]["disclosure"]["by"]] == ["agent1", "agent2", "agent4"]
    assert [agent["bid_micros"] for agent in events[1]["agents"]] == [4_000, 2_000, 500]
    assert events[-1]["posted"]


async def test_listed_agent_that_left_before_the_crash_is_not_in_the_text(start: Start) -> None:
    with pytest.raises(ConnectionAbortedError):
        async with start() as server:
            auction_id = await begun(server, **{"agents": spec_of("0.002", "0.001")["agents"]})
            await server.app.context.bidding.leave(auction_id, "agent0")
            await stop_as_if_killed(server)
    async with start() as server:
        events = await finished(server, auction_id)
    assert events[0]["rows"] == ["agent1"]


async def test_time_to_join_that_is_over_is_not_given_again(start: Start) -> None:
    now = [1_000.0]
    with pytest.raises(ConnectionAbortedError):
        async with start(clock=lambda: now[0]) as server:
            auction_id = await begun(server)
            await server.app.context.bidding.join(auction_id, "agent1", 1_000, None, BRIEF)
            await stop_as_if_killed(server)
    now[0] += 61
    async with start(clock=lambda: now[0]) as server:
        events = in_stream(await collect(server.client().watch(auction_id)))
    assert events[0]["rows"] == ["agent1"] and events[-1]["posted"]


async def test_joining_that_was_refused_is_not_in_the_text_after_a_crash(start: Start) -> None:
    async with start() as server:
        auction_id = await begun(server, **{"agents": spec_of("0.002")["agents"]})
        live, bidding = server.house.live[auction_id], server.app.context.bidding
        joining = asyncio.create_task(bidding.join(auction_id, "agent5", 1_000, None, BRIEF))
        await asyncio.sleep(0)
        live.no_more_joins.set()
        with pytest.raises(Refused) as refused:
            await joining
        assert refused.value.code == "joining_closed"
        events = in_stream(await collect(server.client().watch(auction_id)))
        assert [agent_id for agent_id, document in await server.ledger.joins(auction_id) if document is None] == [
            "agent5"
        ]
        assert events[0]["rows"] == ["agent0"]
        account = await server.ledger.account("agent5")
        assert account is not None and (account.held_micros, account.balance_micros) == (0, FUNDS)


async def test_auction_that_cannot_be_read_is_void_and_its_stream_ends(start: Start, tmp_path: Path) -> None:
    ledger = await Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    await ledger.deposit("agent0", FUNDS, "funds of agent0")
    await ledger.create_auction("auc_old", {"request": {"query": "of another version"}}, {"agent0": 9}, None, "h", "c")
    await ledger.close()
    async with start() as server:
        record = await server.ledger.auction("auc_old")
        assert record is not None and record.state == "void"
        event = await server.ledger.last_event("auc_old")
        account = await server.ledger.account("agent0")
        assert not await server.ledger.audit()
    assert event is not None and (event["type"], event["seq"]) == ("auction.settled", 0)
    assert event["disclosure"]["sponsored"] and account is not None and account.held_micros == 0


async def test_nothing_of_a_text_is_seen_before_its_beginning_is_durable(start: Start) -> None:
    gate = threading.Event()
    async with start() as server:
        held: list[asyncio.Future[bool]] = []

        def hold(*_: object) -> None:  # what is written behind the creation
            if not held:
                held.append(server.ledger._submit(lambda _: gate.wait(), is_urgent=True))

        server.ledger.watch_commits(hold)
        creating = asyncio.create_task(server.house.create(spec_of("0.002", max_tokens=3), "me"))
        while not server.house.live:
            await asyncio.sleep(0)
        [live] = server.house.live.values()
        num_held, last_seq = len(held), live.channel.last_seq
        gate.set()
        events = in_stream(await collect(server.client().watch((await creating).auction_id)))
    assert (num_held, last_seq) == (1, -1), "else a watcher would know more than a server that was killed just then"
    assert [event["seq"] for event in events] == list(range(5)) and events[0]["durable_seq"] == 0
