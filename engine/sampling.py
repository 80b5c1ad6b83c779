"""Sampling: how a step's random numbers choose the token; it knows no bid but as a weight, and no payment.

    coupled   the token by inverse CDF of q; a price threshold v = u·q(t); each agent's counterfactual token
    race      agents race with clocks E_j/b_j; the winner's own token, all agents sharing the tokens' clocks, is drawn

Both draw from q exactly. The coupled sampler is for one realised draw; an inverse CDF run again with another bid is not
an agent's path (it switches more than once in about 30 % of seeds). The race is one function of the seed for all bids.
Derived, see docs/mechanism.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.nn.functional import pad

from tokenauction.engine.guarantees import Rule
from tokenauction.engine.randomness import CoupledRandomness, RaceRandomness
from tokenauction.engine.summation import BLOCK, sum_blocks

NONE = -1  # no token, no agent


@dataclass(frozen=True)
class Draw:
    """One token for each auction, and what its price will follow from; NaN or -1 where the sampler has none."""

    token: Int64[Tensor, " auctions"]
    q_token: Float64[Tensor, " auctions"]
    cdf_below: Float64[Tensor, " auctions"]  # coupled: Σ q over the ids below the token
    price_threshold: Float64[Tensor, " auctions"]  # coupled: v = u·q(t)
    winner: Int64[Tensor, " auctions"]  # race: the agent whose clock E_j/b_j rings first
    runner_up: Int64[Tensor, " auctions"]  # race: the second; -1 if nobody else has weight
    race_threshold: Float64[Tensor, " auctions"]  # race: the winner's θ = E_J · max_{j≠J} b_j/E_j, in the weights' unit
    agent_token: Int64[Tensor, "auctions agents"]  # race: every agent's own token; -1 without weight


def draw_coupled(q: Float64[Tensor, "auctions vocab"], randomness: CoupledRandomness) -> Draw:
    """Draw the token t with cdf_below <= u < cdf_below + q(t), and the price threshold v = u'·q(t)."""
    token, below, _ = inverse_cdf(q, randomness.token)
    q_token = q.gather(-1, token.unsqueeze(-1)).squeeze(-1)
    nobody, nothing = torch.full_like(token, NONE), torch.full_like(q_token, torch.nan)
    agent_token = torch.full_like(randomness.counterfactual, NONE, dtype=torch.int64)
    return Draw(token, q_token, below, randomness.price * q_token, nobody, nobody, nothing, agent_token)


def draw_race(
    p: Float64[Tensor, "auctions agents vocab"],
    q: Float64[Tensor, "auctions vocab"],
    weights: Float64[Tensor, "auctions agents"],
    rule: Rule,
    randomness: RaceRandomness,
) -> Draw:
    """Draw Y_J, where J = argmin_j E_j/b_j and Y_j = argmin_t X_t/p_j(t) with clocks E and X that are Exp(1).

    Y_j is argmax_t ln p_j(t) + G_t with the Gumbel noise G = -ln X shared by all agents; the law of Y_J is linear q.
    Under log_linear (unsafe, no thresholds) the token's clocks race over q itself: argmin_t X_t/q(t).
    """
    agent_token = (randomness.token_clock.unsqueeze(1) / p).argmin(-1)  # x/0 = inf: never a token of probability 0
    agent_token = torch.where(weights > 0, agent_token, NONE)
    speed = weights / randomness.agent_clock
    winner = speed.argmax(-1, keepdim=True)
    chasing = speed.scatter(-1, winner, 0.0)
    runner_up = chasing.argmax(-1, keepdim=True)
    second = chasing.gather(-1, runner_up)
    threshold = (randomness.agent_clock.gather(-1, winner) * second).minimum(weights.gather(-1, winner))
    runner_up = torch.where(second > 0, runner_up, NONE)
    token = agent_token.gather(-1, winner)
    if rule == "log_linear":
        token = (randomness.token_clock / q).argmin(-1, keepdim=True)
        winner, runner_up = torch.full_like(winner, NONE), torch.full_like(runner_up, NONE)
        threshold, agent_token = torch.full_like(threshold, torch.nan), torch.full_like(agent_token, NONE)
    columns = (x.squeeze(-1) for x in (token, q.gather(-1, token), winner, runner_up, threshold))
    token, q_token, winner, runner_up, threshold = columns
    nothing = torch.full_like(q_token, torch.nan)
    return Draw(token, q_token, nothing, nothing, winner, runner_up, threshold, agent_token)


def excess(
    r: Float64[Tensor, "auctions agents vocab"], p: Float64[Tensor, "auctions agents vocab"]
) -> Float64[Tensor, "auctions agents vocab"]:
    """Return (r_i - p_i)^+, whose sum is m_i = TV(p_i, r_i): normalised, the law of i's counterfactual token X_i."""
    return (r - p).clamp_(min=0)


def draw_counterfactual(
    surplus: Float64[Tensor, "auctions agents vocab"],
    critical_bid: Float64[Tensor, "auctions agents"],
    uniforms: Float64[Tensor, "auctions agents"],
) -> Int64[Tensor, "auctions agents"]:
    """Draw X_i from `excess`: the token, had i bid below its critical bid; -1 where that is 0."""
    token, _, distance = inverse_cdf(surplus, uniforms)
    return torch.where((critical_bid > 0) & (distance > 0), token, NONE)


def token_at(
    bid: Float64[Tensor, "*shape"],
    token: Int64[Tensor, "*shape"],
    critical_bid: Float64[Tensor, "*shape"],
    counterfactual_token: Int64[Tensor, "*shape"],
) -> Int64[Tensor, "*shape"]:
    """Return the token on agent i's path at a bid z <= b_i, given the realised draw: t from z_i on, X_i below.

    Two tokens and one threshold; over the draw, its law is q(z, b_-i) at every z. Linear rule, coupled sampler.
    """
    return torch.where(bid >= critical_bid, token, counterfactual_token)


def inverse_cdf(
    mass: Float64[Tensor, "*rows vocab"], uniforms: Float64[Tensor, "*rows"]
) -> tuple[Int64[Tensor, "*rows"], Float64[Tensor, "*rows"], Float64[Tensor, "*rows"]]:
    """Return the first place where the running sum of `mass` exceeds u·(its total), the mass below it, and the total.

    A place of mass 0 is never returned unless the whole row is 0. Sums run over blocks first, then inside one block.
    """
    ends = sum_blocks(mass).cumsum(-1)
    total, vocab_size = ends[..., -1:], mass.shape[-1]
    target = uniforms.unsqueeze(-1) * total
    block = torch.searchsorted(ends, target, right=True).clamp_(max=ends.shape[-1] - 1)
    base = pad(ends, (1, 0)).gather(-1, block)
    start = block * BLOCK
    place = start + torch.arange(min(BLOCK, vocab_size), device=mass.device)
    inside = mass.gather(-1, place.clamp(max=vocab_size - 1)).masked_fill_(place >= vocab_size, 0.0).cumsum(-1)
    running = torch.cat([base, base + inside], dim=-1)
    # The block's own running sum may round to a hair below the block's end: then its last token with mass is it.
    last = torch.searchsorted(inside, inside[..., -1:].contiguous())
    offset = (
        torch.searchsorted(running[..., 1:].contiguous(), target, right=True)
        .minimum(last)
        .clamp_(max=inside.shape[-1] - 1)
    )
    token = (start + offset).clamp_(
        max=vocab_size - 1
    )  # only a row with NaN gets this far, and must not break the rest
    return token.squeeze(-1), running.gather(-1, offset).squeeze(-1), total.squeeze(-1)
