"""An existing bidder, over real HTTP, takes part in a real auction, and is told what came of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.clients.rtb_bidder import RtbBidder, bid_of, response_to, rtb_bidder
from tests.server.toy_server import LONGEST_SECONDS, ToyServer, spec_of, toy_server

from tokenauction.clients.client import ServerError
from tokenauction.clients.openrtb import BidderFailed, OpenRtbBidder, Participation
from tokenauction.server.openrtb import OUTBID

pytestmark = pytest.mark.slow  # real bidders, and an auction each


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ToyServer]:
    async with toy_server(tmp_path) as running:
        yield running


async def joinable(server: ToyServer, **changes: Any) -> str:
    spec = spec_of("0.002", "0.001", tmax_join_ms=60_000, **changes)
    auction_id: str = (await server.client().begin(spec))["auction_id"]
    return auction_id


async def take_part(server: ToyServer, auction_id: str, bidder: RtbBidder, **options: Any) -> Participation:
    """Until the auction is over; its text begins when the bidder's agent has joined."""
    adapter = OpenRtbBidder(server.client(), "agent2", bidder.url + "/bid", **options)
    running = asyncio.create_task(adapter.run(auction_id))
    live = server.house.live[auction_id]
    async with asyncio.timeout(LONGEST_SECONDS):
        while "agent2" not in live.agents and not running.done():
            await asyncio.sleep(0.01)
        live.no_more_joins.set()
        return await running


def with_notices(request: dict[str, Any], price: float = 3.0, **fields: Any) -> bytes:
    """A bid whose addresses are at the bidder's own host."""
    macros = "id=${AUCTION_ID}&p=${AUCTION_PRICE}&n=${AUCTION_MULTIPLIER}&t=${TOKENAUCTION_TOTAL}&l=${AUCTION_LOSS}"
    urls = {name: f"http://127.0.0.1:PORT/{name}?{macros}" for name in ("nurl", "burl", "lurl")}
    return response_to(request, bid_of(price, **{**urls, **fields}))


def at(bidder: RtbBidder, body: bytes) -> bytes:
    return body.replace(b"PORT", str(bidder.port).encode())


def told(bidder: RtbBidder) -> dict[str, dict[str, str]]:
    """What each kind of notice said."""
    found = {}
    for path in bidder.notices:
        parts = urlsplit(path)
        found[parts.path[1:]] = {name: values[0] for name, values in parse_qs(parts.query).items()}
    return found


async def test_existing_bidder_takes_part_and_is_billed_what_the_ledger_says(server: ToyServer) -> None:
    with rtb_bidder(lambda request: (200, at(bidder, with_notices(request)))) as bidder:
        auction_id = await joinable(server, max_tokens=30)
        came = await take_part(server, auction_id, bidder)
        assert bidder.faults == [] and len(bidder.requests) == 1
        assert came.offer is not None and came.outcome is not None
        last = await server.ledger.last_event(auction_id)
        assert last is not None
        paid = {agent["id"]: agent["total_micros"] for agent in last["agents"]}["agent2"]
        assert came.outcome.paid_micros == paid > 0
        assert (await server.ledger.bids(auction_id))["agent2"] == came.offer.bid_micros == 3_000
        sponsors = {by["id"]: by["name"] for by in last["disclosure"]["by"]}
        assert sponsors["agent2"] == "Gamma Tours"
        said = told(bidder)
        assert set(said) == {"nurl", "burl"} and said["burl"]["id"] == auction_id and "l" not in said["burl"]
        assert round(float(said["burl"]["t"]) * 1e6) == paid
        assert round(float(said["burl"]["p"]) * int(said["burl"]["n"]) * 1_000) == paid
        assert len(came.called) == 2


async def test_request_is_the_auctions(server: ToyServer) -> None:
    with rtb_bidder(lambda request: (204, b"")) as bidder:
        auction_id = await joinable(server, max_tokens=30, currency="EUR")
        came = await take_part(server, auction_id, bidder)
        assert came == Participation(None)
        [request] = bidder.requests
        assert (request["id"], request["cur"], request["site"]["search"]) == (auction_id, ["EUR"], "query")
        assert request["imp"][0]["qty"]["multiplier"] == 30 and 50 <= request["tmax"] <= 2_000
        assert [agent["id"] for agent in request["ext"]["tokenauction"]["agents"]] == ["agent0", "agent1"]


