"""What an agent knows of an auction, and what it makes of each event, whichever way the event came.

It must not know connections, nor how a strategy decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tokenauction.clients.client import Event
from tokenauction.clients.strategies import Sight, Strategy
from tokenauction.server.wire import Brief


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


class Bidder:
    """One advertiser in one auction; subclass and override `on_event` to see more than its strategy does."""

    def __init__(
        self, agent_id: str, strategy: Strategy, budget_micros: int | None, name: str | None, offer: str | None
    ) -> None:
        """`name` and `offer` are its brief, which an auction needs that does not list it."""
        self.agent_id = agent_id
        self.strategy = strategy
        self.budget_micros = budget_micros
        self.brief = Brief(name, offer) if name is not None and offer is not None else None
        self.sight = Sight(budget_micros=budget_micros)
        self._texts: list[str] = []  # by step

    def on_event(self, event: Event) -> None:
        """Called with every event; does nothing here."""

    def take(self, event: Event, outcome: Outcome) -> bool:
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
