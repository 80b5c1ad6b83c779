"""How far a mirror is: what it has still to tell, and what it is never told again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from tests.server.places import Place

from tokenauction.server.ledger import Ledger
from tokenauction.server.tables import mirror_places

HEAD = "head"


@pytest.fixture
async def ledger(place: Place) -> AsyncIterator[Ledger]:
    opened = await Ledger.open(place.url)
    yield opened
    await opened.close()


async def tell(ledger: Ledger, auction_id: str, *kinds: str) -> None:
    """Begin an auction where there is none, and append events of these types."""
    if await ledger.auction(auction_id) is None:
        await ledger.create_auction(auction_id, {}, {}, None, "hash", "commitment")
    last = await ledger.last_event(auction_id)
    seq = -1 if last is None else last["seq"]
    for number, kind in enumerate(kinds, start=seq + 1):
        await ledger.append(auction_id, 1, number, {"type": kind, "seq": number})


async def unsent(ledger: Ledger, mirror: str = "m", limit: int = 100) -> list[tuple[str, int]]:
    return [(entry.auction_id, entry.seq) for entry in await ledger.outbox(mirror).unsent(limit)]


async def test_mirror_is_told_of_every_event_once_in_order(ledger: Ledger) -> None:
    await ledger.outbox("m").begin()
    await tell(ledger, "a", "auction.created", "auction.token")
    await tell(ledger, "b", "auction.created")
    assert await unsent(ledger) == [("a", 0), ("a", 1), ("b", 0)]
    assert await unsent(ledger, limit=2) == [("a", 0), ("a", 1)]
    await ledger.outbox("m").mark({"a": 0})
    assert await unsent(ledger) == [("a", 1), ("b", 0)]
    await ledger.outbox("m").mark({"a": 1, "b": 0})
    assert await unsent(ledger) == []


async def test_settlement_is_told_when_the_money_is_posted(ledger: Ledger) -> None:
    await ledger.outbox("m").begin()
    await tell(ledger, "a", "auction.created", "auction.settled")
    assert await unsent(ledger) == [("a", 0)]
    await ledger.settle("a", {}, HEAD)
    assert await unsent(ledger) == [("a", 0), ("a", 1)]


async def test_new_mirror_begins_with_the_auctions_that_are_open(ledger: Ledger) -> None:
    await tell(ledger, "old", "auction.created", "auction.settled")
    await ledger.settle("old", {}, HEAD)
    await tell(ledger, "open", "auction.created")
    await ledger.outbox("m").begin()
    await ledger.outbox("m").begin()
    assert await unsent(ledger) == [("open", 0)]


async def test_mirrors_do_not_know_of_each_other(ledger: Ledger) -> None:
    for mirror in ("m", "other"):
        await ledger.outbox(mirror).begin()
    await tell(ledger, "a", "auction.created")
    await ledger.outbox("m").mark({"a": 0})
    assert (await unsent(ledger), await unsent(ledger, "other")) == ([], [("a", 0)])


async def test_place_survives_the_ledgers_end(place: Place) -> None:
    ledger = await Ledger.open(place.url)
    await ledger.outbox("m").begin()
    await tell(ledger, "a", "auction.created", "auction.token")
    await ledger.outbox("m").mark({"a": 0})
    await ledger.close()
    ledger = await Ledger.open(place.url)
    assert await unsent(ledger) == [("a", 1)]
    assert await ledger.audit() == []
    await ledger.close()


async def test_what_is_over_and_told_leaves_nothing_behind(ledger: Ledger) -> None:
    await ledger.outbox("m").begin()
    for auction_id in ("a", "b", "c"):
        await tell(ledger, auction_id, "auction.created", "auction.settled")
    for auction_id in ("a", "c"):
        await ledger.settle(auction_id, {}, HEAD)
    await ledger.outbox("m").mark({"a": 1, "b": 0, "c": 1})
    assert await places(ledger) == {"b": 0, "c": 1}  # c waits behind b, which is open
    await ledger.void("b", "why")
    await ledger.outbox("m").mark({"b": 1})
    assert await places(ledger) == {} and await unsent(ledger) == []


async def test_auction_that_ended_without_a_word_holds_nothing_up(ledger: Ledger) -> None:
    await ledger.outbox("m").begin()
    await tell(ledger, "mute")
    await ledger.void("mute", "unreadable")
    await tell(ledger, "a", "auction.created")
    await ledger.outbox("m").mark({"a": 0})
    assert await unsent(ledger) == []


async def test_watchers_hear_of_every_commit(ledger: Ledger) -> None:
    heard: list[int] = []
    for number in (1, 2):
        ledger.watch_commits(lambda seconds, num_writes, number=number: heard.append(number))  # type: ignore[misc]
    await ledger.deposit("x", 1, "r")
    assert heard == [1, 2]


Step = tuple[str, int]


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4)), max_size=8))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_however_it_goes_each_event_is_told_once_in_order(tmp_path_factory: Any, steps: list[Step]) -> None:
    ledger = await Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.db'}")
    await ledger.outbox("m").begin()
    told: dict[str, list[int]] = {}
    count: dict[str, int] = {}
    for auction_id, num_told in steps:
        await tell(ledger, auction_id, "auction.token")
        count[auction_id] = count.get(auction_id, 0) + 1
        sent = await unsent(ledger, limit=num_told) if num_told else []
        for name, seq in sent:
            told.setdefault(name, []).append(seq)
        await ledger.outbox("m").mark(dict(sent))
    for name, seq in await unsent(ledger):
        told.setdefault(name, []).append(seq)
    await ledger.close()
    assert told == {name: list(range(num)) for name, num in count.items()}


async def places(ledger: Ledger) -> dict[str, int]:
    """The rows that are kept of a mirror."""
    query = select(mirror_places.c.auction_id, mirror_places.c.seq)
    rows = await ledger._database.read(lambda connection: connection.execute(query).all())
    return {row.auction_id: row.seq for row in rows}
