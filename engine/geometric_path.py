"""The geometric path from r to p: what a log-linear aggregate does as one agent's weight grows; it knows no auction.

    q_w(t) = p(t)^w r(t)^(1-w) / Z(w),   Z(w) = Σ_s p(s)^w r(s)^(1-w),   0 < w < 1

over the common support of p and r. With ℓ = ln(p/r), μ(w) = E_{q_w}[ℓ]: ln Z is convex with slope μ, so ln q_w(t) is
concave with slope ℓ(t) - μ(w). An agent that bids z against weights B_-i in all stands at w = z/(z + B_-i).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from tokenauction.engine.summation import sum_tokens

MAX_LOG_RATIO = 700.0  # |ln(p/r)| is cut here, where exp leaves float64; such a token's probability is below 1e-304
MAX_NEWTON_STEPS = 100
NEWTON_TOLERANCE = 4 * torch.finfo(torch.float64).eps  # relative to w


@dataclass(frozen=True)
class GeometricPath:
    """Paths from r to p, one a row, with everything off their common support set to 0."""

    p: Float64[Tensor, "rows vocab"]
    r: Float64[Tensor, "rows vocab"]
    log_ratio: Float64[Tensor, "rows vocab"]  # ℓ = ln(p/r)
    p_lost: Float64[Tensor, " rows"]  # mass of p off the common support: 1 - Z(1-)
    r_lost: Float64[Tensor, " rows"]  # mass of r off the common support: 1 - Z(0+)

    def rows(self, index: Int64[Tensor, " chosen"]) -> GeometricPath:
        """Return the chosen rows."""
        return GeometricPath(*(x[index] for x in (self.p, self.r, self.log_ratio, self.p_lost, self.r_lost)))

    def end(self, near_r: Bool[Tensor, " rows"]) -> PathEnd:
        """Return the end of each path from which Z is best summed: r up to w = ½, then p."""
        mass = torch.where(near_r.unsqueeze(-1), self.r, self.p)
        return PathEnd(mass, torch.where(near_r, self.r_lost, self.p_lost), self.log_ratio)

    def log_partition(self, w: Float64[Tensor, " rows"]) -> Float64[Tensor, " rows"]:
        """Return ln Z(w) to full relative precision."""
        return self.end(w <= 0.5).tilt(torch.where(w <= 0.5, w, w - 1))[2]


@dataclass(frozen=True)
class PathEnd:
    """One end of each path: r, from which q_w is r·exp(wℓ)/Z, or p, from which it is p·exp((w-1)ℓ)/Z."""

    mass: Float64[Tensor, "rows vocab"]
    lost: Float64[Tensor, " rows"]
    log_ratio: Float64[Tensor, "rows vocab"]

    def tilt(
        self, turn: Float64[Tensor, " rows"]
    ) -> tuple[Float64[Tensor, "rows vocab"], Float64[Tensor, " rows"], Float64[Tensor, " rows"]]:
        """Return mass·exp(turn·ℓ), its sum Z <= 1, and ln Z to full relative precision also where Z is nearly 1."""
        turn = turn.unsqueeze(-1)
        mass = (turn * self.log_ratio).expm1_().mul_(self.mass)
        log_z = torch.log1p(sum_tokens(mass) - self.lost)
        z = sum_tokens(mass.add_(self.mass))
        small = z < 0.5
        if bool(small.any()):  # far from 1 it is 1 + expm1 that loses digits, and exp that keeps them
            exact = (turn * self.log_ratio).exp_().mul_(self.mass)
            mass = torch.where(small.unsqueeze(-1), exact, mass)
            z = sum_tokens(mass)
            log_z = torch.where(small, z.log(), log_z)
        return mass, z, log_z


def geometric_path(p: Float64[Tensor, "rows vocab"], r: Float64[Tensor, "rows vocab"]) -> GeometricPath:
    """Return the path from each r to each p."""
    off = (p == 0) | (r == 0)
    log_ratio = (p.log() - r.log()).masked_fill_(off, 0.0).clamp_(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    p_common, r_common = p.masked_fill(off, 0.0), r.masked_fill(off, 0.0)
    return GeometricPath(p_common, r_common, log_ratio, sum_tokens(p - p_common), sum_tokens(r - r_common))


def critical_weight(
    path: GeometricPath,
    token: Int64[Tensor, " rows"],
    threshold: Float64[Tensor, " rows"],
    w_max: Float64[Tensor, " rows"],
) -> tuple[Float64[Tensor, " rows"], Float64[Tensor, " rows"]]:
    """Return the least w with q_w(t) >= v, and ln Z(w) there; r(t) < v <= q_{w_max}(t) and r(t) < p(t) are given.

    Newton's method from the left on the concave ln q_w(t) climbs to the root without passing it, so it needs no
    bracket: 4 to 6 steps as a rule, each one pass of exp over the row; rows that are done drop out.
    """
    place = token.unsqueeze(-1)
    log_ratio = path.log_ratio.gather(-1, place).squeeze(-1)
    target = threshold.log() - path.r.gather(-1, place).squeeze(-1).log()  # of ln q_w(t) - ln r(t) = w·ℓ(t) - ln Z(w)
    w = torch.zeros_like(threshold)
    log_z = sum_tokens(path.r).log()
    open_rows = (target > -log_z).nonzero().squeeze(-1)
    for _ in range(MAX_NEWTON_STEPS):
        if open_rows.numel() == 0:
            return w, log_z
        here, start = path.rows(open_rows), w[open_rows]
        height, slope, log_z[open_rows] = _height(here, log_ratio[open_rows], start)
        step = (target[open_rows] - height) / slope
        # A slope that rounding made 0 or negative means the top is reached: the root is w_max.
        end = torch.where(slope > 0, start + step, torch.inf).clamp(max=w_max[open_rows]).maximum(start)
        w[open_rows] = end
        open_rows = open_rows[end - start > NEWTON_TOLERANCE * end]
    raise RuntimeError(f"Newton's method took more than {MAX_NEWTON_STEPS} steps; the inputs were {threshold}, {w_max}")


def _height(
    path: GeometricPath, log_ratio: Float64[Tensor, " rows"], w: Float64[Tensor, " rows"]
) -> tuple[Float64[Tensor, " rows"], Float64[Tensor, " rows"], Float64[Tensor, " rows"]]:
    """Return w·ℓ(t) - ln Z(w), its slope ℓ(t) - μ(w), and ln Z(w)."""
    mass = torch.exp(w.unsqueeze(-1) * path.log_ratio).mul_(path.r)
    z = sum_tokens(mass)
    mean = sum_tokens(mass.mul_(path.log_ratio)) / z
    return w * log_ratio - z.log(), log_ratio - mean, z.log()
