"""Sampling: the law of the drawn token, exact edges of the inverse CDF, the race's one function of the seed.

Statistical tests have fixed seeds; their thresholds are set for a false alarm below 1e-6 had the seed been free.
"""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from tokenauction.engine.aggregation import aggregate, normalised
from tokenauction.engine.randomness import (
    CoupledRandomness,
    RaceRandomness,
    coupled_randomness,
    race_randomness,
    step_key,
)
from tokenauction.engine.sampling import (
    NONE,
    draw_counterfactual,
    draw_coupled,
    draw_race,
    excess,
    inverse_cdf,
    token_at,
)
from tokenauction.engine.summation import BLOCK

FALSE_ALARM = 1e-6
LAST_UNIFORM = 1 - 2.0**-53
B = [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5]]


def tensor(x: object) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def assert_law(tokens: Tensor, law: Tensor) -> None:
    """Chi-square of the tokens' counts against a law; tokens of probability 0 must not occur at all."""
    counts = torch.bincount(tokens, minlength=len(law)).double()
    possible = law > 0
    assert counts[~possible].sum() == 0
    expected = law[possible] * len(tokens)
    statistic = ((counts[possible] - expected) ** 2 / expected).sum().item()
    assert statistic < chi2.isf(FALSE_ALARM, int(possible.sum()) - 1)


def uniforms(num_draws: int, num_agents: int, seed: int) -> CoupledRandomness:
    rng = torch.Generator().manual_seed(seed)
    columns = (torch.rand(num_draws, generator=rng, dtype=torch.float64) for _ in range(2))
    return CoupledRandomness(*columns, torch.rand(num_draws, num_agents, generator=rng, dtype=torch.float64))


def clocks(num_draws: int, num_agents: int, vocab_size: int, seed: int) -> RaceRandomness:
    rng = torch.Generator().manual_seed(seed)
    shapes = (num_draws, num_agents), (num_draws, vocab_size)
    return RaceRandomness(*(-torch.rand(s, generator=rng, dtype=torch.float64).log() for s in shapes))


@pytest.mark.parametrize("u", [0.0, 0.25, 0.5, 0.75, LAST_UNIFORM])
def test_inverse_cdf_takes_the_first_token_whose_running_sum_exceeds_the_uniform(u: float) -> None:
    token, below, total = inverse_cdf(tensor([[0, 0.25, 0, 0.25, 0.5, 0]]), tensor([u]))
    expected, mass_below = {0.0: (1, 0), 0.25: (3, 0.25), 0.5: (4, 0.5), 0.75: (4, 0.5), LAST_UNIFORM: (4, 0.5)}[u]
    assert (token.item(), below.item(), total.item()) == (expected, mass_below, 1)