async def test_bidder_that_does_not_want_to_takes_no_part(server: ToyServer) -> None:
    with rtb_bidder(lambda request: (200, json.dumps({"id": request["id"], "nbr": 8}).encode())) as bidder:
        came = await take_part(server, await joinable(server), bidder)
        assert (came.offer, came.no_bid_reason) == (None, 8)


@pytest.mark.parametrize(
    "answer",
    [(200, b"<html>"), (200, b"x" * 300_000), (500, b""), (302, b""), (404, b"nothing"), (200, b'{"id": "other"}')],
)
async def test_answer_that_is_none_takes_no_part_and_says_why(server: ToyServer, answer: tuple[int, bytes]) -> None:
    with rtb_bidder(lambda request: answer) as bidder:
        auction_id = await joinable(server)
        with pytest.raises(BidderFailed) as caught:
            await take_part(server, auction_id, bidder)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
        assert bidder.notices == [] and "agent2" not in await server.ledger.holds(auction_id)


async def test_bidder_that_answers_too_late_takes_no_part(server: ToyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenauction.clients.openrtb.MOST_MS", 60)
    late = asyncio.Event()
    loop = asyncio.get_running_loop()

    def answer(request: dict[str, Any]) -> tuple[int, bytes]:
        asyncio.run_coroutine_threadsafe(late.wait(), loop).result()
        return 200, response_to(request, bid_of(3))

    with rtb_bidder(answer) as bidder:
        try:
            with pytest.raises(BidderFailed, match="did not answer within"):
                await take_part(server, await joinable(server), bidder)
        finally:
            late.set()
            await asyncio.sleep(0.05)  # it learns that nobody listens


async def test_nobody_at_the_endpoint_is_said(server: ToyServer) -> None:
    adapter = OpenRtbBidder(server.client(), "agent2", "http://127.0.0.1:1/bid")
    with pytest.raises(BidderFailed, match="cannot be asked"):
        await adapter.run(await joinable(server))


async def test_bid_that_the_server_refuses_is_lost_with_a_reason(server: ToyServer) -> None:
    spent = {"ext": {"tokenauction": {"budget": 5_000_000}}}
    with rtb_bidder(lambda request: (200, at(bidder, with_notices(request, **spent)))) as bidder:
        with pytest.raises(ServerError) as caught:
            await take_part(server, await joinable(server), bidder)
        assert caught.value.code == "insufficient_funds"
        assert set(told(bidder)) == {"lurl"} and told(bidder)["lurl"]["l"] == "1"


async def test_lower_bids_of_one_bidder_lose_to_its_highest(server: ToyServer) -> None:
    def answer(request: dict[str, Any]) -> tuple[int, bytes]:
        low = bid_of(1.0, id="low", lurl=f"http://127.0.0.1:{bidder.port}/lurl?id=${{AUCTION_ID}}&l=${{AUCTION_LOSS}}")
        return 200, response_to(request, low, bid_of(3.0))

    with rtb_bidder(answer) as bidder:
        came = await take_part(server, await joinable(server), bidder)
        assert came.offer is not None and came.offer.bid_micros == 3_000
        assert told(bidder)["lurl"]["l"] == str(OUTBID)


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1/x", "http://localhost:PORT/x", "file:///etc/passwd", "ftp://127.0.0.1/", "//x", "http://["]
)
async def test_addresses_elsewhere_are_not_called(server: ToyServer, url: str) -> None:
    notices = {name: url for name in ("nurl", "burl", "lurl")}
    with rtb_bidder(lambda request: (200, at(bidder, with_notices(request, **notices)))) as bidder:
        came = await take_part(server, await joinable(server), bidder)
        assert came.outcome is not None and came.called == [] and bidder.notices == []


async def test_other_hosts_are_called_where_they_were_named(server: ToyServer) -> None:
    notices = {"nurl": "http://localhost:PORT/nurl"}
    with rtb_bidder(lambda request: (200, at(bidder, with_notices(request, **notices)))) as bidder:
        await take_part(server, await joinable(server), bidder, notice_hosts=["localhost"])
        assert "nurl" in told(bidder)


@pytest.mark.parametrize("endpoint", ["", "bidder", "ftp://x", "http://", "http:///bid"])
def test_endpoint_that_is_none_is_refused(endpoint: str) -> None:
    from tokenauction.clients.client import Client

    with pytest.raises(ValueError, match="the bidder is"):
        OpenRtbBidder(Client(), "a", endpoint)
