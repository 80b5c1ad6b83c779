"""Pricing: what each agent pays for one token, in the unit of the weights; it draws nothing and knows no currency.

    critical_bid   the least bid at which the drawn token is still drawn              derived, see docs/mechanism.md
    expected       the mean of the critical bid over the draw: the Myerson payment for the value -v·TV(q, p_i)   derived
    kl_clarke      what i's presence costs the others in Kullback-Leibler loss: B_-i·KL, Clarke's pivot rule     [TA]
    first_price    the bid;  free: nothing: baselines without an incentive guarantee

All are 0 for an agent without weight and for one that is alone. Budgets, caps and rounding to micros are the caller's.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from tokenauction.engine.geometric_path import critical_weight, geometric_path
from tokenauction.engine.myerson_integral import myerson_integral
from tokenauction.engine.sampling import Draw
from tokenauction.engine.summation import sum_tokens

_SERIES_BELOW = 1e-4  # where ln(1 + x) - x/(1 + x) has lost more digits than its series lacks


def critical_bid_linear(
    p_token: Float64[Tensor, "auctions agents"],
    r_token: Float64[Tensor, "auctions agents"],
    threshold: Float64[Tensor, " auctions"],
    weights: Float64[Tensor, "auctions agents"],
    others: Float64[Tensor, "auctions agents"],
) -> Float64[Tensor, "auctions agents"]:
    """Return z_i = B_-i (v - r_i(t)) / (p_i(t) - v) where r_i(t) < v and r_i(t) < p_i(t), else 0; never above b_i.

    It is the z that solves q_t(z, b_-i) = v under the linear rule. O(agents). Derived, see docs/mechanism.md.
    """
    v = threshold.unsqueeze(-1)
    tiny = torch.finfo(v.dtype).tiny  # v < p_i(t) but for rounding, and there z_i is cut to b_i
    z = (others * (v - r_token) / (p_token - v).clamp(min=tiny)).minimum(weights)
    return torch.where((v > r_token) & (p_token > r_token), z, 0.0)


def critical_bid_log_linear(
    p: Float64[Tensor, "auctions agents vocab"],
    r: Float64[Tensor, "auctions agents vocab"],
    draw: Draw,
    weights: Float64[Tensor, "auctions agents"],
    others: Float64[Tensor, "auctions agents"],
    pays: Bool[Tensor, "auctions agents"],
) -> tuple[Float64[Tensor, "auctions agents"], Float64[Tensor, "auctions agents"]]:
    """Return z_i with q_t(z_i, b_-i) = v where r_i(t) < v <= p_i(t), else 0, and ln Z where z_i > 0, else NaN.

    With w = z_i/(z_i + B_-i):  ln v = w ln p_i(t) + (1-w) ln r_i(t) - ln Z, which a stranger can check in O(1).
    Costs about 5 passes of exp over the vocabulary for every agent that does pay. Derived, see docs/mechanism.md.
    """
    place = draw.token[:, None, None].expand(*weights.shape, 1)
    p_token, r_token = p.gather(-1, place).squeeze(-1), r.gather(-1, place).squeeze(-1)
    v = draw.price_threshold.unsqueeze(-1)
    due = pays & (others > 0) & (v > r_token) & (v <= p_token)
    critical_bid, log_partition = torch.zeros_like(weights), torch.full_like(weights, torch.nan)
    auction, agent = due.nonzero(as_tuple=True)
    if auction.numel() == 0:
        return critical_bid, log_partition
    bid, rest = weights[due], others[due]
    path = geometric_path(p[auction, agent], r[auction, agent])
    w, log_z = critical_weight(path, draw.token[auction], draw.price_threshold[auction], bid / (bid + rest))
    z = (rest * w / (1 - w)).minimum(bid)
    critical_bid[due], log_partition[due] = z, torch.where(z > 0, log_z, torch.nan)
    return critical_bid, log_partition


def critical_bid_race(draw: Draw, weights: Float64[Tensor, "auctions agents"]) -> Float64[Tensor, "auctions agents"]:
    """Return θ_J = E_J · max_{j≠J} b_j/E_j for the winner J if its token differs from the runner-up's, else 0.

    Below θ_J the runner-up's token is drawn; the bids of all others move nothing. Derived, see docs/mechanism.md.
    """
    winner = draw.winner.unsqueeze(-1)
    runner_up_token = draw.agent_token.gather(-1, draw.runner_up.unsqueeze(-1).clamp(min=0))
    moves = (draw.runner_up.unsqueeze(-1) >= 0) & (runner_up_token != draw.token.unsqueeze(-1))
    due = torch.where(moves, draw.race_threshold.unsqueeze(-1), 0.0)
    return torch.zeros_like(weights).scatter(-1, winner, due)


def expected_linear(
    distance: Float64[Tensor, "auctions agents"],
    weights: Float64[Tensor, "auctions agents"],
    others: Float64[Tensor, "auctions agents"],
) -> Float64[Tensor, "auctions agents"]:
    """Return E_i = m_i·B (ln(1 + x) - x/(1 + x)) with B = B_-i, x = b_i/B, m_i = TV(p_i, r_i); at most 0.2162·b_i·m_i.

    For x < 1e-4 the series B(x²/2 - 2x³/3 + 3x⁴/4). Derived, see docs/mechanism.md.
    """
    alone = others == 0
    x = torch.where(alone, 0.0, weights / torch.where(alone, 1.0, others))
    series = x * x * (0.5 - x * (2 / 3 - 0.75 * x))
    return distance * others * torch.where(x < _SERIES_BELOW, series, torch.log1p(x) - x / (1 + x))


def expected_log_linear(
    p: Float64[Tensor, "auctions agents vocab"],
    r: Float64[Tensor, "auctions agents vocab"],
    weights: Float64[Tensor, "auctions agents"],
    others: Float64[Tensor, "auctions agents"],
    pays: Bool[Tensor, "auctions agents"],
) -> Float64[Tensor, "auctions agents"]:
    """Return E_i = ∫_0^{b_i} [TV(q(z), p_i) - TV(q(b), p_i)] dz to a relative error of 1e-6, else 0.

    Costs 17 passes of expm1 over the vocabulary a panel for every paying agent (see `myerson_integral`). Derived.
    """
    payment = torch.zeros_like(weights)
    due = pays & (weights > 0) & (others > 0)
    auction, agent = due.nonzero(as_tuple=True)
    if auction.numel():
        path = geometric_path(p[auction, agent], r[auction, agent])
        payment[due] = others[due] * myerson_integral(path, weights[due] / others[due])
    return payment


def kl_linear(
    p: Float64[Tensor, "auctions agents vocab"],
    q: Float64[Tensor, "auctions vocab"],
    r: Float64[Tensor, "auctions agents vocab"],
    share: Float64[Tensor, "auctions agents"],
) -> Float64[Tensor, "auctions agents"]:
    """Return KL(r_i ‖ q), from r_i - q = λ_i (r_i - p_i), so that a small bid's divergence keeps its digits."""
    q = q.unsqueeze(1)
    change = (share.unsqueeze(-1) * (r - p) / torch.where(q > 0, q, 1.0)).clamp(min=-1)
    return sum_tokens(q * _bregman(torch.log1p(change)))


