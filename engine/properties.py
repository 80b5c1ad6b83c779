"""Axioms of a token auction as plain functions: each looks for a counterexample and returns a verdict with its witness.

They take one auction (distributions [agents, vocab], bids [agents]) and run the mechanism at many bids as one batch. A
verdict that an axiom holds means: no counterexample among the bids tried, up to `TOLERANCE`. Which axiom is promised
for which rule, sampler and pricing is in `guarantees`; this file knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from tokenauction.engine.aggregation import aggregate, normalised
from tokenauction.engine.clearing import Clearing, clear
from tokenauction.engine.guarantees import Pricing, Rule
from tokenauction.engine.randomness import CoupledRandomness, RaceRandomness

TOLERANCE = 1e-9  # of probabilities; of money, relative to the largest bid tried

Divergence = Callable[[Tensor, Tensor], Tensor]  # (q [bids, vocab], p [vocab]) -> [bids]


@dataclass(frozen=True)
class Verdict:
    """Whether an axiom held in every case tried; if not, the first case in which it did not."""

    holds: bool
    witness: str = ""

    def __bool__(self) -> bool:
        return self.holds


def tv(q: Float64[Tensor, "bids vocab"], p: Float64[Tensor, " vocab"]) -> Float64[Tensor, " bids"]:
    """Return the total variation ½ ‖q - p‖₁."""
    return (q - p).abs().sum(-1) / 2


def kl_to_p(q: Float64[Tensor, "bids vocab"], p: Float64[Tensor, " vocab"]) -> Float64[Tensor, " bids"]:
    """Return KL(q ‖ p), infinite where q has mass that p has not."""
    return torch.where(q > 0, q * (q.log() - p.log()), 0.0).sum(-1)


def kl_from_p(q: Float64[Tensor, "bids vocab"], p: Float64[Tensor, " vocab"]) -> Float64[Tensor, " bids"]:
    """Return KL(p ‖ q), infinite where p has mass that q has not."""
    return torch.where(p > 0, p * (p.log() - q.log()), 0.0).sum(-1)


def hellinger(q: Float64[Tensor, "bids vocab"], p: Float64[Tensor, " vocab"]) -> Float64[Tensor, " bids"]:
    """Return the squared Hellinger distance 1 - Σ √(qp)."""
    return 1 - (q * p).sqrt().sum(-1)


DIVERGENCES: Mapping[str, Divergence] = MappingProxyType(
    {"tv": tv, "kl_to_p": kl_to_p, "kl_from_p": kl_from_p, "hellinger": hellinger}
)


def aggregates(
    rule: Rule, distributions: Float64[Tensor, "agents vocab"], bids: Float64[Tensor, "bids agents"]
) -> Float64[Tensor, "bids vocab"]:
    """Return q for every row of bids."""
    return aggregate(normalised(distributions.expand(len(bids), -1, -1), bids), bids, rule)[0]


def priced(
    rule: Rule, pricing: Pricing, distributions: Float64[Tensor, "agents vocab"], bids: Float64[Tensor, "bids agents"]
) -> Clearing:
    """Clear every row of bids under a pricing that does not look at the draw (any but critical_bid)."""
    assert pricing != "critical_bid", "a critical bid depends on the draw"
    still = CoupledRandomness(torch.zeros_like(bids[:, 0]), torch.zeros_like(bids[:, 0]), torch.zeros_like(bids))
    pays = torch.ones_like(bids, dtype=torch.bool)
    return clear(distributions.expand(len(bids), -1, -1), bids, pays, still, rule=rule, pricing=pricing)


def at_bids(
    bids: Float64[Tensor, " agents"], agent: int, grid: Float64[Tensor, " bids"]
) -> Float64[Tensor, "bids agents"]:
    """Return the others' bids with each of the grid's in turn for one agent."""
    rows = bids.repeat(len(grid), 1)
    rows[:, agent] = grid
    return rows


def monotone_robust(
    rule: Rule,
    distributions: Float64[Tensor, "agents vocab"],
    bids: Float64[Tensor, " agents"],
    agent: int,
    grid: Float64[Tensor, " bids"],
) -> Verdict:
    """At every token, a higher bid (the grid ascends) moves q towards p_i and not past it: robust preferences [TA]."""
    q, p = aggregates(rule, distributions, at_bids(bids, agent, grid)), distributions[agent]
    before, after = q[:-1], q[1:]
    outside = (before.minimum(p) - after).maximum(after - before.maximum(p))
    if not bool((outside > TOLERANCE).any()):
        return Verdict(True)
    step, token = (int(x) for x in (outside > TOLERANCE).nonzero()[0])
    values = f"{float(before[step, token]):.4g} -> {float(after[step, token]):.4g}, p = {float(p[token]):.4g}"
    return Verdict(False, f"bid {float(grid[step]):g} -> {float(grid[step + 1]):g}: token {token} goes {values}")


def monotone_divergence(
    rule: Rule,
    distributions: Float64[Tensor, "agents vocab"],
    bids: Float64[Tensor, " agents"],
    agent: int,
    grid: Float64[Tensor, " bids"],
    divergence: Divergence,
) -> Verdict:
    """A higher bid (the grid ascends) takes q no further from p_i in an f-divergence. Derived: true of both rules."""
    loss = divergence(aggregates(rule, distributions, at_bids(bids, agent, grid)), distributions[agent])
    worse = loss[1:] > loss[:-1] + TOLERANCE
    if not bool(worse.any()):
        return Verdict(True)
    step = int(worse.nonzero()[0])
    values = f"{float(loss[step]):.6g} -> {float(loss[step + 1]):.6g}"
    return Verdict(False, f"bid {float(grid[step]):g} -> {float(grid[step + 1]):g}: divergence {values}")


def truthful(
    rule: Rule,
    pricing: Pricing,
    distributions: Float64[Tensor, "agents vocab"],
    bids: Float64[Tensor, " agents"],
    agent: int,
    grid: Float64[Tensor, " bids"],
    divergence: Divergence,
) -> Verdict:
    """No bid of the grid beats bidding v = bids[agent] for the utility -v·D(q, p_i) - payment."""
    value = bids[agent]
    tried = torch.cat([value.unsqueeze(0), grid])
    cleared = priced(rule, pricing, distributions, at_bids(bids, agent, tried))
    utility = -value * divergence(cleared.aggregate, distributions[agent]) - cleared.payment[:, agent]
    return _best_is_first(tried, utility)


def individually_rational(
    rule: Rule,
    pricing: Pricing,
    distributions: Float64[Tensor, "agents vocab"],
    bids: Float64[Tensor, " agents"],
    agent: int,
    divergence: Divergence,
) -> Verdict:
    """Taking part with the true value is never worse than bidding 0."""
    return truthful(rule, pricing, distributions, bids, agent, torch.zeros_like(bids[:1]), divergence)


def truthful_switch(
    distributions: Float64[Tensor, "agents vocab"],
    bids: Float64[Tensor, " agents"],
    agent: int,
    grid: Float64[Tensor, " bids"],
    randomness: RaceRandomness,
) -> Verdict:
    """For one seed of the race: no bid beats v = bids[agent] for an agent worth v if the token is Y_i and not Y_-i."""
    tried = torch.cat([bids[agent].unsqueeze(0), grid])
    token, payment, own, without = race_path(distributions, bids, agent, tried, randomness)
    won = (token == own) & (own != without)
    return _best_is_first(tried, bids[agent] * won - payment)


def single_threshold(
    distributions: Float64[Tensor, "agents vocab"],
    bids: Float64[Tensor, " agents"],
    agent: int,
    grid: Float64[Tensor, " bids"],
    randomness: RaceRandomness,
) -> Verdict:
    """For one seed of the race, run again at each bid of the ascending grid: Y_-i up to one bid, Y_i from there on."""
    token, _, own, without = race_path(distributions, bids, agent, grid, randomness)
    switched = token == own
    strange = (~switched & (token != without)) | ((own != without) & (switched.cummax(0).values & ~switched))
    if not bool(strange.any()):
        return Verdict(True)
    step = int(strange.nonzero()[0])
    return Verdict(False, f"bid {float(grid[step]):g} draws token {int(token[step])}; own {own}, without {without}")


def race_path(
    distributions: Float64[Tensor, "agents vocab"],
    bids: Float64[Tensor, " agents"],
    agent: int,
    grid: Float64[Tensor, " bids"],
    randomness: RaceRandomness,
) -> tuple[Int64[Tensor, " bids"], Float64[Tensor, " bids"], int, int]:
    """Run one seed of the race at every bid: the tokens, the agent's payments, its own token Y_i, and Y_-i at bid 0."""
    rows = at_bids(bids, agent, torch.cat([grid, torch.zeros_like(grid[:1])]))
    clocks = RaceRandomness(randomness.agent_clock.expand(len(rows), -1), randomness.token_clock.expand(len(rows), -1))
    pays = torch.ones_like(rows, dtype=torch.bool)
    cleared = clear(distributions.expand(len(rows), -1, -1), rows, pays, clocks, sampler="race")
    own = int(cleared.agent_token[:, agent].max())  # -1 where the bid is 0
    return cleared.token[:-1], cleared.payment[:-1, agent], own, int(cleared.token[-1])


