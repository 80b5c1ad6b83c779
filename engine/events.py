"""Events: what an auction tells the world, in one envelope that is ready for the wire.

    auction.created   the spec, the guarantee, the seed's commitment, model and numerics
    auction.token     one token: its text, and per agent its influence, critical bid, payment and running total
    auction.settled   the whole text, the totals, the seed, the head of the receipt
    step.awaited      the next token waits for agents with models of their own: for whoever collects what they send,
                      outside of the stream and its numbers
    error             what went wrong, with a stable code; the auction settles as "error" and charges nothing

`seq` is dense per auction and starts at 0. Totals are cumulative, so a lost event corrupts nothing. Two runs of one
seed differ only in `event_id`, `auction_id`, `time` and `latency_ms`. Amounts are integer micros except where a field's
name says `exact`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Event:
    """One event; `fields` is what its type adds to the envelope."""

    type: str
    auction_id: str
    seq: int
    event_id: str
    time: float  # seconds since 1970-01-01 UTC
    fields: dict[str, Any] = field(default_factory=dict)
    # Not on the wire: what a researcher iterating over events may look at, on the model's device.
    distributions: Tensor | None = None  # [rows, vocab]: every row's own distribution, shaped; rows as in the spec
    aggregate: Tensor | None = None  # [vocab]: what the token was drawn from
    receipt: Sequence[Mapping[str, Any]] = ()  # the line that came with it; with auction.settled every line

    def to_mapping(self) -> dict[str, Any]:
        """The event as it goes on the wire."""
        envelope = {"type": self.type, "event_id": self.event_id, "auction_id": self.auction_id}
        return {**envelope, "seq": self.seq, "time": self.time, **self.fields}
