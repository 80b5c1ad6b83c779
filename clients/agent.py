"""An agent that bids for one advertiser: joins an auction, watches its own numbers, changes its bid by a strategy.

    outcome = await Agent(client, "alpha", Fixed(2_000), budget_micros=100_000).run(auction_id)

A bid counts from the next token that is drawn behind its commit. When the connection breaks it comes back, joins again
and goes on. It must not know how a strategy decides.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from websockets.asyncio.client import ClientConnection

from tokenauction.clients.client import LOST, Client, Delays, Event, ServerError
from tokenauction.clients.own_model import OwnModel, Speaker
from tokenauction.clients.strategies import Sight, Strategy
from tokenauction.server.wire import AgentJoin, BidUpdate, Brief, Subscribe, encode


@dataclass
class Outcome:
    """What came of an auction for one agent; amounts in micros."""

    auction_id: str
    text: str = ""
    finish_reason: str = ""
    outcome: str = ""  # "won" or "lost"
    loss_reason: str | None = None  # where it lost
    num_tokens_won: int = 0
    paid_micros: int = 0  # as `payment.posted` says; 0 where nothing was posted
    bids: list[tuple[int, int]] = field(default_factory=list)  # (step from which it counts, bid), as accepted
    refusals: list[str] = field(default_factory=list)  # codes of bids that were refused


class Agent:
    """One advertiser's agent; subclass and override `on_event` to see more than its strategy does."""

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
        """`name` and `offer` are its brief, which an auction needs that does not list it.

        With `own_model` it sends that model's distribution for every token, where the auction allows it.
        """
        self.client = client
        self.agent_id = agent_id
        self.strategy = strategy
        self.budget_micros = budget_micros
        self.brief = Brief(name, offer) if name is not None and offer is not None else None
        self.own_model = own_model
        self.sight = Sight(budget_micros=budget_micros)
        self._texts: list[str] = []  # by step

    def on_event(self, event: Event) -> None:
        """Called with every event; does nothing here."""

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
                        if self._take(event, outcome):
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
            self._take(event, outcome)
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

    def _take(self, event: Event, outcome: Outcome) -> bool:
        """Take in one event; whether it was the last."""
        self.on_event(event)
        kind = event["type"]
        if kind == "auction.created":
            self.sight = replace(self.sight, max_tokens=event["spec"]["max_tokens"])
        elif kind == "auction.token":
            self._see(event)
        elif kind == "bid.accepted":
            outcome.bids.append((event["effective_from_step"], event["bid_micros"]))
        elif kind == "bid.rejected":
            outcome.refusals.append(event["code"])
        elif kind == "payment.posted" and event["agent_id"] == self.agent_id:
            outcome.paid_micros = event["total_micros"]
        elif kind == "auction.settled":
            outcome.text, outcome.finish_reason = event["text"], event["finish_reason"]
            own = self._own(event)
            outcome.outcome, outcome.loss_reason = own.get("outcome", ""), own.get("loss_reason")
            outcome.num_tokens_won = own.get("num_tokens_won", 0)
            return True
        return False

    def _own(self, event: Event) -> Mapping[str, Any]:
        """What an event says of this agent."""
        return next((agent for agent in event.get("agents", ()) if agent.get("id") == self.agent_id), {})

    def _see(self, event: Event) -> None:
        own = self._own(event)
        del self._texts[event["step"] :]  # what a crash took back is written again
        self._texts.append(event["text"])
        self.sight = replace(
            self.sight,
            text="".join(self._texts),
            num_tokens=len(self._texts),
            spent_micros=own.get("total_micros", self.sight.spent_micros),
            last_influence=own.get("influence", 0.0),
            last_payment_micros=own.get("exact_payment_micros", 0.0),
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