def payment_at_most_bid(cleared: Clearing, bids: Float64[Tensor, "auctions agents"]) -> Verdict:
    """Nobody pays more than the bid, exactly."""
    return _nowhere(cleared.payment > bids, "auction {} agent {}: the payment exceeds the bid")


def permutation_invariant(
    rule: Rule,
    pricing: Pricing,
    distributions: Float64[Tensor, "agents vocab"],
    bids: Float64[Tensor, " agents"],
    order: Int64[Tensor, " agents"],
) -> Verdict:
    """Listing the agents in another order changes neither q nor what each of them pays."""
    a = priced(rule, pricing, distributions, bids.unsqueeze(0))
    b = priced(rule, pricing, distributions[order], bids[order].unsqueeze(0))
    return _same(a.aggregate, b.aggregate, a.payment[:, order] / bids.max(), b.payment / bids.max())


def scale_invariant(
    rule: Rule,
    pricing: Pricing,
    distributions: Float64[Tensor, "agents vocab"],
    bids: Float64[Tensor, " agents"],
    factor: float,
) -> Verdict:
    """Another currency: all bids times a factor leave q as it is and multiply every payment."""
    a = priced(rule, pricing, distributions, bids.unsqueeze(0))
    b = priced(rule, pricing, distributions, (bids * factor).unsqueeze(0))
    return _same(a.aggregate, b.aggregate, a.payment / bids.max(), b.payment / (bids.max() * factor))


