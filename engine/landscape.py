"""What an agent would spend, and weigh, at every bid of its own along a text that was written: from recorded numbers.

At each token the text so far, the others' bids and everybody's distribution are what they were; the agent's bid z is
another one. Under the linear rule the mean of its critical bid over the draw is TV(p_i, r_i)·f(z, B_-i), whatever the
vocabulary, so a record of TV and B_-i gives spending exactly. It is the mean over draws at each prefix of this text: at
another bid another text would have been written. Derived, see docs/mechanism.md. It must not know how it is recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenauction.engine.arithmetic import interval_weight
from tokenauction.engine.spec import AuctionSpec


@dataclass(frozen=True)
class Stake:
    """One token as one agent's bid moves it; amounts in micros."""

    others: float  # B_-i, the sum of all other weights
    probability: float  # p_i(t)
    others_mass: float  # Σ_{j≠i} b_j p_j(t)
    tv: float  # TV(p_i, r_i)


@dataclass(frozen=True)
class Point:
    """One bid, in micros per token (softmax auction: value, in micros per nat), and what it comes to."""

    bid_micros: int
    spend_micros: float  # over the whole text, without regard to a budget
    influence: float  # mean share of the tokens' probability: z p_i(t) / (z p_i(t) + Σ_{j≠i} b_j p_j(t))


def why_not_exact(spec: AuctionSpec) -> str:
    """Why spending at other bids does not follow from what every auction records; empty where it does."""
    if spec.finalizer is not None:
        return "a softmax auction asks for values per nat, not for bids per token"  # see value_landscape.py
    combination = f"{spec.rule}/{spec.sampler}/{spec.pricing}"
    if spec.pricing in ("first_price", "free"):
        return ""
    if spec.rule != "linear" or spec.pricing == "kl_clarke":
        return f"under {combination} spending at another bid follows from whole distributions, which are not on record"
    if spec.sampler == "race" and spec.pricing == "critical_bid":
        return (
            f"under {combination} it takes the chance that the others had drawn another token, which is not on record"
        )
    return ""


def landscape(spec: AuctionSpec, stakes: Sequence[Stake], bids: Sequence[int]) -> list[Point]:
    """Return spending and influence at each bid; `stakes` has one entry for each token that the agent took part in.

    Raises ValueError where `why_not_exact` says something.
    """
    reason = why_not_exact(spec)
    if reason:
        raise ValueError(reason)
    return [Point(bid, sum(_spend(spec, stake, bid) for stake in stakes), _influence(stakes, bid)) for bid in bids]


def _spend(spec: AuctionSpec, stake: Stake, bid: int) -> float:
    """The mean payment for one token."""
    if spec.pricing == "free":
        return 0.0
    if spec.pricing == "first_price":
        return float(bid)
    return stake.tv * interval_weight(float(bid), stake.others)


def _influence(stakes: Sequence[Stake], bid: int) -> float:
    shares = [
        bid * stake.probability / (bid * stake.probability + stake.others_mass)
        for stake in stakes
        if bid * stake.probability > 0
    ]
    return sum(shares) / len(stakes) if stakes else 0.0
