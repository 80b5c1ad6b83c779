"""Aggregation: many agents' distributions and bids become one distribution, and the one there would be without agent i.

    linear       q = Σ_i b_i p_i / B               minimises Σ b_i KL(p_i ‖ q)    [TA] Duetting et al., arXiv 2310.10826
    log_linear   q ∝ Π_i p_i^(b_i/B)               minimises Σ b_i KL(q ‖ p_i)    [TA]
    r_i          the same rule over everybody but i: what would be drawn from had i bid 0

An agent of weight 0 is dropped: its row may hold any finite numbers. An agent alone has no "without": its r_i is set to
q, so that nothing it does counts as a change and it pays 0. This file knows no randomness and no price.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from tokenauction.engine.errors import InvalidBid, InvalidDistribution, NoCommonSupport, NoWeight, TokenAuctionError
from tokenauction.engine.guarantees import Rule
from tokenauction.engine.summation import sum_padded, sum_tokens

SUM_TOLERANCE = 1e-4  # a float32 softmax over 152k tokens is off by less than 1e-5; raw scores are off by far more
MIN_WEIGHT, MAX_WEIGHT = 1e-100, 1e100  # beyond these a ratio of two weights leaves float64

_FAULTS: tuple[tuple[type[TokenAuctionError], str], ...] = (
    (InvalidBid, f"a weight is NaN, infinite or negative, or outside {MIN_WEIGHT:g} to {MAX_WEIGHT:g}; give 0 or more"),
    (NoWeight, "every weight is 0; raise a bid or let a reference take part"),
    (
        InvalidDistribution,
        "an agent's distribution holds NaN, an infinite or a negative number, or does not sum to 1 within "
        f"{SUM_TOLERANCE:g} (it sums to 0 where the policy bans all that the agent allows); pass softmax(logits)",
    ),
    (NoCommonSupport, "no token has positive probability under every agent; configure a floor or use the linear rule"),
)


def faults(
    distributions: Float[Tensor, "auctions agents vocab"], weights: Float64[Tensor, "auctions agents"], rule: Rule
) -> dict[int, TokenAuctionError]:
    """Return the auctions that cannot be cleared, each with its error (InvalidBid, NoWeight, …), without raising it."""
    signs = fault_signs(distributions, weights, rule)
    if not bool(signs.any()):
        return {}
    found = {auction: signs.index(True) for auction, signs in enumerate(signs.T.tolist()) if True in signs}
    return {auction: fault(kind) for auction, kind in found.items()}


def fault(kind: int) -> TokenAuctionError:
    """Return the error of the kind-th of `_FAULTS`, which `fused_clearing.cpp` numbers alike."""
    error, says = _FAULTS[kind]
    return error(says)


def check(
    distributions: Float[Tensor, "auctions agents vocab"], weights: Float64[Tensor, "auctions agents"], rule: Rule
) -> None:
    """Raise the first fault; in a batch of several, its message names every auction that has a fault of that kind."""
    found = faults(distributions, weights, rule)
    if found:
        first = next(iter(found.values()))
        alike = [str(auction) for auction, error in found.items() if type(error) is type(first)]
        raise type(first)(str(first) if len(weights) == 1 else f"auction {', '.join(alike)}: {first}")


def fault_signs(
    distributions: Float[Tensor, "auctions agents vocab"], weights: Float64[Tensor, "auctions agents"], rule: Rule
) -> Bool[Tensor, "kinds auctions"]:
    """Return which auctions show which of `_FAULTS`; stays on the device."""
    total = sum_tokens(distributions.to(torch.float64))
    dropped = weights == 0
    is_distribution = ((total - 1).abs() <= SUM_TOLERANCE) & (distributions.amin(-1) >= 0)
    row_ok = torch.where(dropped, total.abs() < torch.inf, is_distribution)
    weight_ok = dropped | (weights.clamp(MIN_WEIGHT, MAX_WEIGHT) == weights)
    signs = [~weight_ok.all(-1), dropped.all(-1), ~row_ok.all(-1)]
    if rule == "log_linear":
        signs.append(~((distributions > 0) | dropped.unsqueeze(-1)).all(1).any(-1))
    return torch.stack(signs)


def normalised(
    distributions: Float[Tensor, "auctions agents vocab"], weights: Float64[Tensor, "auctions agents"]
) -> Float64[Tensor, "auctions agents vocab"]:
    """Return each weighted row divided by its sum, in float64, and exact zeros in every row of weight 0."""
    p = distributions.to(torch.float64)
    return p / sum_tokens(p).masked_fill_(weights == 0, torch.inf).unsqueeze(-1)


def weight_of_others(weights: Float64[Tensor, "auctions agents"]) -> Float64[Tensor, "auctions agents"]:
    """Return B_-i = Σ_{j≠i} b_j, exact to a few bits also where b_i is nearly all of B."""
    leader, rest = _leader(weights)
    others = sum_padded(weights).unsqueeze(-1) - weights  # harmless wherever b_i <= B/2
    return others.scatter(-1, leader, sum_padded(rest).unsqueeze(-1))


def aggregate(
    p: Float64[Tensor, "auctions agents vocab"], weights: Float64[Tensor, "auctions agents"], rule: Rule
) -> tuple[Float64[Tensor, "auctions vocab"], Float64[Tensor, "auctions agents vocab"]]:
    """Return q and, for every agent at once, r_i; `p` as `normalised` leaves it, at least one weight positive."""
    if rule == "linear":
        return _weighted_means(p, weights)
    zero = p == 0
    log_q, log_r = _weighted_means(p.log().masked_fill_(zero, 0.0), weights)
    vetoes = zero & (weights > 0).unsqueeze(-1)  # kept apart from the sums: -inf minus -inf is no number
    num_vetoes = vetoes.sum(1)
    alone = (weight_of_others(weights) == 0).unsqueeze(-1)
    log_q.masked_fill_(num_vetoes > 0, -torch.inf)
    log_r.masked_fill_(num_vetoes.unsqueeze(1) > (vetoes & ~alone), -torch.inf)
    return log_q.softmax(-1), log_r.softmax(-1)


def influence(
    p_token: Float64[Tensor, "auctions agents"], weights: Float64[Tensor, "auctions agents"]
) -> Float64[Tensor, "auctions agents"]:
    """Return each agent's share b_i p_i(t) / Σ_j b_j p_j(t) of the weighted probability put on the drawn token.

    Under the linear rule it is the posterior probability that agent i "wrote" the token, and it equals
    λ_i + ∂ ln q(t)/∂ ln b_i. Under log_linear it is the same share, as a description: no decomposition is claimed.
    """
    share = weights / weights.amax(-1, keepdim=True) * p_token
    return share / sum_padded(share).unsqueeze(-1)


def _leader(
    weights: Float64[Tensor, "auctions agents"],
) -> tuple[Int64[Tensor, "auctions 1"], Float64[Tensor, "auctions agents"]]:
    """Return the place of each auction's largest weight, and the weights with that one set to 0."""
    leader = weights.argmax(-1, keepdim=True)
    return leader, weights.scatter(-1, leader, 0.0)


