"""The Myerson payment along a geometric path: an integral over the bid, exact but for quadrature; knows no auction.

    E = ∫_0^b [TV(q(z), p) - TV(q(b), p)] dz = B ∫_0^S w Σ_{t: ℓ_t > c(w)} q_w(t) (ℓ_t - μ(w)) ds        B = B_-i

with s = ln(1 + z/B), w = 1 - e^-s, S = ln(1 + b/B). A token gains from a higher bid until q_w(t) reaches p(t); that is
where c(w) = -ln Z(w)/(1-w), the Rényi divergence of order w, which rises with w, has reached ℓ_t. No term is negative
and nothing cancels, however small or large b/B is.

The integrand jumps wherever a token reaches p(t), so plain quadrature would need a panel for each token. But what a
token contributes in the panel where it does so is p(t)·g(ℓ_t), with one smooth function g for all tokens: g is
tabulated by spectral integration and interpolated, and the rest is smooth. Derived, see docs/mechanism.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from tokenauction.engine.geometric_path import GeometricPath
from tokenauction.engine.summation import sum_padded, sum_tokens

TOLERANCE = 1e-7  # relative error estimated per payment; the stated bound is ten times that
NOISE = 64 * torch.finfo(torch.float64).eps  # a distribution sums to 1 only to this: finer differences are rounding
MAX_ROUNDS = 40  # halvings of a panel
MAX_PANELS = 256  # open at once, a path
MAX_CELLS = 1 << 19  # panels times vocabulary held at once
DEGREE = 16  # of the Clenshaw-Curtis rule on a panel; its even nodes are the rule of half the degree


def _integration_matrix(degree: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return W with ∫_{-1}^{x_j} f = Σ_i W[j, i] f(x_i) for polynomials f up to `degree`, x_j = -cos(πj/degree)."""
    nodes = -np.cos(np.pi * np.arange(degree + 1) / degree)
    coefficients = np.linalg.inv(np.polynomial.chebyshev.chebvander(nodes, degree))  # values -> Chebyshev series
    antiderivatives = np.polynomial.chebyshev.chebint(coefficients, lbnd=-1)
    return np.asarray(np.polynomial.chebyshev.chebval(nodes, antiderivatives).T, dtype=np.float64)


