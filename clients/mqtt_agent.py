"""An agent that bids by way of an MQTT broker: the same strategies, no connection to the server itself.

    outcome = await MqttAgent(Address.parse("mqtt://broker"), "alpha", Fixed(2_000), token=secret).run(auction_id)

It sees what the public sees, and its payment where the server tells payments. What it has spent it does not see: it
counts every token at its own bid, the most that it can cost. It must not know how a strategy decides.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import replace
from typing import Any

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tokenauction.clients.bidder import Bidder, Outcome
from tokenauction.clients.client import GIVE_UP_SECONDS, Delays, Event, ServerError
from tokenauction.clients.strategies import Strategy
from tokenauction.server import mqtt_topics as topics
from tokenauction.server.mqtt_link import LOST, Link, link_to
from tokenauction.server.mqtt_topics import Address
from tokenauction.server.wire import AgentJoin, BidUpdate, encode

ANSWER_SECONDS = 10.0  # after which what was said is said again
OVER = ("settled", "void")  # states of an auction


class MqttAgent(Bidder):
    """One advertiser's agent at a broker."""

    def __init__(
        self,
        address: Address,
        agent_id: str,
        strategy: Strategy,
        *,
        token: str | None = None,
        budget_micros: int | None = None,
        name: str | None = None,
        offer: str | None = None,
        give_up: float = GIVE_UP_SECONDS,
    ) -> None:
        """`token` acts for the agent; without one the broker must vouch for it (`serve --mqtt-trust`)."""
        super().__init__(agent_id, strategy, budget_micros, name, offer)
        self.address = address
        self.token = token
        self.give_up = give_up
        self._joined_with = 0
        self._bids: list[tuple[int, int]] = []  # (step from which it counts, bid), as accepted
        self._position = (0, -1)  # epoch and seq of the last event

    async def run(self, auction_id: str) -> Outcome:
        """Take part until the auction settles; raises ServerError where the agent is refused."""
        outcome = Outcome(auction_id)
        delays = Delays(self.give_up)
        while True:
            try:
                async with link_to(self.address) as link:
                    async with asyncio.timeout(None) as patience:
                        await self._take_part(link, auction_id, outcome, patience, delays)
                        return outcome
            except (*LOST, TimeoutError) as lost:
                await delays.wait(lost)

    async def _take_part(
        self, link: Link, auction_id: str, outcome: Outcome, patience: asyncio.Timeout, delays: Delays
    ) -> None:
        """Join, and bid behind every token, to the end; raises one of LOST, TimeoutError where no answer comes."""
        prefix, loop = self.address.prefix, asyncio.get_running_loop()
        replies = f"{topics.replies(prefix, self.agent_id)}/{uuid.uuid4().hex}"
        await link.subscribe(replies)
        await link.subscribe(topics.payments(prefix, self.agent_id), is_needed=False)
        await link.subscribe(topics.events(prefix, auction_id, "#"))
        await link.subscribe(topics.auction_state(prefix, auction_id), with_retained=True)
        wanted = self.strategy.bid(self.sight)
        patience.reschedule(loop.time() + ANSWER_SECONDS)
        await self._say(link, replies, self._join(auction_id, wanted))
        async for message in link.messages():
            event = json.loads(message.payload)
            where = message.topic.value
            if where == replies:
                patience.reschedule(None)
                self._hear(event, outcome, has_begun=self._position[1] >= 0)
            elif where == topics.auction_state(prefix, auction_id):
                if event["state"] in OVER:  # and what was told before that is lost
                    outcome.text, outcome.finish_reason = event["text"], event["state"]
                    return
            elif self._is_new(event) and self.take(event, outcome):
                return
            elif event["type"] == "auction.token":
                delays.restart()
                if (next_bid := self.strategy.bid(self.sight)) != wanted:
                    wanted = next_bid
                    update = BidUpdate(auction_id=auction_id, agent_id=self.agent_id, bid_micros=wanted)
                    await self._say(link, replies, update)

    def _hear(self, answer: Event, outcome: Outcome, *, has_begun: bool) -> None:
        """Take in an answer; ServerError for a refusal that ends it."""
        if answer["type"] == "error" and not (has_begun and answer["code"] == "not_live"):
            raise ServerError(answer["code"], answer["message"])
        if answer["type"] in ("agent.joined", "bid.accepted"):
            self._bids.append((answer["effective_from_step"], answer.get("bid_micros", self._joined_with)))
        self.take(answer, outcome)

    def _is_new(self, event: Event) -> bool:
        """Whether this is no event that came before: a broker may repeat itself."""
        if "seq" not in event:
            return True
        place = (event["epoch"], event["seq"])
        if place <= self._position:
            return False
        self._position = place
        return True

    def _see(self, event: Event) -> None:
        super()._see(event)
        steps = range(self.sight.num_tokens)
        at_most = sum(next((bid for start, bid in reversed(self._bids) if start <= step), 0) for step in steps)
        self.sight = replace(self.sight, spent_micros=at_most)

    def _join(self, auction_id: str, bid: int) -> AgentJoin:
        self._joined_with = bid
        return AgentJoin(
            auction_id=auction_id,
            agent_id=self.agent_id,
            bid_micros=bid,
            budget_micros=self.budget_micros,
            brief=self.brief,
        )

    async def _say(self, link: Link, replies: str, message: AgentJoin | BidUpdate) -> None:
        properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ResponseTopic = replies
        if self.token is not None:
            properties.UserProperty = [(topics.TOKEN_PROPERTY, f"Bearer {self.token}")]
        await link.publish(topics.bids(self.address.prefix, self.agent_id), encode(message), properties=properties)
