"""A tilted distribution: its mass and its divergence, compared with exact fractions of 60 digits."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenauction.engine.tilt import tilt


def exact(base: list[float], nats: list[float]) -> tuple[float, float]:
    """ln Σ μ e^s and KL(π ‖ μ) by decimals."""
    with localcontext() as context:
        context.prec = 60
        mass = [Decimal(p) * Decimal(s).exp() for p, s in zip(base, nats, strict=True)]
        total = sum(mass)
        log_mass = total.ln()
        shares = [m / total for m in mass]
        terms = [share * (Decimal(s) - log_mass) for share, s in zip(shares, nats, strict=True) if share]
        return float(log_mass), float(sum(terms))


@pytest.mark.slow
@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(-40, 0)), min_size=1, max_size=6), st.floats(1e-9, 1))
def test_tilt_keeps_its_digits_at_every_scale(rows: list[tuple[float, float]], scale: float) -> None:
    weights = torch.tensor([w for w, _ in rows], dtype=torch.float64)
    nats = torch.tensor([s * scale for _, s in rows], dtype=torch.float64)
    log_base = (weights / weights.sum()).log()
    log_mass, divergence = tilt(log_base, nats)
    with localcontext() as context:
        context.prec = 60
        powers = [Decimal(x).exp() for x in log_base.tolist()]
        base = [float(p / sum(powers)) for p in powers]
    expected_mass, expected_divergence = exact(base, nats.tolist())
    assert float(log_mass) == pytest.approx(expected_mass, rel=1e-12, abs=1e-15)
    assert float(divergence) == pytest.approx(expected_divergence, rel=1e-6, abs=1e-14)
    assert float(divergence) >= 0


def test_tilt_by_nothing_is_exactly_nothing() -> None:
    log_base = torch.log_softmax(torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64), -1)
    log_mass, divergence = tilt(log_base, torch.zeros(3, dtype=torch.float64))
    assert (float(log_mass), float(divergence)) == (0.0, 0.0)


def test_tilt_may_rule_places_out() -> None:
    log_base = torch.tensor([0.25, 0.75], dtype=torch.float64).log()
    log_mass, divergence = tilt(log_base, torch.tensor([0.0, -math.inf], dtype=torch.float64))
    assert float(log_mass) == pytest.approx(math.log(0.25), abs=1e-15)
    assert float(divergence) == pytest.approx(math.log(4), abs=1e-15)
