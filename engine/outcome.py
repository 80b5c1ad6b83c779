"""What one step decided for one auction, as plain numbers on the host; columns in the order of the spec's rows."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class StepOutcome:
    """One auction's share of a clearing. Amounts are micros; a reference, if any, is the last row and owes nothing."""

    token: int
    q: float  # probability of the token under the aggregate
    cdf_below: float | None  # coupled: probability of the ids below the token
    p: tuple[float, ...]  # of the token, under every row's own distribution
    r: tuple[float, ...]  # of the token, under the aggregate without that row
    tv: tuple[float, ...]  # distance of a row's distribution from the aggregate without it
    influence: tuple[float, ...]
    critical_bids: tuple[float | None, ...]  # linear, or pricing critical_bid
    owed: tuple[float, ...]  # payments before clipping to a budget
    counterfactual_tokens: tuple[int | None, ...]  # what would have come had the row not bid; None: the same token
    log_partitions: tuple[float | None, ...]  # log_linear: at the critical bid
    divergences: tuple[float | None, ...]  # what an expected or KL-Clarke payment follows from
    own_tokens: tuple[int | None, ...]  # race: the token each row would have drawn by itself
    distributions: Tensor | None = None  # [rows, vocab], on the device; None where a step leaves none behind
    aggregate: Tensor | None = None  # [vocab], on the device; likewise
