"""What one peer asks for, done by the house, and the answer where it goes well.

The session has said that it is legal and that the peer's scopes allow it. It must not know how anything is sent.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from msgspec import UNSET

from tokenauction.engine.errors import TokenAuctionError
from tokenauction.engine.recorder import Stamp
from tokenauction.engine.report import Report
from tokenauction.models.base import ModelError
from tokenauction.server.auth import Identity
from tokenauction.server.bidding import Bidding
from tokenauction.server.house import House
from tokenauction.server.refusal import Refused
from tokenauction.server.wire import (
    AgentJoin,
    AgentJoined,
    AgentLeave,
    AuctionAccepted,
    AuctionCancel,
    AuctionCreate,
    BidAccepted,
    BidUpdate,
    ClientMessage,
    DenseDistribution,
    DistributionSubmit,
    ServerMessage,
)

EXPECTED = (TokenAuctionError, ModelError)  # what somebody who asks is expected to meet


class Requests:
    """The requests of one identity."""

    def __init__(self, house: House, bidding: Bidding, identity: Identity, stamp: Stamp) -> None:
        self.house = house
        self.bidding = bidding
        self.identity = identity
        self.stamp = stamp

    async def do(self, message: ClientMessage) -> ServerMessage | None:
        """Do what a message asks for and say what came of it, if anything is said; raises one of EXPECTED where it is
        refused."""
        if isinstance(message, DistributionSubmit | DenseDistribution):
            self._submit(message)
            return None
        if isinstance(message, AuctionCreate):
            accepted = await self.house.create(message.spec, self.identity.id, message.idempotency_key)
            live = self.house.live.get(accepted.auction_id)
            state = str(live.phase) if live else "over"
            return self._accepted(message, accepted.auction_id, state, is_replay=accepted.is_replay)
        if isinstance(message, AuctionCancel):
            await self.house.cancel(message.auction_id)
            return self._accepted(message, message.auction_id, "cancelling", is_replay=False)
        if isinstance(message, AgentJoin):
            brief = None if message.brief is None else {"name": message.brief.name, "offer": message.brief.offer}
            if message.own_model and message.vocabulary_hash is None:
                raise Refused("vocabulary_missing", "whoever brings a model says what its ids mean: vocabulary_hash")
            vocabulary = message.vocabulary_hash if message.own_model else None
            step = await self.bidding.join(
                message.auction_id, message.agent_id, message.bid_micros, message.budget_micros, brief, vocabulary
            )
            return AgentJoined(**self._agent(message), effective_from_step=step)
        if isinstance(message, BidUpdate):
            step = await self.bidding.bid(message.auction_id, message.agent_id, message.bid_micros, message.bid_id)
            bid_id = UNSET if message.bid_id is None else message.bid_id
            return BidAccepted(
                **self._agent(message), bid_micros=message.bid_micros, effective_from_step=step, bid_id=bid_id
            )
        assert isinstance(message, AgentLeave), "all other messages are the connection's"
        step = await self.bidding.leave(message.auction_id, message.agent_id)
        return BidAccepted(**self._agent(message), bid_micros=0, effective_from_step=step)

    def _submit(self, message: DistributionSubmit | DenseDistribution) -> None:
        if isinstance(message, DenseDistribution):
            vocabulary, report = message.vocabulary_hash_prefix, Report(message.log_probs)
        else:
            numbers = np.array(message.log_probs, np.float64)
            vocabulary, report = message.vocabulary_hash, Report(numbers, tuple(message.ids), message.tail_mass)
        self.house.desk.submit(message.auction_id, message.agent_id, message.step, vocabulary, report)

    def _accepted(
        self, message: AuctionCreate | AuctionCancel, auction_id: str, state: str, *, is_replay: bool
    ) -> ServerMessage:
        return AuctionAccepted(**self._head(message), auction_id=auction_id, state=state, replayed=is_replay)

    def _head(self, message: ClientMessage) -> dict[str, Any]:
        event_id, time = self.stamp()
        request_id = getattr(message, "request_id", None)
        return {"event_id": event_id, "time": time, "request_id": UNSET if request_id is None else request_id}

    def _agent(self, message: AgentJoin | BidUpdate | AgentLeave) -> dict[str, Any]:
        return {**self._head(message), "auction_id": message.auction_id, "agent_id": message.agent_id}