def kl_log_linear(
    p: Float64[Tensor, "auctions agents vocab"],
    r: Float64[Tensor, "auctions agents vocab"],
    share: Float64[Tensor, "auctions agents"],
) -> Float64[Tensor, "auctions agents"]:
    """Return KL(q ‖ r_i), from ln(q/r_i) = λ_i ln(p_i/r_i) - ln Z(λ_i), so that a small bid's keeps its digits."""
    path = geometric_path(p.flatten(0, 1), r.flatten(0, 1))
    w = share.flatten().unsqueeze(-1)
    log_change = w * path.log_ratio - path.log_partition(w.squeeze(-1)).unsqueeze(-1)
    off = (p.flatten(0, 1) == 0) & (w > 0)
    log_change.masked_fill_(off, -torch.inf)
    return sum_tokens(r.flatten(0, 1) * _bregman(log_change)).view_as(share)


def _bregman(a: Float64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
    """Return a·e^a - e^a + 1 >= 0, the terms y·(…) of KL(x ‖ y) at a = ln(x/y), without cancellation near a = 0."""
    growth = a.expm1()
    direct = (growth + 1).mul_(a).sub_(growth).masked_fill_(a == -torch.inf, 1.0)
    series = (a / 144).add_(1 / 30).mul_(a).add_(1 / 8).mul_(a).add_(1 / 3).mul_(a).add_(1 / 2).mul_(a).mul_(a)
    return torch.where(a.abs() < 1e-3, series, direct)
