"""An agent that bids for one advertiser: joins an auction, watches its own numbers, changes its bid by a strategy.

    outcome = await Agent(client, "alpha", Fixed(2_000), budget_micros=100_000).run(auction_id)

A bid counts from the next token that is drawn behind its commit. When the connection breaks it comes back, joins again
and goes on. It must not know how a strategy decides.
"""

from __future__ import annotations

import asyncio
import json

from websockets.asyncio.client import ClientConnection

from tokenauction.clients.bidder import Bidder, Outcome
from tokenauction.clients.client import LOST, Client, Delays, Event, ServerError
from tokenauction.clients.own_model import OwnModel, Speaker
from tokenauction.clients.strategies import Strategy
from tokenauction.server.wire import AgentJoin, BidUpdate, Subscribe, encode


class Agent(Bidder):
    """One advertiser's agent on a WebSocket."""

    def __init__(
        self,
        client: Client,
        agent_id: str,
        strategy: Strategy,
        *,
        budget_micros: int | None = None,
        name: str | None = None,
        offer: str | None = None,
        own_model: OwnModel | None = None,
    ) -> None:
        """With `own_model` it sends that model's distribution for every token, where the auction allows it."""
        super().__init__(agent_id, strategy, budget_micros, name, offer)
        self.client = client
        self.own_model = own_model

    async def run(self, auction_id: str) -> Outcome:
        """Take part until the auction settles; raises ServerError where the agent is refused."""
        outcome = Outcome(auction_id)
        delays = Delays(self.client.give_up)
        position: tuple[int, int | None] = (-1, None)
        while True:
            reason: Exception = ConnectionError("the server closed the connection")
            try:
                async with self.client.connection() as socket:
                    bid = self.strategy.bid(self.sight)
                    await self._send(socket, self._join(auction_id, bid))
                    await _until(socket, "agent.joined")
                    subscribe = Subscribe(auction_id=auction_id, after_seq=position[0], epoch=position[1])
                    await self._send(socket, subscribe)
                    speaker = self.own_model and Speaker(self.own_model, auction_id, self.agent_id)
                    async for message in socket:
                        event = json.loads(message)
                        if speaker and event["type"] == "step.opened":
                            await socket.send(await speaker.answer(event))
                        if "seq" in event:
                            position = (event["seq"], event.get("epoch"))
                            delays.restart()
                        if self.take(event, outcome):
                            return outcome
                        bid = await self._bid(socket, auction_id, event, bid)
            except ServerError as error:
                if error.code != "not_live" or position[0] < 0:
                    raise
                return await self._read_end(auction_id, position, outcome)
            except LOST as lost:
                reason = lost
            await delays.wait(reason)

    async def _read_end(self, auction_id: str, position: tuple[int, int | None], outcome: Outcome) -> Outcome:
        """The auction settled while the connection was lost: read how."""
        async for event in self.client.watch(auction_id, *position, self.agent_id):
            self.take(event, outcome)
        return outcome

    def _join(self, auction_id: str, bid: int) -> AgentJoin:
        return AgentJoin(
            auction_id=auction_id,
            agent_id=self.agent_id,
            bid_micros=bid,
            budget_micros=self.budget_micros,
            brief=self.brief,
            own_model=self.own_model is not None,
            vocabulary_hash=self.own_model.vocabulary_hash if self.own_model else None,
        )

    async def _bid(self, socket: ClientConnection, auction_id: str, event: Event, bid: int) -> int:
        """Behind a token, the strategy's next bid, sent where it is another one."""
        if event["type"] != "auction.token":
            return bid
        wanted = self.strategy.bid(self.sight)
        if wanted != bid:
            await self._send(socket, BidUpdate(auction_id=auction_id, agent_id=self.agent_id, bid_micros=wanted))
        return wanted

    @staticmethod
    async def _send(socket: ClientConnection, message: AgentJoin | BidUpdate | Subscribe) -> None:
        await socket.send(encode(message).decode())


async def _until(socket: ClientConnection, answer: str) -> Event:
    """The first message of this type; ServerError where an error comes first."""
    async with asyncio.timeout(30):
        async for message in socket:
            event: Event = json.loads(message)
            if event["type"] == answer:
                return event
            if event["type"] == "error":
                raise ServerError(event["code"], event["message"])
    raise ConnectionError("the server closed the connection")
