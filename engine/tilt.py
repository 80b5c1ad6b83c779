"""Tilting a distribution: π_j ∝ μ_j·e^{s_j}, how much mass that makes, and how far π lies from μ; without cancellation.

With c = ln Σ_j μ_j·e^{s_j} and D_j = s_j - c = ln(π_j/μ_j), the divergence is a sum of terms that are never negative,

    KL(π ‖ μ) = Σ_j π_j·φ(D_j) over D_j >= 0 + Σ_j μ_j·ψ(D_j) over D_j < 0,
    φ(D) = D + e^{-D} - 1,    ψ(D) = D·e^D - e^D + 1,

since Σ π = Σ μ = 1. So it is exactly 0 where s is 0 everywhere, small where s is small, and finite where s is -inf.
Derived, see docs/mechanism.md. This file knows nothing of auctions.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from tokenauction.engine.summation import sum_tokens

_SMALL = 1e-4  # below it four terms of a series are exact, and the closed forms lose digits
_GONE = -746.0  # e to this is 0 in float64


def tilt(
    log_base: Float64[Tensor, "*rows places"], nats: Float64[Tensor, "*rows places"]
) -> tuple[Float64[Tensor, "*rows"], Float64[Tensor, "*rows"]]:
    """Return ln Σ_j μ_j·e^{s_j} and KL(π ‖ μ), in nats, for ln μ normalised and tilts s <= 0 of which one may be -inf.

    At least one place must have μ_j > 0 and s_j > -inf.
    """
    base = log_base.exp()
    loss = sum_tokens(base * torch.expm1(nats))
    log_mass = torch.where(loss > -0.5, torch.log1p(loss.clamp(min=-0.5)), torch.logsumexp(log_base + nats, -1))
    log_ratio = nats - log_mass.unsqueeze(-1)
    tilted = torch.softmax(log_base + nats, -1)
    terms = torch.where(log_ratio >= 0, tilted * _phi(log_ratio.clamp(min=0)), base * _psi(log_ratio.clamp(max=0)))
    return log_mass, sum_tokens(terms)


def _phi(d: Float64[Tensor, "*rows places"]) -> Float64[Tensor, "*rows places"]:
    """d + e^{-d} - 1 for d >= 0."""
    series = d * d * (1 / 2 - d * (1 / 6 - d * (1 / 24 - d / 120)))
    return torch.where(d < _SMALL, series, d + torch.expm1(-d))


def _psi(d: Float64[Tensor, "*rows places"]) -> Float64[Tensor, "*rows places"]:
    """d·e^d - e^d + 1 for d <= 0; 1 at -inf."""
    series = d * d * (1 / 2 + d * (1 / 3 + d * (1 / 8 + d / 30)))
    d = d.clamp(min=_GONE)
    return torch.where(d > -_SMALL, series, d * d.exp() - torch.expm1(d))
