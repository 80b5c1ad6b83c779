"""The geometric path: ln Z against many-digit arithmetic, and Newton's root against bisection."""

from __future__ import annotations

import mpmath
import pytest
import torch
from torch import Tensor

from tokenauction.engine.geometric_path import critical_weight, geometric_path


def tensor(x: object) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def pairs(num: int, vocab_size: int, spread: float, seed: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    scores = torch.randn(2, num, vocab_size, generator=rng, dtype=torch.float64) * spread
    p, r = scores.softmax(-1)
    return p, r


def log_partition_in_many_digits(p: list[float], r: list[float], w: float) -> mpmath.mpf:
    with mpmath.workdps(60):
        sums = [mpmath.fsum(x) for x in (p, r)]
        exponents = mpmath.mpf(w), 1 - mpmath.mpf(w)
        both = [(a, b) for a, b in zip(p, r, strict=True) if a > 0 and b > 0]
        z = mpmath.fsum((a / sums[0]) ** exponents[0] * (b / sums[1]) ** exponents[1] for a, b in both)
        return mpmath.log(z)


@pytest.mark.parametrize("w", [1e-12, 1e-3, 0.3, 0.5, 0.7, 1 - 1e-6, 1 - 1e-12])
@pytest.mark.parametrize("spread", [0.1, 3.0, 60.0])
def test_log_partition_keeps_its_digits_near_either_end(w: float, spread: float) -> None:
    p, r = pairs(3, 20, spread, seed=1)
    p[2, :5] = 0
    p /= p.sum(-1, keepdim=True)
    values = geometric_path(p, r).log_partition(torch.full((3,), w, dtype=torch.float64))
    for row in range(3):
        exact = log_partition_in_many_digits(p[row].tolist(), r[row].tolist(), w)
        assert abs(values[row].item() - float(exact)) < 1e-10 * abs(float(exact)) + 5e-16


def test_path_without_common_support_has_no_mass() -> None:
    path = geometric_path(tensor([[1, 0]]), tensor([[0, 1]]))
    assert path.log_partition(tensor([0.5])).item() == -torch.inf


@pytest.mark.parametrize("spread", [0.01, 1.0, 5.0, 40.0])
@pytest.mark.parametrize("vocab_size", [2, 3, 1000])
def test_critical_weight_agrees_with_bisection(spread: float, vocab_size: int) -> None:
    p, r = pairs(40, vocab_size, spread, seed=vocab_size)
    path = geometric_path(p, r)
    token = (p - r).argmax(-1)
    place = token.unsqueeze(-1)
    w_max = torch.linspace(1e-9, 1 - 1e-9, 40, dtype=torch.float64)

    def probability(w: Tensor) -> Tensor:
        log_p, log_r = p.gather(-1, place).log().squeeze(-1), r.gather(-1, place).log().squeeze(-1)
        return (w * log_p + (1 - w) * log_r - path.log_partition(w)).exp()

    r_token = r.gather(-1, place).squeeze(-1)
    threshold = r_token + torch.rand(40, generator=torch.Generator().manual_seed(2)) * (probability(w_max) - r_token)
    w, log_z = critical_weight(path, token, threshold, w_max)
    low, high = torch.zeros_like(w), w_max.clone()
    for _ in range(80):
        middle = (low + high) / 2
        reached = probability(middle) >= threshold
        low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
    reachable = threshold > r_token * (1 + 1e-12)
    slope = (probability((w + 1e-7).clamp(max=1)) - probability((w - 1e-7).clamp(min=0))) / 2e-7
    blurred = 1e-13 + 4e-16 / slope.abs().clamp(min=1e-300)  # how far rounding of q alone moves the root
    assert bool(((w - high).abs() <= blurred)[reachable].all())
    assert torch.allclose(log_z, path.log_partition(w), rtol=1e-9, atol=1e-12)
    assert bool((w <= w_max).all())


def test_critical_weight_is_zero_when_the_others_disjoint_mass_alone_lifts_the_token() -> None:
    p, r = tensor([[0.5, 0.5, 0.0]]), tensor([[0.3, 0.3, 0.4]])
    w, log_z = critical_weight(geometric_path(p, r), torch.tensor([0]), tensor([0.45]), tensor([0.5]))
    assert (w.item(), log_z.item()) == (0, pytest.approx(torch.tensor(0.6).log().item()))  # q(0+) = ½ already


def test_critical_weight_finds_the_top_of_a_hump() -> None:
    p, r = tensor([[0.9899, 0.01, 0.0001]]), tensor([[0.0001, 0.0099, 0.99]])
    path = geometric_path(p / p.sum(), r / r.sum())
    w = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    q = (w * path.log_ratio[0, 1] - path.rows(torch.zeros(10_001, dtype=torch.int64)).log_partition(w)).exp() * path.r[
        0, 1
    ]
    top = q.argmax()
    root, _ = critical_weight(path, torch.tensor([1]), q[top : top + 1] * (1 - 1e-9), tensor([1 - 1e-9]))
    assert root.item() <= w[top].item()
    assert root.item() == pytest.approx(w[top].item(), abs=1e-3)
