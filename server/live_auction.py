"""One auction between its creation and its settlement: who takes part, what it has told so far, how much is durable.

    joining → running → settling → over          (a text without time to join begins in running)

Events are numbered here: what the engine says and what the house adds share one dense `seq`. A token is published at
once and says how far the ledger is; what begins or ends an auction is durable first. It must not know sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from tokenauction.engine.events import Event
from tokenauction.engine.performance import Performance
from tokenauction.engine.recorder import Stamp
from tokenauction.engine.seed import Seed
from tokenauction.engine.spec import AgentSpec
from tokenauction.server.auction_request import TERMS, AuctionRequest, disclosure
from tokenauction.server.hub import Channel
from tokenauction.server.outcomes import Tally
from tokenauction.server.telemetry import Telemetry


class Phase(StrEnum):
    """Where a live auction stands."""

    JOINING = "joining"
    RUNNING = "running"
    SETTLING = "settling"
    OVER = "over"


class Journal(Protocol):
    """What a live auction asks of its house: the ledger, and to be watched."""

    @property
    def telemetry(self) -> Telemetry: ...

    def append(
        self, auction_id: str, epoch: int, seq: int, event: Mapping[str, Any], charges: Mapping[str, int] | None = None
    ) -> asyncio.Future[int]:
        """Queue an event behind all others; the future resolves when it is durable."""


@dataclass(eq=False)
class LiveAuction:
    """One auction of the house."""

    auction_id: str
    request: AuctionRequest
    owner: str  # who created it
    seed: Seed
    created_at: float  # seconds since 1970
    journal: Journal
    stamp: Stamp
    channel: Channel
    phase: Phase = Phase.JOINING
    epoch: int = 1
    resets: list[tuple[int, int]] = field(default_factory=list)  # epoch and seq of every stream.reset
    durable_seq: int = -1
    performance: Performance | None = None
    agents: dict[str, AgentSpec] = field(default_factory=dict)  # listed or joined, in that order
    left: set[str] = field(default_factory=set)
    applied: dict[str, int] = field(default_factory=dict)  # per agent, the order number of the bid that counts
    answers: dict[tuple[str, str], int] = field(default_factory=dict)  # per agent and bid id, the step that was named
    num_tokens: int = 0  # published
    text: str = ""  # published
    tally: Tally = field(default_factory=Tally)  # of tokens won and lost
    joining: set[str] = field(default_factory=set)  # agents whose hold is being taken
    no_more_joins: asyncio.Event = field(default_factory=asyncio.Event)  # set to end the time to join early
    started: asyncio.Event = field(default_factory=asyncio.Event)  # set when bids go to the decoder, or it is over

    @property
    def is_live(self) -> bool:
        return self.phase in (Phase.JOINING, Phase.RUNNING)

    @property
    def document(self) -> dict[str, Any]:
        """What the ledger keeps of it so that it can go on after a crash; it holds the seed, so it is private."""
        seed = {"value": f"{self.seed.value:064x}", "nonce": self.seed.nonce.hex(), "source": self.seed.source}
        request = {**self.request.to_mapping(), "seed": None}
        return {"owner": self.owner, "created_at": self.created_at, "seed": seed, "request": request}

    def tell(self, event: Event) -> asyncio.Future[int]:
        """Publish one of the engine's events at once; the future resolves when it is durable."""
        lines = event.receipt[-1:]
        return self.publish(event.to_mapping(), line=lines[0] if lines else None)

    async def tell_durable(self, event: Event) -> None:
        """As `tell`, but show it when the ledger has it; see `publish_durable`."""
        await self.publish_durable(event.to_mapping(), event.receipt[-1])

    def say(self, kind: str, fields: Mapping[str, Any]) -> asyncio.Future[int]:
        """Publish an event of the house's own at once."""
        return self.publish(self.envelope(kind, fields))

    def envelope(self, kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """An event of the house's own, not yet numbered."""
        event_id, time = self.stamp()
        return {"type": kind, "event_id": event_id, "auction_id": self.auction_id, "time": time, **fields}

    def publish(self, mapping: Mapping[str, Any], line: Mapping[str, Any] | None = None) -> asyncio.Future[int]:
        """Number an event, show it, and queue it for the ledger with its line of the receipt."""
        event = self.numbered(mapping)
        self.show(event)
        return self.record(event, line)

    async def publish_durable(self, mapping: Mapping[str, Any], line: Mapping[str, Any] | None = None) -> None:
        """As `publish`, but show it when the ledger has it; nothing else may be published meanwhile."""
        event = self.numbered(mapping)
        await self.record(event, line)
        self.show(event)

    def show(self, event: Mapping[str, Any]) -> None:
        """Publish a numbered event."""
        if event["type"] == "auction.token":
            self.num_tokens += 1
            self.text += event["text"]
        if event["type"] == "auction.finalized":  # a text that was chosen comes whole
            self.num_tokens, self.text = event["num_tokens"], event["text"]
        if event["type"] == "stream.reset":
            self.resets.append((event["epoch"], event["seq"]))
        self.channel.publish({**event, "durable_seq": self.durable_seq})
        self.journal.telemetry.shown(self, event)

    def numbered(self, mapping: Mapping[str, Any]) -> dict[str, Any]:
        """The event as it goes on the wire, with outcomes; the first and the last say who paid for the text."""
        event = {**self.tally.with_outcomes(mapping, self.left), "seq": self.channel.last_seq + 1, "epoch": self.epoch}
        if event["seq"] == 0 or event["type"] == "auction.settled":
            event["disclosure"] = disclosure(self.agents.values())
        return event

    def record(self, event: Mapping[str, Any], line: Mapping[str, Any] | None = None) -> asyncio.Future[int]:
        """Queue a numbered event for the ledger; nothing is shown."""
        row = dict(event) if line is None else {**event, "line": line}
        charges = {
            agent["id"]: agent["payment_micros"] for agent in event.get("agents", ()) if "payment_micros" in agent
        }
        future = self.journal.append(self.auction_id, self.epoch, event["seq"], row, charges)
        future.add_done_callback(self._note)
        return future

    def _note(self, future: asyncio.Future[int]) -> None:
        if not future.cancelled() and future.exception() is None:
            self.durable_seq = max(self.durable_seq, future.result())

    def nothing_charged(self, code: str) -> dict[str, Any]:
        """What the `auction.settled` of a text that has not begun says."""
        reason = "cancelled" if code == "cancelled" else "error"
        nothing = {"total_micros": 0, "total": "0", "exact_total_micros": 0.0}
        agents = [{"id": agent_id, **nothing} for agent_id in self.agents]
        text = {"num_tokens": 0, "text": "", "voids": [], "currency": self.request.template.currency}
        total = {"total_micros": 0, "total": "0", "receipt_head": None}
        return {"finish_reason": reason, "posted": False, **text, "agents": agents, **total}

    def summary(self) -> dict[str, Any]:
        """What anybody may know of it."""
        return {
            "auction_id": self.auction_id,
            "state": str(self.phase),
            "created_at": self.created_at,
            "query": self.request.template.query,
            "tmax_join_ms": self.request.tmax_join_ms,
            **{name: getattr(self.request.template, name) for name in TERMS},
            "agents": [{"id": agent.id, "name": agent.name} for agent in self.agents.values()],
            "num_tokens": self.num_tokens,
            "text": self.text,
            "last_seq": self.channel.last_seq,
            "durable_seq": self.durable_seq,
            "epoch": self.epoch,
        }
