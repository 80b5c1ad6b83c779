"""One auction in the decoder: its state, its prompts and rows in the model, its record, and what it waits for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tokenauction.engine.auction import Auction
from tokenauction.engine.errors import InvalidInput
from tokenauction.engine.policy import Policy
from tokenauction.engine.recorder import Recorder
from tokenauction.engine.report import Report
from tokenauction.models.base import Gang, TextStream


@dataclass(eq=False)
class Awaited:
    """A step that agents with models of their own are to speak on, while the platform's model computes its rows."""

    reports: Mapping[str, Report] | None = None  # what came, by agent; None as long as it may come
    logits: Float[Tensor, "hosted vocab"] | None = None  # of the hosted rows, once they are computed
    gang: Gang | None = None  # by which they were computed; another one computes them anew


@dataclass(eq=False)
class Performance:
    """One auction in the decoder: its prompts, its rows in the model, its record."""

    auction: Auction
    prompts: list[list[int]]
    policy: Policy
    recorder: Recorder
    stream: TextStream
    is_elsewhere: bool = False  # its steps are the device loop's, from the second token on
    gang: Gang | None = None
    is_created: bool = False
    is_cancelled: bool = False
    awaited: Awaited | None = None
    is_paced: bool = False  # it rests behind every token until it is woken
    is_resting: bool = False

    @property
    def is_held(self) -> bool:
        """Whether its next token waits, for what others say or for the end of a rest, which cancelling ends too."""
        return self._is_computed or (self.is_resting and not self.is_cancelled)

    @property
    def is_told(self) -> bool:
        """Whether others have said what it waits for, and nothing else is missing."""
        return self._is_computed and self.awaited is not None and self.awaited.reports is not None

    @property
    def _is_computed(self) -> bool:
        """Whether its next token is drawn as soon as others have said what they want."""
        return self.awaited is not None and self.awaited.logits is not None and self.awaited.gang is self.gang

    def supply(self, step: int, reports: Mapping[str, Report], num_tokens: int) -> None:
        """Take in what agents with models of their own say of a step; `num_tokens` is the tokenizer's vocabulary.

        Raises InvalidInput where no such step is open, and InvalidDistribution for a report that is none; then the
        step stays open.
        """
        awaited, spec, name = self.awaited, self.auction.spec, self.auction.auction_id
        if awaited is None or awaited.reports is not None or self.auction.num_tokens != step:
            raise InvalidInput(f"step {step} of {name!r} awaits nothing")
        strangers = set(reports) - spec.own_model_ids
        if strangers:
            raise InvalidInput(f"{min(strangers)!r} is no agent of {name!r} with a model of its own")
        for report in reports.values():
            report.check(num_tokens)
        awaited.reports = dict(reports)

    def wake(self) -> None:
        """Let the next token come."""
        self.is_resting = False

    def hurry(self) -> None:
        """Rest no more."""
        self.is_paced = self.is_resting = False

    @property
    def token_ids(self) -> Sequence[int]:
        return self.auction.token_ids

    @property
    def num_tokens_left(self) -> int:
        return self.auction.spec.max_tokens - self.auction.num_tokens
