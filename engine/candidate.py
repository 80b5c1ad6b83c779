"""One candidate text of a softmax auction: what it says, and with which probability it was written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenauction.engine.auction import Bids, Charges, State
from tokenauction.engine.events import Event
from tokenauction.engine.outcome import StepOutcome
from tokenauction.engine.receipt import Line
from tokenauction.engine.recorder import Recorder
from tokenauction.engine.report import Report


@dataclass(frozen=True)
class Candidate:
    """A text that is complete, and the draws that made it."""

    index: int
    token_ids: tuple[int, ...]
    text: str
    finish_reason: str
    q: tuple[float, ...]  # probability of every token under the law that it was drawn from
    cdf_below: tuple[float, ...]  # and of the ids below it

    @property
    def log_proposal(self) -> float:
        """ln π_gen, of the law that was really sampled."""
        return math.fsum(map(math.log, self.q))

    @classmethod
    def from_line(cls, line: Line) -> Candidate:
        """Read a candidate's line of a receipt."""
        return cls(
            line["index"],
            tuple(line["token_ids"]),
            line["text"],
            line["finish_reason"],
            tuple(line["q"]),
            tuple(line["cdf_below"]),
        )

    def to_mapping(self) -> dict[str, Any]:
        """As it stands on the receipt."""
        return {
            "index": self.index,
            "token_ids": list(self.token_ids),
            "text": self.text,
            "finish_reason": self.finish_reason,
            "q": list(self.q),
            "cdf_below": list(self.cdf_below),
            "log_proposal": self.log_proposal,
        }


@dataclass
class CandidateRecorder(Recorder):
    """Keeps the draws of one candidate; its events are for the auction that it is a candidate of, and no stream's."""

    index: int = 0
    q: list[float] = field(default_factory=list)
    cdf_below: list[float] = field(default_factory=list)

    def candidate(self) -> Candidate:
        """The text, once it is complete."""
        auction = self.auction
        assert auction.state == State.SETTLED and auction.finish_reason, "a candidate is read when it is complete"
        ids = tuple(auction.token_ids)
        return Candidate(self.index, ids, auction.text, auction.finish_reason, tuple(self.q), tuple(self.cdf_below))

    def created(self) -> Event:
        return self._event("candidate.created", {}, is_counted=False)

    def token(
        self,
        step: int,
        outcome: StepOutcome,
        bids: Bids,
        charges: Charges,
        text: str,
        key: bytes,
        latency_ms: float,
        reports: Mapping[str, Report],
    ) -> Event:
        assert outcome.cdf_below is not None, "candidates are drawn by the coupled sampler"
        self.q.append(outcome.q)
        self.cdf_below.append(outcome.cdf_below)
        return self._event("candidate.token", {}, is_counted=False)

    def settled(self) -> Event:
        return self._event("candidate.settled", {}, is_counted=False)

    def error(self, code: str, message: str) -> Event:
        return self._event("candidate.error", {"code": code, "message": message}, is_counted=False)
