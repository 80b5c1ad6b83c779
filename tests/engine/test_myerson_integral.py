"""The Myerson integral along a geometric path, against adaptive quadrature cut at every kink, and its hard cases."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq
from torch import Tensor

from tokenauction.engine.geometric_path import geometric_path
from tokenauction.engine.myerson_integral import myerson_integral

Array = np.ndarray


def pair(vocab_size: int, shared: float, own: float, seed: int, cut: bool) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    base = torch.randn(vocab_size, generator=rng, dtype=torch.float64) * shared
    p, r = (base + torch.randn(2, vocab_size, generator=rng, dtype=torch.float64) * own).softmax(-1)
    if cut:
        p[0], r[1] = 0, 0
    return p / p.sum(), r / r.sum()


def by_quadrature(p: Array, r: Array, odds: float) -> float:
    """∫_0^odds [TV(q(z), p) - TV(q(odds), p)] dz, straight from the definition, in x = ln(1 + z)."""
    both = (p > 0) & (r > 0)
    log_p, log_r = np.log(p[both]), np.log(r[both])

    def distance(x: float) -> float:
        w = -np.expm1(-x)
        log_q = w * log_p + (1 - w) * log_r
        q = np.exp(log_q - log_q.max())
        return float(np.maximum(p[both] - q / q.sum(), 0).sum())

    def kink(token: int) -> list[float]:
        def ahead(x: float) -> float:
            w = -np.expm1(-x)
            log_q = w * log_p + (1 - w) * log_r
            top = log_q.max()
            return float(log_q[token] - top - np.log(np.exp(log_q - top).sum()) - log_p[token])

        low, high = 1e-12, float(np.log1p(odds))
        return [brentq(ahead, low, high, xtol=1e-14)] if ahead(low) * ahead(high) < 0 else []

    end = float(np.log1p(odds))
    last = distance(end)
    edges = sorted({0.0, end, *(x for token in range(len(log_p)) for x in kink(token))})

    def integrand(x: float) -> float:
        return float((distance(x) - last) * np.exp(x))

    return float(sum(quad(integrand, a, b, epsabs=0, epsrel=1e-10, limit=200)[0] for a, b in pairwise(edges)))


@pytest.mark.parametrize("odds", [0.01, 0.7, 5.0, 300.0])
@pytest.mark.parametrize(
    ("vocab_size", "shared", "own", "cut"),
    [(2, 1, 1, False), (3, 1, 1, False), (6, 1, 0.1, False), (6, 2, 3, True), (12, 3, 1, False), (12, 1, 6, True)],
)
def test_myerson_integral_agrees_with_its_definition(
    vocab_size: int, shared: float, own: float, cut: bool, odds: float
) -> None:
    p, r = pair(vocab_size, shared, own, seed=vocab_size, cut=cut)
    value = myerson_integral(geometric_path(p[None], r[None]), torch.tensor([odds], dtype=torch.float64)).item()
    assert value == pytest.approx(by_quadrature(p.numpy(), r.numpy(), odds), rel=1e-6, abs=1e-13)


def test_myerson_integral_of_two_tokens_has_the_right_small_bid_limit() -> None:
    p, r = torch.tensor([[0.8, 0.2]], dtype=torch.float64), torch.tensor([[0.3, 0.7]], dtype=torch.float64)
    odds = 1e-9  # E/B -> ½ odds² · d TV/dw at w = 0, and TV falls at the rate r_1 (ℓ_1 - μ)
    ell = (p / r).log()
    rate = (r * (ell - (r * ell).sum()))[0, 0].item()
    value = myerson_integral(geometric_path(p, r), torch.tensor([odds], dtype=torch.float64)).item()
    assert value == pytest.approx(0.5 * odds**2 * rate, rel=1e-7)


def test_myerson_integral_grows_like_the_logarithm_of_a_huge_bid() -> None:
    p, r = torch.tensor([[0.8, 0.2]], dtype=torch.float64), torch.tensor([[0.3, 0.7]], dtype=torch.float64)
    odds = torch.tensor([1e12, 1e24], dtype=torch.float64)
    value = myerson_integral(geometric_path(p.expand(2, -1), r.expand(2, -1)), odds)
    ell = (p / r).log()
    rate = (p * (ell - (p * ell).sum()))[0, 0]  # of TV in 1 - w at w = 1
    assert ((value[1] - value[0]) / (odds[1] / odds[0]).log()).item() == pytest.approx(rate.item(), rel=1e-9)


@pytest.mark.parametrize("own", [1e-9, 1e-14, 0.0])
def test_myerson_integral_of_nearly_equal_ends_is_nearly_nothing(own: float) -> None:
    p, r = pair(500, 3.0, own, seed=3, cut=False)
    value = myerson_integral(geometric_path(p[None], r[None]), torch.tensor([2.0], dtype=torch.float64)).item()
    assert -1e-15 <= value <= 1.1 * own + 1e-15


@pytest.mark.slow
@pytest.mark.parametrize("odds", [1e-12, 1e-3, 1.0, 1e6, 1e24])
def test_myerson_integral_converges_between_nearly_disjoint_ends(odds: float) -> None:
    for seed in range(5):
        p, r = pair(8, 100.0, 60.0, seed=seed, cut=False)
        value = myerson_integral(geometric_path(p[None], r[None]), torch.tensor([odds], dtype=torch.float64)).item()
        distance = (r - p).clamp(min=0).sum().item()
        assert 0 <= value <= odds * distance * (1 + 1e-9) + 1e-15 * odds


@pytest.mark.slow
def test_myerson_integral_of_one_path_does_not_depend_on_the_others_in_the_batch() -> None:
    p, r = (torch.stack(rows) for rows in zip(*(pair(700, 3, 1 + k, seed=k, cut=False) for k in range(5)), strict=True))
    odds = torch.tensor([0.1, 3.0, 1e6, 1.0, 1e-6], dtype=torch.float64)
    together = myerson_integral(geometric_path(p, r), odds)
    alone = [myerson_integral(geometric_path(p[i : i + 1], r[i : i + 1]), odds[i : i + 1]) for i in range(5)]
    assert torch.equal(torch.cat(alone), together)