@pytest.mark.parametrize("vocab_size", [1, 3, BLOCK - 1, BLOCK, BLOCK + 1, 32_000, 151_936])
@pytest.mark.parametrize("zeros", ["none", "first and last", "most"])
def test_inverse_cdf_never_returns_a_token_of_probability_zero(vocab_size: int, zeros: str) -> None:
    rng = torch.Generator().manual_seed(vocab_size)
    mass = torch.rand(20, vocab_size, generator=rng, dtype=torch.float64) ** 30
    if zeros == "first and last" and vocab_size > 3:
        mass[:, : vocab_size // 3] = 0
        mass[:, -vocab_size // 3 :] = 0
    if zeros == "most":
        mass *= torch.rand(mass.shape, generator=rng) < 2 / vocab_size
        mass[:, vocab_size // 2] += 1e-3
    mass /= mass.sum(-1, keepdim=True)
    for u in (0.0, 1e-300, 0.3, 0.9999, LAST_UNIFORM):
        token, below, total = inverse_cdf(mass, torch.full((20,), u, dtype=torch.float64))
        chosen = mass.gather(-1, token.unsqueeze(-1)).squeeze(-1)
        assert bool((chosen > 0).all())
        assert bool((below <= u * total).all()) and bool((u < below + chosen + 1e-12).all())


def test_inverse_cdf_gives_the_same_bits_alone_and_in_a_batch() -> None:
    rng = torch.Generator().manual_seed(4)
    mass = torch.rand(9, 20_000, generator=rng, dtype=torch.float64).softmax(-1)
    u = torch.rand(9, generator=rng, dtype=torch.float64)
    together = inverse_cdf(mass, u)
    alone = [inverse_cdf(mass[i : i + 1], u[i : i + 1]) for i in range(9)]
    assert all(
        torch.equal(torch.cat(parts), whole) for parts, whole in zip(zip(*alone, strict=True), together, strict=True)
    )


def test_coupled_draw_follows_the_aggregate() -> None:
    q = tensor([0.0, 0.1, 0.35, 0.05, 0.5]).expand(100_000, -1)
    draw = draw_coupled(q, uniforms(100_000, 1, seed=1))
    assert_law(draw.token, q[0])
    assert torch.equal(draw.q_token, q[0][draw.token])
    assert bool((draw.price_threshold < draw.q_token).all())


def test_coupled_draw_of_a_published_key_can_be_done_by_hand() -> None:
    key = step_key(2024, 7)
    randomness = coupled_randomness([key], [["a"]])
    draw = draw_coupled(tensor([[0.25, 0.25, 0.5]]), randomness)
    u = randomness.token.item()
    token = 0 if u < 0.25 else 1 if u < 0.5 else 2
    assert (draw.token.item(), draw.cdf_below.item()) == (token, [0, 0.25, 0.5][token])
    assert draw.price_threshold.item() == randomness.price.item() * [0.25, 0.25, 0.5][token]


def test_race_draw_follows_the_linear_aggregate() -> None:
    n, weights = 60_000, tensor([1, 2, 0.5])
    p = tensor(B).expand(n, -1, -1)
    q = aggregate(p[:1], weights.unsqueeze(0), "linear")[0]
    draw = draw_race(p, q.expand(n, -1), weights.expand(n, -1), "linear", clocks(n, 3, 3, seed=2))
    assert_law(draw.token, q[0])
    assert_law(draw.winner, weights / weights.sum())
    for agent in range(3):
        assert_law(draw.agent_token[:, agent], p[0, agent])


@pytest.mark.slow
def test_race_draw_from_hashed_keys_follows_the_linear_aggregate() -> None:
    n, weights = 4_000, tensor([1, 2, 0.5])
    p = tensor(B).expand(n, -1, -1)
    q = aggregate(p[:1], weights.unsqueeze(0), "linear")[0]
    randomness = race_randomness([step_key(11, step) for step in range(n)], [["a", "b", "c"]] * n, 3)
    assert_law(draw_race(p, q.expand(n, -1), weights.expand(n, -1), "linear", randomness).token, q[0])


def test_race_is_won_by_the_smallest_clock_over_weight_and_by_nobody_without_weight() -> None:
    p, weights = tensor([B]), tensor([[1.0, 2.0, 0.0]])
    randomness = RaceRandomness(tensor([[1.0, 3.0, 1e-9]]), tensor([[1.0, 1.0, 0.1]]))
    draw = draw_race(p, p[:, 0], weights, "linear", randomness)
    assert (draw.winner.item(), draw.runner_up.item()) == (0, 1)
    assert draw.race_threshold.item() == pytest.approx(1.0 * 2.0 / 3.0)
    assert draw.agent_token.tolist() == [[2, 2, NONE]]  # min of 1/.7, 1/.2, .1/.1; of 1/.1, 1/.6, .1/.3


def test_race_without_a_rival_has_no_runner_up_and_no_threshold() -> None:
    p, weights = tensor([B]), tensor([[0.0, 2.0, 0.0]])
    draw = draw_race(p, p[:, 1], weights, "linear", clocks(1, 3, 3, seed=5))
    assert (draw.winner.item(), draw.runner_up.item(), draw.race_threshold.item()) == (1, NONE, 0)


def test_race_over_a_log_linear_aggregate_follows_it() -> None:
    n, weights = 60_000, tensor([1, 2, 0.5])
    q = aggregate(tensor([B]), weights.unsqueeze(0), "log_linear")[0].expand(n, -1)
    draw = draw_race(tensor(B).expand(n, -1, -1), q, weights.expand(n, -1), "log_linear", clocks(n, 3, 3, seed=6))
    assert_law(draw.token, q[0])
    assert bool((draw.winner == NONE).all())


def test_race_draws_no_token_of_probability_zero_however_early_its_clock_rings() -> None:
    p = tensor([[[0.0, 1e-300, 1.0]]])
    randomness = RaceRandomness(tensor([[1.0]]), tensor([[1e-16, 1e-16, 40.0]]))
    assert draw_race(p, p[:, 0], tensor([[1.0]]), "linear", randomness).token.item() == 2


def test_counterfactual_token_follows_what_r_puts_above_p() -> None:
    n = 60_000
    p, r = tensor([0.7, 0.2, 0.1, 0.0]), tensor([0.1, 0.5, 0.1, 0.3])
    surplus = excess(r.expand(n, 1, -1), p.expand(n, 1, -1))
    assert torch.allclose(surplus[0, 0], tensor([0, 0.3, 0, 0.3]))
    token = draw_counterfactual(surplus, torch.ones(n, 1, dtype=torch.float64), uniforms(n, 1, seed=8).counterfactual)
    assert_law(token.squeeze(-1), tensor([0, 0.5, 0, 0.5]))


def test_counterfactual_token_is_none_without_a_critical_bid_or_a_difference() -> None:
    surplus = tensor([[[0.0, 0.3]], [[0.0, 0.0]]])
    assert draw_counterfactual(surplus, tensor([[0.0], [1.0]]), tensor([[0.5], [0.5]])).tolist() == [[NONE], [NONE]]


def test_token_at_switches_once_at_the_critical_bid() -> None:
    bids = tensor([0.0, 0.49, 0.5, 1.0])
    critical, token, below = tensor([0.5] * 4), torch.full((4,), 7), torch.full((4,), 3)
    assert token_at(bids, token, critical, below).tolist() == [3, 3, 7, 7]
    assert token_at(bids, token, tensor([0.0] * 4), torch.full((4,), NONE)).tolist() == [7] * 4


def test_zero_weight_rows_are_zero_after_normalisation() -> None:
    assert normalised(tensor([B]), tensor([[1.0, 0.0, 1.0]]))[0, 1].tolist() == [0, 0, 0]
