"""An existing OpenRTB bidder takes part in an auction: asked once over HTTP, then represented by an agent.

    auction → bid request → POST to the bidder → its bid → the agent joins, bids it for every token → nurl, burl, lurl

What is what, field by field, is server/openrtb.py's. Addresses in a bid are called only at the bidder's own host, or at
hosts that were named: whoever answers must not make this machine call others.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from tokenauction.clients.agent import Agent
from tokenauction.clients.bidder import Outcome
from tokenauction.clients.client import Client, ServerError
from tokenauction.clients.strategies import Fixed
from tokenauction.server.openrtb import (
    INTERNAL,
    LOSSES,
    MAX_RESPONSE,
    OUTBID,
    Bid,
    InvalidResponse,
    NoBid,
    Offer,
    bid_request,
    notice_url,
    read_response,
)

LEAST_MS, MOST_MS = 50, 2_000  # that a bidder has to answer
MARGIN_MS = 200  # for joining, before the time to join is over
NOTICE_SECONDS = 5.0

log = logging.getLogger("tokenauction.openrtb")


class BidderFailed(Exception):
    """The bidder did not answer in time, or not with a bid response."""


@dataclass(frozen=True)
class Participation:
    """What came of asking a bidder."""

    offer: Offer | None  # None where it did not want to
    no_bid_reason: int | None = None
    outcome: Outcome | None = None  # of the auction, where it took part
    called: list[str] = field(default_factory=list)  # addresses that were told


class OpenRtbBidder:
    """One bidder, and the agent that stands for it."""

    def __init__(
        self, client: Client, agent_id: str, endpoint: str, *, notice_hosts: Collection[str] = (), is_test: bool = False
    ) -> None:
        """`endpoint` takes bid requests by POST; `notice_hosts` may be called besides its own host.

        Raises ValueError for an endpoint that is no http or https address.
        """
        self.client = client
        self.agent_id = agent_id
        self.endpoint = endpoint
        self.is_test = is_test
        host = urlsplit(endpoint).hostname
        if not endpoint.startswith(("http://", "https://")) or not host:
            raise ValueError(f"the bidder is {endpoint!r:.200}; give http://… or https://…")
        self._hosts = {host, *notice_hosts}
        self._called: list[str] = []

    async def run(self, auction_id: str) -> Participation:
        """Ask the bidder, and take part for it to the end.

        Raises ServerError where the server refuses, BidderFailed where the bidder's answer is none.
        """
        self._called = []
        auction = await self._describe(auction_id)
        request = bid_request(auction, _time_left_ms(auction), is_test=self.is_test)
        try:
            offer = read_response(await self._ask(request), request)
        except InvalidResponse as error:
            raise BidderFailed(f"{self.endpoint} answered with what is no bid response: {error}") from None
        if isinstance(offer, NoBid):
            return Participation(None, offer.reason)
        for other in offer.others:
            await self._tell(other, other.lurl, loss=OUTBID)
        agent = Agent(
            self.client, self.agent_id, Fixed(offer.bid_micros),
            budget_micros=offer.budget_micros, name=offer.name, offer=offer.offer,
        )  # fmt: skip
        try:
            outcome = await agent.run(auction_id)
        except ServerError as error:
            await self._tell(offer.bid, offer.bid.lurl, loss=LOSSES.get(error.code, INTERNAL))
            raise
        await self._tell_end(offer.bid, outcome, agent.sight.num_tokens)
        return Participation(offer, None, outcome, self._called)

    async def _tell_end(self, bid: Bid, outcome: Outcome, num_tokens: int) -> None:
        """Won, and billed what it paid; or lost."""
        paid = {"num_tokens": num_tokens, "total_micros": outcome.paid_micros}
        if outcome.outcome == "won":
            await self._tell(bid, bid.nurl, **paid)
        if outcome.paid_micros:
            await self._tell(bid, bid.burl, **paid)
        if outcome.outcome != "won":
            await self._tell(bid, bid.lurl, loss=INTERNAL if outcome.finish_reason == "error" else OUTBID)

    async def _describe(self, auction_id: str) -> Mapping[str, Any]:
        headers = {} if self.client.token is None else {"Authorization": f"Bearer {self.client.token}"}
        address = f"{self.client.url}/v1/auctions/{quote(auction_id, safe='')}"
        try:
            status, body = await asyncio.to_thread(_call, address, None, headers, 30.0)
        except (OSError, HTTPException) as error:
            raise ServerError("unreachable", f"{self.client.url} cannot be reached: {error}") from None
        try:
            said = json.loads(body)
            if status == 200:
                return {**said, "max_tokens": said["max_tokens"], "currency": said["currency"]}
            code, message = str(said["error"]["code"]), str(said["error"]["message"])
        except (ValueError, KeyError, TypeError):
            code, message = "http", f"the server answered with {status}, and nothing that is an auction"
        raise ServerError(code, message)

    async def _ask(self, request: Mapping[str, Any]) -> bytes:
        """The body of the bidder's answer; empty for 204."""
        headers = {"Content-Type": "application/json", "X-OpenRTB-Version": "2.6", "Accept": "application/json"}
        seconds = request["tmax"] / 1000
        body = json.dumps(request).encode()
        try:
            async with asyncio.timeout(seconds):  # a late answer is none
                status, answer = await asyncio.to_thread(_call, self.endpoint, body, headers, seconds)
        except TimeoutError:
            raise BidderFailed(f"{self.endpoint} did not answer within {request['tmax']} ms") from None
        except (OSError, HTTPException) as error:
            raise BidderFailed(f"{self.endpoint} cannot be asked: {getattr(error, 'reason', error)}") from None
        if status == 204:
            return b""
        if status != 200:
            raise BidderFailed(f"{self.endpoint} answered with status {status}")
        return answer

    def _may_call(self, address: str) -> bool:
        try:
            parts = urlsplit(address)
            return parts.scheme in ("http", "https") and parts.hostname in self._hosts
        except ValueError:
            return False

    async def _tell(self, bid: Bid, url: str | None, *, loss: int | None = None, **paid: int) -> None:
        """Call an address of a bid; what becomes of that changes nothing."""
        if url is None:
            return
        address = notice_url(url, bid, loss=loss, **paid)
        if not self._may_call(address):
            log.warning("a notice is not sent: its host is not the bidder's, nor one that was named")
            return
        try:
            await asyncio.to_thread(_call, address, None, {}, NOTICE_SECONDS)
        except (OSError, HTTPException, ValueError) as error:
            log.warning("a notice could not be sent: %s", error)
            return
        self._called.append(address)


def _time_left_ms(auction: Mapping[str, Any]) -> int:
    """What a bidder has to answer, so that its agent can still join."""
    until = auction["created_at"] * 1000 + auction["tmax_join_ms"]
    left = int(until - time.time() * 1000) - MARGIN_MS
    return max(LEAST_MS, min(MOST_MS, left))


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None  # it would lead to a host that nobody named


def _call(url: str, body: bytes | None, headers: Mapping[str, str], seconds: float) -> tuple[int, bytes]:
    """Status and body; blocks, raises OSError or HTTPException."""
    opener = build_opener(ProxyHandler({}), _NoRedirect)
    try:
        with opener.open(Request(url, body, dict(headers)), timeout=seconds) as answer:
            return answer.status, answer.read(MAX_RESPONSE + 1)
    except HTTPError as error:
        with error:
            return error.code, error.read(MAX_RESPONSE)
