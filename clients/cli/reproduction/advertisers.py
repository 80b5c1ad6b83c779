"""Each advertiser's gain in utility beside its gain in reward, auction by auction: does it get what it brings?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tokenauction.clients.cli.reproduction.drawn import DrawnQuery
from tokenauction.clients.cli.reproduction.outcomes import Levels, Outcomes
from tokenauction.clients.cli.reproduction.statistics import Estimate, Figure, interval

NUM_BINS: Final = 8

Points = list[list[float]]  # [query][auction × advertiser]


@dataclass(frozen=True)
class Advertisers:
    """Gains of every advertiser in every auction of `num_candidates`, in nats."""

    num_candidates: int
    reward_gain: Points  # E_π[r_i] beyond the reference, reweighted exactly
    utility: Points  # U_i beyond the same, with the offset
    utility_without_offset: Points
    own_reward_gain: Points  # E_π[r_i] beyond what the market without i gives it
    own_utility: Points  # U_i beyond the same

    @classmethod
    def of(cls, queries: Sequence[DrawnQuery], proposal: str, num_candidates: int) -> Advertisers:
        """Every advertiser of every auction of one proposal."""
        points: list[Points] = [[], [], [], [], []]
        for query in queries:
            outcomes = Outcomes.of(query.proposals[proposal], num_candidates)
            level = Levels.of(query.proposals["reference"]).exact
            gains = (
                outcomes.reward - level,
                outcomes.utility - level,
                outcomes.utility_without_offset - level,
                outcomes.reward - outcomes.reward_without,
                outcomes.utility - outcomes.reward_without,
            )
            for kind, gain in zip(points, gains, strict=True):
                kind.append(gain.flatten().tolist())
        return cls(num_candidates, *points)

    def with_offset(self, figure: Figure) -> Estimate:
        """A figure of utility against reward gain."""
        return interval(self.reward_gain, self.utility, figure)

    def without_offset(self, figure: Figure) -> Estimate:
        """The same when the offset is not charged back."""
        return interval(self.reward_gain, self.utility_without_offset, figure)

    def own(self, figure: Figure, *, is_large: bool | None = None) -> Estimate:
        """A figure of the gains that i's own wants make: of all, or of the smaller or larger half of reward gains."""
        x, y = self.own_reward_gain, self.own_utility
        if is_large is None:
            return interval(x, y, figure)
        sizes = np.concatenate([np.asarray(row) for row in x])
        is_kept = (np.argsort(np.argsort(sizes, kind="stable")) >= len(sizes) / 2) == is_large
        ends = np.cumsum([len(row) for row in x])[:-1]
        kept_x, kept_y = (
            [np.asarray(row)[mask].tolist() for row, mask in zip(axis, np.split(is_kept, ends), strict=True)]
            for axis in (x, y)
        )
        return interval(kept_x, kept_y, figure)

    def bins(self) -> list[tuple[float, float]]:
        """Mean own reward gain and mean own utility gain of each of NUM_BINS equally full ranges of reward gains."""
        x, y = (np.concatenate([np.asarray(row) for row in axis]) for axis in (self.own_reward_gain, self.own_utility))
        parts = np.array_split(np.argsort(x, kind="stable"), NUM_BINS)
        return [(float(x[part].mean()), float(y[part].mean())) for part in parts if len(part)]
