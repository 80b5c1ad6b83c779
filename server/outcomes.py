"""Won or lost, and why: of one token and of a whole text, for each agent.

    won               the token would not have come without its bid; the text has such a token
    outbid            it took part, and the token would have come without its bid
    no_influence      it took part, and its distribution gave the token no probability
    budget_exhausted  nothing is left of its budget
    zero_bid          its bid was 0
    left, absent      it had left for good; it was cut off, or silent when its distribution was awaited
    void              nothing was charged: the auction failed, or ended before a token

A text that is lost was lost for what its tokens were lost for most often. Everything follows from what its own agent
sees anyway (share, critical bid, status), so that it says nothing of a rival. It bills nothing: `payment.posted` does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenauction.engine.spec import REFERENCE_ID

LOSS_REASONS = ("outbid", "no_influence", "budget_exhausted", "zero_bid", "left", "absent", "void")
_BY_STATUS = {"no_bid": "zero_bid", "budget_spent": "budget_exhausted", "absent": "absent"}


def loss_of_token(agent: Mapping[str, Any], *, has_left: bool) -> str | None:
    """Why this agent of an `auction.token` lost the token; None where it won."""
    if agent["status"] in _BY_STATUS:
        return "left" if has_left else _BY_STATUS[agent["status"]]
    critical, share = agent["exact_critical_bid_micros"], agent["influence"]
    if share <= 0:
        return "no_influence"
    return None if critical is None or critical > 0 or share >= 1 else "outbid"


@dataclass
class Tally:
    """How each agent has fared in one auction so far."""

    num_won: Counter[str] = field(default_factory=Counter)  # tokens, by agent
    losses: dict[str, Counter[str]] = field(default_factory=dict)  # tokens by reason, by agent

    def with_outcomes(self, event: Mapping[str, Any], left: Collection[str]) -> dict[str, Any]:
        """The event with every agent's outcome, where it is about a token or the whole text; it is counted."""
        if event["type"] == "auction.token":
            shown = {**event, "agents": [self._of_token(agent, agent["id"] in left) for agent in event["agents"]]}
            self.count(shown)
            return shown
        if event["type"] == "auction.settled":
            agents = [{**agent, **self._of_text(agent, event)} for agent in event["agents"]]
            return {**event, "agents": agents}
        return dict(event)

    def count(self, event: Mapping[str, Any]) -> None:
        """Take in a token that has its outcomes, as the ledger has them after a crash."""
        for agent in event["agents"]:
            if agent.get("outcome") == "won":
                self.num_won[agent["id"]] += 1
            elif "loss_reason" in agent:
                self.losses.setdefault(agent["id"], Counter())[agent["loss_reason"]] += 1

    @staticmethod
    def _of_token(agent: Mapping[str, Any], has_left: bool) -> dict[str, Any]:
        if agent["status"] == "reference":
            return dict(agent)
        return {**agent, **_outcome(loss_of_token(agent, has_left=has_left))}

    def _of_text(self, agent: Mapping[str, Any], settled: Mapping[str, Any]) -> dict[str, Any]:
        if agent["id"] == REFERENCE_ID:
            return {}
        num_won, losses = self.num_won[agent["id"]], self.losses.get(agent["id"], Counter())
        if not settled["posted"]:
            loss: str | None = "void"
        elif num_won or agent["total_micros"]:
            loss = None
        elif losses:
            loss = max(LOSS_REASONS, key=lambda reason: losses[reason])
        else:
            loss = "outbid" if settled["num_tokens"] else "void"  # the first: a text that was not priced by tokens
        return {**_outcome(loss), "num_tokens_won": num_won}


def _outcome(loss: str | None) -> dict[str, str]:
    return {"outcome": "won"} if loss is None else {"outcome": "lost", "loss_reason": loss}