_NODES = torch.from_numpy((1 - np.cos(np.pi * np.arange(DEGREE + 1) / DEGREE)) / 2)  # on [0, 1]
_FINE = torch.from_numpy(_integration_matrix(DEGREE) / 2)
_COARSE = torch.from_numpy(_integration_matrix(DEGREE // 2) / 2)


@dataclass(frozen=True)
class _Panels:
    """Stretches of s, each on one path and on one side of w = ½ (so that ln Z is summed from the nearer end)."""

    row: Int64[Tensor, " panels"]
    start: Float64[Tensor, " panels"]
    stop: Float64[Tensor, " panels"]
    near_r: Bool[Tensor, " panels"]

    def select(self, chosen: Bool[Tensor, " panels"] | slice) -> _Panels:
        return _Panels(self.row[chosen], self.start[chosen], self.stop[chosen], self.near_r[chosen])

    def halves(self) -> _Panels:
        middle = (self.start + self.stop) / 2
        left = _Panels(self.row, self.start, middle, self.near_r)
        return _join(left, _Panels(self.row, middle, self.stop, self.near_r))


def _join(a: _Panels, b: _Panels) -> _Panels:
    columns = ((a.row, b.row), (a.start, b.start), (a.stop, b.stop), (a.near_r, b.near_r))
    return _Panels(*(torch.cat(pair) for pair in columns))


def myerson_integral(path: GeometricPath, odds: Float64[Tensor, " rows"]) -> Float64[Tensor, " rows"]:
    """Return E/B for the bid b = odds·B on each path, to a relative error of 1e-6 (as a rule below 1e-8).

    Where p and r differ by no more than rounding, the error is what rounding them makes of it: about 1e-14·∫ w ds.
    Costs 17 passes of expm1 over the row a panel; 1 to 4 panels as a rule. Raises RuntimeError if it does not converge.
    """
    span = torch.log1p(odds)
    panels = _first_panels(span)
    done = torch.zeros_like(span)
    for _ in range(MAX_ROUNDS):
        value, error = _integrate(path, panels)
        resolved = torch.where(error <= 0.1 * value, value, 0.0)  # too wide a panel may return anything; no term is < 0
        estimate = done.index_add(0, panels.row, resolved)
        share = (panels.stop - panels.start) / span[panels.row]
        noise = NOISE * (panels.stop - panels.start) * -torch.expm1(-panels.stop)
        accepted = error <= (TOLERANCE * share * estimate[panels.row]).maximum(noise)
        done.index_add_(0, panels.row[accepted], value[accepted])
        panels = panels.select(~accepted).halves()
        if panels.row.numel() == 0:
            return done.clamp(min=0)
        if panels.row.numel() > MAX_PANELS * span.numel():
            break
    raise RuntimeError(f"a payment did not converge; the bid over the others' weight is one of {odds.tolist()}")


def _first_panels(span: Float64[Tensor, " rows"]) -> _Panels:
    """Return [0, S] for each row, cut at w = ½ where it reaches beyond."""
    row, half = torch.arange(span.numel(), device=span.device), span.clamp(max=math.log(2))
    near = _Panels(row, torch.zeros_like(span), half, torch.ones_like(row, dtype=torch.bool))
    far = _Panels(row, half, span, torch.zeros_like(row, dtype=torch.bool)).select(span > half)
    return _join(near, far)


def _integrate(path: GeometricPath, panels: _Panels) -> tuple[Float64[Tensor, " panels"], Float64[Tensor, " panels"]]:
    """Return each panel's integral and an estimate of its error; a chunk of panels at a time."""
    chunk = max(1, MAX_CELLS // path.p.shape[-1])
    starts = range(0, panels.row.numel(), chunk)
    parts = [_integrate_chunk(path, panels.select(slice(start, start + chunk))) for start in starts]
    values, errors = zip(*parts, strict=True) if parts else ((panels.start,), (panels.start,))
    return torch.cat(values), torch.cat(errors)


def _integrate_chunk(
    path: GeometricPath, panels: _Panels
) -> tuple[Float64[Tensor, " panels"], Float64[Tensor, " panels"]]:
    path, width = path.rows(panels.row), panels.stop - panels.start
    nodes = _evaluate(path, panels)
    crossing = (path.log_ratio > nodes.ceiling[:, :1]) & (path.log_ratio <= nodes.ceiling[:, -1:])
    p_crossing = path.p * crossing
    share, slope = _share_tables(nodes, width)
    value = width * sum_padded(_FINE[-1].to(width.device) * nodes.growth)
    coarse = width * sum_padded(_COARSE[-1].to(width.device) * nodes.growth[:, ::2])
    crossed = sum_tokens(p_crossing * _hermite(path.log_ratio, nodes.ceiling, share, slope))
    return value + crossed, (value - coarse).abs() + sum_tokens(p_crossing) * _table_error(nodes, width, share, slope)


@dataclass(frozen=True)
class _Nodes:
    """What one pass over the vocabulary leaves behind at every node of every panel."""

    w: Float64[Tensor, "panels nodes"]
    stay: Float64[Tensor, "panels nodes"]  # 1 - w = e^-s
    log_z: Float64[Tensor, "panels nodes"]
    mean: Float64[Tensor, "panels nodes"]  # μ
    ceiling: Float64[Tensor, "panels nodes"]  # c: tokens with a larger ℓ still gain
    growth: Float64[Tensor, "panels nodes"]  # w Σ q_w(t) (ℓ_t - μ) over the tokens that gain throughout the panel


def _evaluate(path: GeometricPath, panels: _Panels) -> _Nodes:
    """Sum over the vocabulary at every node, the last node first: it tells which tokens gain throughout the panel."""
    s = panels.start.unsqueeze(-1) + (panels.stop - panels.start).unsqueeze(-1) * _NODES.to(panels.start.device)
    w, stay = -torch.expm1(-s), torch.exp(-s)
    near_r = panels.near_r.unsqueeze(-1)
    end = path.end(panels.near_r)
    turn = torch.where(near_r, w, -stay)
    log_z, mean, growth, ceiling = (torch.empty_like(s) for _ in range(4))
    gains = path.log_ratio  # replaced at the last node, which comes first
    for node in range(DEGREE, -1, -1):
        mass, z, log_z[:, node] = end.tilt(turn[:, node])
        ceiling[:, node] = (-log_z[:, node] / stay[:, node]).clamp(min=0)
        if node == DEGREE:
            gains = (path.log_ratio > ceiling[:, node, None]).to(mass.dtype)
        moment = mass * path.log_ratio
        mean[:, node] = sum_tokens(moment) / z
        gaining, gaining_moment = sum_tokens(mass.mul_(gains)), sum_tokens(moment.mul_(gains))
        growth[:, node] = w[:, node] * (gaining_moment - mean[:, node] * gaining) / z
    return _Nodes(w, stay, log_z, mean, ceiling.cummax(-1).values, growth)


def _share_tables(
    nodes: _Nodes, width: Float64[Tensor, " panels"]
) -> tuple[Float64[Tensor, "panels nodes"], Float64[Tensor, "panels nodes"]]:
    """Return g and g' at every ceiling c_j: what a token with ℓ = c_j, which reaches p at node j, adds in the panel.

    g(ℓ) = ∫ w (ℓ - μ) q_w/p ds up to that node, with q_w/p = exp(-(1-w) ℓ - ln Z);  g'(ℓ) = ∫ ∂/∂ℓ ds + w_j.
    """
    relative, excess = _relative_probability(nodes, nodes.ceiling)
    rule, width = _FINE.to(width.device), width.unsqueeze(-1)
    share = width * sum_padded(rule * relative * excess)
    return share, width * sum_padded(rule * relative * (1 - nodes.stay.unsqueeze(1) * excess)) + nodes.w


def _relative_probability(
    nodes: _Nodes, log_ratio: Float64[Tensor, "panels tokens"]
) -> tuple[Float64[Tensor, "panels tokens nodes"], Float64[Tensor, "panels tokens nodes"]]:
    """Return w·q_w(t)/p(t) and ℓ_t - μ(w) for tokens known by their ℓ, at every node."""
    ell, stay, log_z = log_ratio.unsqueeze(-1), nodes.stay.unsqueeze(1), nodes.log_z.unsqueeze(1)
    return nodes.w.unsqueeze(1) * torch.exp(-stay * ell - log_z), ell - nodes.mean.unsqueeze(1)


def _table_error(
    nodes: _Nodes,
    width: Float64[Tensor, " panels"],
    share: Float64[Tensor, "panels nodes"],
    slope: Float64[Tensor, "panels nodes"],
) -> Float64[Tensor, " panels"]:
    """Return how far g may be off: its integral by every second node, and its interpolation from every second node."""
    relative, excess = _relative_probability(nodes, nodes.ceiling[:, -1:])
    coarse = width * sum_padded(_COARSE[-1].to(width.device) * (relative * excess).squeeze(1)[:, ::2])
    skipped = _hermite(nodes.ceiling[:, 1::2], nodes.ceiling[:, ::2], share[:, ::2], slope[:, ::2])
    interpolation = (skipped - share[:, 1::2]).abs().amax(-1) / 16  # halving the spacing divides the error by 2^4
    return (share[:, -1] - coarse).abs() + interpolation


def _hermite(
    x: Float64[Tensor, "panels places"],
    nodes: Float64[Tensor, "panels knots"],
    values: Float64[Tensor, "panels knots"],
    slopes: Float64[Tensor, "panels knots"],
) -> Float64[Tensor, "panels places"]:
    """Interpolate by cubic Hermite pieces between ascending nodes; outside them the nearest value is returned."""
    right = torch.searchsorted(nodes.contiguous(), x.contiguous()).clamp_(1, nodes.shape[-1] - 1)
    left = right - 1
    x_left, step = nodes.gather(-1, left), nodes.diff(dim=-1).gather(-1, left)
    t = ((x - x_left) / step.clamp(min=torch.finfo(x.dtype).tiny)).clamp_(0, 1)
    u = 1 - t
    from_left = u * u * (values.gather(-1, left) * (1 + 2 * t) + slopes.gather(-1, left) * step * t)
    from_right = t * t * (values.gather(-1, right) * (1 + 2 * u) - slopes.gather(-1, right) * step * u)
    return from_left + from_right