def splitting_neutral(
    rule: Rule,
    distributions: Float64[Tensor, "agents vocab"],
    bids: Float64[Tensor, " agents"],
    agent: int,
    share: float,
) -> Verdict:
    """Dividing a bid between two agents of one distribution leaves q as it was (payments do fall: see LIMITS)."""
    both = torch.cat([distributions, distributions[agent : agent + 1]])
    divided = torch.cat([bids, bids[agent : agent + 1] * share])
    divided[agent] *= 1 - share
    a, b = aggregates(rule, distributions, bids.unsqueeze(0)), aggregates(rule, both, divided.unsqueeze(0))
    return _same(a, b, torch.zeros_like(a), torch.zeros_like(b))


def _best_is_first(tried: Float64[Tensor, " bids"], utility: Float64[Tensor, " bids"]) -> Verdict:
    gain = utility - utility[0]
    best = int(gain.nan_to_num(nan=-torch.inf).argmax())
    if float(gain[best]) <= TOLERANCE * float(tried.max()):
        return Verdict(True)
    bids = f"bidding {float(tried[best]):g} instead of {float(tried[0]):g}"
    return Verdict(False, f"{bids} gains {float(gain[best]):.3g}")


def _same(q_a: Tensor, q_b: Tensor, payment_a: Tensor, payment_b: Tensor) -> Verdict:
    verdict = _nowhere((q_a - q_b).abs() > TOLERANCE, "auction {} token {}: q changes")
    return verdict and _nowhere((payment_a - payment_b).abs() > TOLERANCE, "auction {} agent {}: the payment changes")


def _nowhere(bad: Tensor, witness: str) -> Verdict:
    if not bool(bad.any()):
        return Verdict(True)
    return Verdict(False, witness.format(*bad.nonzero()[0].tolist()))
