"""Clearing: one step of a batch of token auctions, whole: aggregate, draw, price. The same values give the same bits.

An auction's numbers do not depend on what else is in the batch: not on other auctions, nor on padding. Payments come in
the weights' unit (currency per token). It knows no model, no budget and no money in micros.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from tokenauction.engine import pricing as prices
from tokenauction.engine.aggregation import aggregate, check, influence, normalised, weight_of_others
from tokenauction.engine.errors import InvalidInput
from tokenauction.engine.guarantees import Pricing, Rule, Sampler, guarantee
from tokenauction.engine.randomness import CoupledRandomness, RaceRandomness
from tokenauction.engine.sampling import NONE, Draw, draw_counterfactual, draw_coupled, draw_race, excess
from tokenauction.engine.summation import sum_padded, sum_tokens


@dataclass(frozen=True)
class Prices:
    """What each agent pays and what that follows from; NaN or -1 where the combination has no such number."""

    payment: Float64[Tensor, "auctions agents"]
    tv: Float64[Tensor, "auctions agents"]  # m_i = TV(p_i, r_i); 0 for a dropped agent
    critical_bid: Float64[Tensor, "auctions agents"]  # linear, or pricing critical_bid; 0 for who need not bid
    counterfactual_token: Int64[Tensor, "auctions agents"]  # linear: the token had i bid less than its critical bid > 0
    log_partition: Float64[Tensor, "auctions agents"]  # log_linear: ln Z at the critical bid > 0
    kl: Float64[Tensor, "auctions agents"]  # pricing kl_clarke: KL(r_i ‖ q) if linear, KL(q ‖ r_i) if log_linear


@dataclass(frozen=True)
class Clearing(Prices, Draw):
    """What one step decided, for every auction and agent: the draw, the prices, and the distributions at the token."""

    aggregate: Float64[Tensor, "auctions vocab"]  # q, which the token was drawn from
    p_token: Float64[Tensor, "auctions agents"]  # p_i(t); 0 for a dropped agent
    r_token: Float64[Tensor, "auctions agents"]  # r_i(t); q(t) for a dropped agent and for one that is alone
    influence: Float64[Tensor, "auctions agents"]  # b_i p_i(t) / Σ_j b_j p_j(t)


def clear(
    distributions: Float[Tensor, "auctions agents vocab"],
    weights: Float64[Tensor, "auctions agents"],
    pays: Bool[Tensor, "auctions agents"],
    randomness: CoupledRandomness | RaceRandomness,
    *,
    rule: Rule = "linear",
    sampler: Sampler = "coupled",
    pricing: Pricing = "critical_bid",
    allow_unsafe: bool = False,
    validate: bool = True,
) -> Clearing:
    """Return the token, the numbers it follows from, and what each agent pays, for a padded batch of auctions.

    Weights are effective bids (0: dropped, absent or padding); `pays` is False for the reference and for padding.
    Raises UnsafeCombination, and InvalidBid, NoWeight, InvalidDistribution or NoCommonSupport naming the auctions at
    fault; `aggregation.faults` tells them apart, so that the rest can be cleared. Without `validate` nothing is checked
    (and under the linear rule nothing waits for an accelerator): what a faulty auction then gets is undefined.
    """
    guarantee(rule, sampler, pricing, allow_unsafe=allow_unsafe)
    distributions = distributions.to(torch.float64)
    if validate:
        check(distributions, weights, rule)
    p = normalised(distributions, weights)
    q, r = aggregate(p, weights, rule)
    if isinstance(randomness, CoupledRandomness) and sampler == "coupled":
        draw = draw_coupled(q, randomness)
    elif isinstance(randomness, RaceRandomness) and sampler == "race":
        draw = draw_race(p, q, weights, rule, randomness)
    else:
        raise InvalidInput(f"sampler {sampler!r} cannot use a {type(randomness).__name__}: make the other kind")
    place = draw.token[:, None, None].expand(*weights.shape, 1)
    p_token, r_token = p.gather(-1, place).squeeze(-1), r.gather(-1, place).squeeze(-1)
    step = _Step(p, q, r, p_token, r_token, weights, weight_of_others(weights), pays & (weights > 0), draw)
    priced = _price(step, rule, pricing, randomness)
    return Clearing(
        **{field.name: getattr(draw, field.name) for field in fields(Draw)},
        **{field.name: getattr(priced, field.name) for field in fields(Prices)},
        aggregate=q,
        p_token=p_token,
        r_token=r_token,
        influence=influence(p_token, weights),
    )


@dataclass(frozen=True)
class _Step:
    """A step that is drawn and not yet priced."""

    p: Float64[Tensor, "auctions agents vocab"]
    q: Float64[Tensor, "auctions vocab"]
    r: Float64[Tensor, "auctions agents vocab"]
    p_token: Float64[Tensor, "auctions agents"]
    r_token: Float64[Tensor, "auctions agents"]
    weights: Float64[Tensor, "auctions agents"]
    others: Float64[Tensor, "auctions agents"]  # B_-i
    pays: Bool[Tensor, "auctions agents"]
    draw: Draw


def _price(step: _Step, rule: Rule, pricing: Pricing, randomness: CoupledRandomness | RaceRandomness) -> Prices:
    """Price a drawn step; every amount is 0 for who does not pay."""
    p, r, weights, others, has_weight = step.p, step.r, step.weights, step.others, step.weights > 0
    critical_bid = log_partition = kl = torch.full_like(weights, torch.nan)
    counterfactual = torch.full_like(step.draw.agent_token, NONE)
    surplus = excess(r, p)
    distance = torch.where(has_weight, sum_tokens(surplus), 0.0)
    if pricing == "critical_bid" or rule == "linear":  # under log_linear a critical bid is not to be had for nothing
        critical_bid, counterfactual, log_partition = _critical(step, rule, surplus, randomness)
    if pricing == "critical_bid":
        payment = critical_bid
    elif pricing == "expected" and rule == "linear":
        payment = prices.expected_linear(distance, weights, others)
    elif pricing == "expected":
        payment = prices.expected_log_linear(p, r, weights, others, step.pays)
    elif pricing == "kl_clarke":
        share = weights / sum_padded(weights).unsqueeze(-1)
        kl = prices.kl_linear(p, step.q, r, share) if rule == "linear" else prices.kl_log_linear(p, r, share)
        kl = torch.where(has_weight, kl, 0.0)
        payment = others * kl
    else:
        payment = weights if pricing == "first_price" else torch.zeros_like(weights)
    payment = torch.where(step.pays, payment, 0.0)
    return Prices(payment, distance, critical_bid, counterfactual, log_partition, kl)


def _critical(
    step: _Step,
    rule: Rule,
    surplus: Float64[Tensor, "auctions agents vocab"],
    randomness: CoupledRandomness | RaceRandomness,
) -> tuple[Float64[Tensor, "auctions agents"], Int64[Tensor, "auctions agents"], Float64[Tensor, "auctions agents"]]:
    """Return critical bids, the tokens below them (linear), and ln Z at them (log_linear)."""
    draw, weights, others = step.draw, step.weights, step.others
    nothing = torch.full_like(weights, torch.nan)
    if isinstance(randomness, RaceRandomness):
        critical_bid = torch.where(step.pays, prices.critical_bid_race(draw, weights), 0.0)
        below = draw.agent_token.gather(-1, draw.runner_up.unsqueeze(-1).clamp(min=0))
        return critical_bid, torch.where(critical_bid > 0, below, NONE), nothing
    if rule == "log_linear":
        critical_bid, log_partition = prices.critical_bid_log_linear(step.p, step.r, draw, weights, others, step.pays)
        return critical_bid, torch.full_like(draw.agent_token, NONE), log_partition
    critical_bid = prices.critical_bid_linear(step.p_token, step.r_token, draw.price_threshold, weights, others)
    critical_bid = torch.where(step.pays, critical_bid, 0.0)
    return critical_bid, draw_counterfactual(surplus, critical_bid, randomness.counterfactual), nothing
