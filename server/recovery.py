"""After a crash: every auction that the ledger holds open goes on, settles or is voided, by this rule.

    what is durable                       what is done
    its request, which cannot be read         void
    nothing of its text, nobody could join    it begins, with the seed it was created with
    nothing of its text, agents could join    they may for what is left of that time, those who had joined are in it
    the beginning of a void                   void
    its `auction.settled`                     the settlement is posted as it says
    anything else                             it goes on behind its last durable token, in a new epoch
    … and the model is another                cancelled there: what is durable is charged and settled

A softmax auction goes on behind its last durable candidate, and makes no choice twice; before it nothing is owed.

A new epoch begins with a durable `stream.reset`: it takes the next `seq` and says behind which one the stream goes on,
so that a watcher drops what it saw beyond that. Bids that were accepted before the crash count from the next token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from tokenauction.engine.errors import ReceiptError, TokenAuctionError
from tokenauction.engine.performance import Performance
from tokenauction.engine.resumption import settle_as_recorded
from tokenauction.engine.seed import Seed
from tokenauction.engine.spec import AgentSpec, AuctionSpec
from tokenauction.models.base import ModelError
from tokenauction.server.auction_request import AuctionRequest
from tokenauction.server.house import House
from tokenauction.server.ledger import AuctionRecord
from tokenauction.server.live_auction import LiveAuction, Phase
from tokenauction.server.log import logger
from tokenauction.server.settlement import post

log = logger()

NOT_RESUMED = "not_resumed"  # code of the error event in front of such a settlement


async def recover(house: House) -> int:
    """Take up every open auction of the house's ledger, before anybody is served; how many there were."""
    records = await house.ledger.open_auctions()
    for record in records:
        events = [event async for event in house.ledger.events(record.auction_id)]
        if events and events[-1]["type"] == "auction.settled":
            await post(house.ledger, record.auction_id, events[-1])
            continue
        try:
            live = _restore(house, record)
            await _take_up_agents(house, live)
        except (TokenAuctionError, KeyError, TypeError, ValueError) as error:
            log.error("auction is void: it cannot be read", auction_id=record.auction_id, error=type(error).__name__)
            await _void_unreadable(house, record.auction_id, events)
            continue
        await _recover_one(house, live, events)
    return len(records)


def _restore(house: House, record: AuctionRecord) -> LiveAuction:
    """The auction as it was created."""
    document = record.spec
    seed = document["seed"]
    request = AuctionRequest.from_mapping(document["request"])
    drawn = Seed(int(seed["value"], 16), bytes.fromhex(seed["nonce"]), seed["source"])
    live = house.new_live(record.auction_id, request, document["owner"], drawn)
    live.created_at = document["created_at"]
    live.agents = {agent.id: agent for agent in request.agents}
    return live


async def _recover_one(house: House, live: LiveAuction, events: Sequence[Mapping[str, Any]]) -> None:
    house.adopt(live)
    if any(event["type"] == "auction.created" for event in events):
        await _go_on(house, live, events)
    elif events:
        _take_up_stream(live, events)
        await house.void(live, "interrupted", "the server stopped while it voided the auction: nothing is charged")
    elif live.request.tmax_join_ms:
        house.let_join(live)
    else:
        try:
            performance = await house.perform(live, live.request.spec_of(tuple(live.agents.values())))
        except (TokenAuctionError, ModelError) as error:
            await house.void(live, "interrupted", f"the model that the server has now cannot write it: {error}")
        else:
            await house.begin(live, performance)


async def _void_unreadable(house: House, auction_id: str, events: Sequence[Mapping[str, Any]]) -> None:
    """Give back what is held, and end the stream as every stream ends."""
    event_id, time = house.decoder.stamp()
    seq, epoch = len(events), max((event["epoch"] for event in events), default=0) + 1
    sponsors = events[0]["disclosure"] if events else {"sponsored": True, "by": []}
    settled: dict[str, Any] = {"type": "auction.settled", "event_id": event_id, "auction_id": auction_id, "time": time}
    settled |= {"seq": seq, "epoch": epoch, "disclosure": sponsors, "finish_reason": "error", "posted": False}
    settled |= {"num_tokens": 0, "text": "", "voids": [], "currency": "", "agents": [], "receipt_head": None}
    await house.ledger.append(auction_id, epoch, seq, settled)
    await house.ledger.void(auction_id, "unreadable")


async def _take_up_agents(house: House, live: LiveAuction) -> None:
    """Who took part when the server stopped; where the text had begun, its first event says it."""
    for agent_id, document in await house.ledger.joins(live.auction_id):
        if document is None:
            live.agents.pop(agent_id, None)
        else:
            live.agents[agent_id] = AgentSpec.from_mapping(document, "brief")
    for agent_id, bid_micros in (await house.ledger.bids(live.auction_id)).items():
        if agent_id in live.agents:
            live.agents[agent_id] = replace(live.agents[agent_id], bid_micros=bid_micros)


async def _go_on(house: House, live: LiveAuction, events: Sequence[Mapping[str, Any]]) -> None:
    """Behind the last durable token, or, where the model is another, to the end."""
    created = next(event for event in events if event["type"] == "auction.created")
    spec = AuctionSpec.from_mapping(created["spec"])
    lines = [event["line"] for event in events if "line" in event]
    live.agents = {agent.id: agent for agent in spec.agents}
    live.left = {event["agent_id"] for event in events if event["type"] == "agent.left"}
    _take_up_stream(live, events)
    codes = {event["code"] for event in events if event["type"] == "error"}
    has_failed = bool(codes - {NOT_RESUMED})
    await live.say("stream.reset", {"after_seq": live.channel.last_seq})
    try:
        if has_failed:
            raise ReceiptError("the text had failed before the server stopped")
        performance = await house.perform(live, spec)
        bids = await house.ledger.bids(live.auction_id)
        ended = await house.thread.call(partial(_resume, house, live, performance, lines, bids))
    except (TokenAuctionError, ModelError) as error:
        live.say("error", {"code": NOT_RESUMED, "message": f"settled on what is durable: {error}"})
        stamp = house.decoder.stamp
        settled = settle_as_recorded(spec, live.auction_id, live.seed, lines, stamp, has_failed=has_failed)
        ended = [settled]
    for event in ended:
        await house.settle(live, event)


def _resume(
    house: House, live: LiveAuction, performance: Performance, lines: Sequence[Any], bids: Mapping[str, int]
) -> list[Any]:
    """In the decoder's thread: the record so far, the bids that were accepted, and then the queue."""
    ended = house.decoder.resume(performance, lines)
    live.performance = performance
    if not ended:
        for agent_id, bid_micros in bids.items():
            performance.auction.set_bid(agent_id, bid_micros)
        for agent_id in live.left:
            performance.auction.set_absent(agent_id, is_absent=True)
        live.phase = Phase.RUNNING
        live.started.set()
    return ended


def _take_up_stream(live: LiveAuction, events: Sequence[Mapping[str, Any]]) -> None:
    """The channel stands behind the last durable event, and a new epoch begins."""
    live.epoch = max((event["epoch"] for event in events), default=0) + 1
    live.channel.last_seq = live.durable_seq = max((event["seq"] for event in events), default=-1)
    live.resets = [(event["epoch"], event["seq"]) for event in events if event["type"] == "stream.reset"]
    tokens = [event for event in events if event["type"] == "auction.token"]
    for token in tokens:
        live.tally.count(token)
    live.num_tokens, live.text = len(tokens), "".join(event["text"] for event in tokens)
    for event in events:
        if event["type"] == "auction.finalized":
            live.num_tokens, live.text = event["num_tokens"], event["text"]