def _weighted_means(
    x: Float64[Tensor, "auctions agents vocab"], weights: Float64[Tensor, "auctions agents"]
) -> tuple[Float64[Tensor, "auctions vocab"], Float64[Tensor, "auctions agents vocab"]]:
    """Return Σ b_j x_j / B, and Σ_{j≠i} b_j x_j / B_-i for every i, without catastrophic cancellation.

    Only the agent of the largest weight can hold more than half of B. Its leave-one-out mean is summed without it; for
    everybody else, taking the own part back out of the sum at most doubles the rounding error, and where no x is
    negative the difference is not either: a rounded sum is never below one of its terms.
    """
    leader, rest = _leader(weights)
    lead_weight, rest_weight = weights.gather(-1, leader), sum_padded(rest).unsqueeze(-1)
    alone = rest_weight == 0
    unit = torch.where(alone, lead_weight, rest_weight)  # sums are kept in units of the rest's weight
    own = x * (rest / unit).unsqueeze(-1)
    without_leader = own.sum(1)
    at_leader = torch.arange(len(x), device=x.device), leader.squeeze(-1)
    x_lead = x[at_leader]
    total = x_lead * (lead_weight / unit) + without_leader
    others = torch.sub(total.unsqueeze(1), own, out=own)
    others *= (unit / torch.where(alone, unit, weight_of_others(weights))).unsqueeze(-1)
    others[at_leader] = torch.where(alone, x_lead, without_leader)
    return total * (unit / sum_padded(weights).unsqueeze(-1)), others
