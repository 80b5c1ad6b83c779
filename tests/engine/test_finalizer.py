"""The softmax auction gives the published numbers and keeps its axioms, for whatever rewards and candidates."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tokenauction.engine.errors import InvalidInput, NoCommonSupport
from tokenauction.engine.finalizer import Finalization, choice_uniform, choose, finalize

INF = math.inf
# Vector C of docs/mechanism.md.
REWARDS, LOG_WEIGHT = [[1.0, 0.0, -1.0], [0.0, 0.5, 0.0]], [0.0, -0.2, 0.1]


def f64(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def run(rewards: object, log_weight: object, tau: float = 1.0) -> Finalization:
    return finalize(f64(rewards), f64(log_weight), tau)


def close(*expected: float, abs: float = 1e-10) -> object:
    return pytest.approx(list(expected), abs=abs, rel=0)


Instance = tuple[Tensor, Tensor, float]


@st.composite
def instances(draw: st.DrawFn, scale: float = 30.0, may_rule_out: bool = False) -> Instance:
    """Rewards of 1 to 4 agents for 1 to 6 candidates, their weights, and τ; the first candidate is never ruled out."""
    num_agents, num_candidates = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    number = st.floats(-scale, scale)
    entry = st.one_of(number, st.just(-INF)) if may_rule_out else number
    rows = [
        [draw(number), *draw(st.lists(entry, min_size=num_candidates - 1, max_size=num_candidates - 1))]
        for _ in range(num_agents)
    ]
    weight = draw(st.lists(st.floats(-5, 5), min_size=num_candidates, max_size=num_candidates))
    return f64(rows), f64(weight), draw(st.floats(0.05, 20))


# --- The numbers --------------------------------------------------------------------------------------------------


def test_finalizer_gives_the_published_numbers() -> None:
    result = run(REWARDS, LOG_WEIGHT)
    assert result.probabilities.tolist() == close(0.6074766072, 0.3016639555, 0.0908594373)
    assert result.utility.tolist() == close(0.2586105504, 0.1263521027)
    assert result.payment.tolist() == close(0.2580066194, 0.0244798750)


def test_finalizer_of_many_instances_is_each_of_them_alone() -> None:
    many = finalize(f64([REWARDS, [[0.0, 0.0, 0.0], [3.0, -2.0, 1.0]]]), f64([LOG_WEIGHT, [0.0, 0.0, -1.0]]))
    one = run(REWARDS, LOG_WEIGHT)
    assert many.payment[0].tolist() == one.payment.tolist()
    assert many.probabilities.shape == (2, 3) and many.probabilities_without.shape == (2, 2, 3)


@pytest.mark.slow
@given(instances(may_rule_out=True))
def test_payment_is_tau_times_the_divergence_from_the_choice_without(instance: Instance) -> None:
    rewards, log_weight, tau = instance
    result = finalize(rewards, log_weight, tau)
    for agent in range(rewards.shape[0]):
        others = torch.cat((rewards[:agent], rewards[agent + 1 :])).sum(0)
        log_without = torch.log_softmax(others / tau + log_weight, -1)
        log_with = torch.log_softmax(rewards.sum(0) / tau + log_weight, -1)
        terms = torch.where(log_with > -INF, log_with.exp() * (log_with - log_without), 0.0)
        assert float(result.payment[agent]) == pytest.approx(tau * float(terms.sum()), abs=1e-10 * tau, rel=1e-10)
        assert result.probabilities_without[agent].tolist() == pytest.approx(log_without.exp().tolist(), abs=1e-12)


@pytest.mark.slow
@given(instances())
def test_payment_is_the_expected_reward_less_the_utility(instance: Instance) -> None:
    rewards, log_weight, tau = instance
    result = finalize(rewards, log_weight, tau)
    for agent, reward in enumerate(rewards):
        beta = (rewards.sum(0) - reward) / tau + log_weight
        utility = tau * (torch.logsumexp(reward / tau + beta, -1) - torch.logsumexp(beta, -1))
        assert float(result.utility[agent]) == pytest.approx(float(utility), abs=1e-9)
        assert float(result.expected_reward[agent]) == pytest.approx(
            float(result.payment[agent] + result.utility[agent]), abs=1e-9
        )


@pytest.mark.slow
@given(instances())
def test_log_mean_weight_and_divergence_are_those_of_the_whole_market(instance: Instance) -> None:
    rewards, log_weight, tau = instance
    result = finalize(rewards, log_weight, tau)
    score = rewards.sum(0) / tau + log_weight
    expected = torch.logsumexp(score, -1) - math.log(score.shape[-1])
    assert float(result.log_mean_weight) == pytest.approx(float(expected), abs=1e-9)
    lift = torch.log_softmax(score, -1) - torch.log_softmax(log_weight, -1)
    assert float(result.divergence) == pytest.approx(float((result.probabilities * lift).sum()), abs=1e-9)


@pytest.mark.slow
@given(instances())
def test_effective_sample_size_lies_between_one_and_all(instance: Instance) -> None:
    size = float(finalize(*instance).effective_sample_size)
    assert 1 - 1e-12 <= size <= instance[1].shape[-1] + 1e-12


# --- The axioms ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(instances(may_rule_out=True))
def test_payments_are_never_negative(instance: Instance) -> None:
    assert (finalize(*instance).payment >= 0).all()


@pytest.mark.slow
@given(instances(), st.data())
def test_truth_is_best_against_any_misreport(instance: Instance, data: st.DataObject) -> None:
    """For fixed candidates: E[own true reward] - payment is largest where the report is the reward itself."""
    rewards, log_weight, tau = instance
    agent = data.draw(st.integers(0, rewards.shape[0] - 1))
    num_candidates = rewards.shape[1]
    report = data.draw(st.lists(st.floats(-60, 60), min_size=num_candidates, max_size=num_candidates))
    lies = rewards.clone()
    lies[agent] = f64(report)
    honest, lying = finalize(rewards, log_weight, tau), finalize(lies, log_weight, tau)
    gain = float((lying.probabilities * rewards[agent]).sum() - lying.payment[agent])
    assert gain <= float(honest.utility[agent]) + 1e-9


@pytest.mark.slow
@given(instances(), st.floats(0, 4))
def test_truth_is_best_against_a_scaled_value(instance: Instance, factor: float) -> None:
    rewards, log_weight, tau = instance
    lies = rewards.clone()
    lies[0] *= factor
    lying = finalize(lies, log_weight, tau)
    gain = float((lying.probabilities * rewards[0]).sum() - lying.payment[0])
    assert gain <= float(finalize(rewards, log_weight, tau).utility[0]) + 1e-9


@pytest.mark.slow
@given(instances())
def test_expected_reward_grows_with_the_value(instance: Instance) -> None:
    rewards, log_weight, tau = instance
    expected = []
    for factor in (0.0, 0.5, 1.0, 2.0, 8.0):
        scaled = rewards.clone()
        scaled[0] *= factor
        expected.append(float((finalize(scaled, log_weight, tau).probabilities * rewards[0]).sum()))
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(expected))


@pytest.mark.slow
@given(instances(may_rule_out=True))
def test_agent_without_rewards_pays_and_gains_exactly_nothing(instance: Instance) -> None:
    rewards, log_weight, tau = instance
    result = finalize(torch.cat((rewards, torch.zeros_like(rewards[:1]))), log_weight, tau)
    assert (float(result.payment[-1]), float(result.utility[-1]), float(result.expected_reward[-1])) == (0.0, 0.0, 0.0)
    assert result.payment[:-1].tolist() == pytest.approx(finalize(*instance).payment.tolist(), abs=1e-10)


@pytest.mark.slow
@given(instances(), st.floats(-1e6, 1e6))
def test_agent_with_a_constant_reward_pays_exactly_nothing(instance: Instance, constant: float) -> None:
    rewards, log_weight, tau = instance
    result = finalize(torch.cat((rewards, torch.full_like(rewards[:1], constant))), log_weight, tau)
    assert float(result.payment[-1]) == 0.0
    assert float(result.utility[-1]) == constant


@pytest.mark.slow
@given(instances(), st.floats(-1e3, 1e3))
def test_constant_in_a_reward_changes_nothing_but_the_utility(instance: Instance, constant: float) -> None:
    rewards, log_weight, tau = instance
    moved = rewards.clone()
    moved[0] += constant
    before, after = finalize(rewards, log_weight, tau), finalize(moved, log_weight, tau)
    assert after.payment.tolist() == pytest.approx(before.payment.tolist(), abs=1e-9)
    assert after.probabilities.tolist() == pytest.approx(before.probabilities.tolist(), abs=1e-10)
    assert float(after.utility[0] - before.utility[0]) == pytest.approx(constant, abs=1e-9)


@pytest.mark.slow
@given(instances(), st.floats(-700, 700))
def test_constant_in_the_weights_changes_nothing(instance: Instance, constant: float) -> None:
    rewards, log_weight, tau = instance
    before, after = finalize(rewards, log_weight, tau), finalize(rewards, log_weight + constant, tau)
    assert after.payment.tolist() == pytest.approx(before.payment.tolist(), abs=1e-9)


@pytest.mark.slow
@given(instances())
def test_rewards_that_are_never_negative_give_no_negative_utility(instance: Instance) -> None:
    rewards, log_weight, tau = instance
    assert (finalize(rewards.abs(), log_weight, tau).utility >= 0).all()


@pytest.mark.slow
@given(instances())
def test_rewards_and_tau_in_another_currency_scale_the_payments(instance: Instance) -> None:
    rewards, log_weight, tau = instance
    before, after = finalize(rewards, log_weight, tau), finalize(rewards * 1e-3, log_weight, tau * 1e-3)
    assert after.probabilities.tolist() == pytest.approx(before.probabilities.tolist(), abs=1e-12)
    assert (after.payment * 1e3).tolist() == pytest.approx(before.payment.tolist(), abs=1e-9)


@pytest.mark.slow
@given(instances(may_rule_out=True))
def test_duplicate_candidates_stay_separate_and_count_twice(instance: Instance) -> None:
    """Two of everything: each has half of its share, and nobody pays another price."""
    rewards, log_weight, tau = instance
    once = finalize(rewards, log_weight, tau)
    twice = finalize(torch.cat((rewards, rewards), -1), torch.cat((log_weight, log_weight)), tau)
    half = (once.probabilities / 2).tolist()
    assert twice.probabilities.tolist() == pytest.approx(half + half, abs=1e-12)
    assert twice.payment.tolist() == pytest.approx(once.payment.tolist(), abs=1e-10)


# --- The edges ----------------------------------------------------------------------------------------------------


def test_one_candidate_wins_at_price_zero() -> None:
    result = run([[3.0], [-7.0]], [-2.5])
    assert result.probabilities.tolist() == [1.0]
    assert result.payment.tolist() == [0.0, 0.0]
    assert result.utility.tolist() == [3.0, -7.0]


def test_one_agent_pays_for_moving_the_reference() -> None:
    result = run([[1.0, 0.0]], [0.0, 0.0])
    p = 1 / (1 + math.exp(-1))
    assert result.payment.tolist() == close(p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)))
    assert float(result.divergence) == pytest.approx(float(result.payment[0]), abs=1e-12)


def test_reward_of_minus_infinity_rules_its_candidate_out() -> None:
    result = run([[-INF, 0.0], [1.0, 0.0]], [0.0, 0.0])
    assert result.probabilities.tolist() == [0.0, 1.0]
    without_first = 1 / (1 + math.e)  # what the second agent alone leaves to the second candidate
    assert result.payment.tolist() == close(-math.log(without_first), 0.0)


def test_reference_of_minus_infinity_rules_its_candidate_out() -> None:
    result = run([[50.0, 0.0, 1.0]], [-INF, 0.0, 0.0])
    assert float(result.probabilities[0]) == 0.0
    assert float(result.payment[0]) == pytest.approx(float(run([[0.0, 1.0]], [0.0, 0.0]).payment[0]), abs=1e-12)


@pytest.mark.parametrize("tau", [1e-3, 1.0, 1e3])
def test_ten_thousand_nats_neither_overflow_nor_lose_digits(tau: float) -> None:
    rewards = [[tau * 1e4, -tau * 1e4, 0.0], [-tau * 1e4, tau * 1e4, 0.0], [tau, 0.0, 0.0]]
    result = run(rewards, [0.0, 0.0, 0.0], tau)
    assert (result.payment / tau).tolist() == close(*direct(rewards, [0.0, 0.0, 0.0], tau), abs=1e-9)


def direct(rewards: list[list[float]], log_weight: list[float], tau: float) -> list[float]:
    """Payments in nats, from logarithms of probabilities alone."""
    r = f64(rewards) / tau
    log_with = torch.log_softmax(r.sum(0) + f64(log_weight), -1)
    payments = []
    for agent in range(r.shape[0]):
        others = torch.cat((r[:agent], r[agent + 1 :])).sum(0)
        log_without = torch.log_softmax(others + f64(log_weight), -1)
        payments.append(float((log_with.exp() * (log_with - log_without)).sum()))
    return payments


@pytest.mark.slow
@given(instances(scale=1e4))
def test_rewards_of_any_size_give_finite_numbers(instance: Instance) -> None:
    result = finalize(*instance)
    for column in (result.probabilities, result.payment, result.utility, result.log_mean_weight, result.divergence):
        assert column.isfinite().all()
    spread = instance[0].amax(-1) - instance[0].amin(-1)
    assert (result.payment <= spread + 1e-6).all()


def test_ten_thousand_candidates_sum_to_one() -> None:
    j = torch.arange(10_000, dtype=torch.float64)
    rewards = torch.stack((torch.sin(j), torch.cos(3 * j), j / 5_000))
    result = finalize(rewards, -j / 1e4)
    assert float(result.probabilities.sum()) == pytest.approx(1, abs=1e-12)
    assert result.payment.tolist() == close(*direct(rewards.tolist(), (-j / 1e4).tolist(), 1.0))


def test_tiny_rewards_keep_their_digits() -> None:
    """For ε → 0 the payment is ε²/2 times the variance of the reward; here 10⁻¹² · ¼ / 2."""
    result = run([[1e-6, 0.0]], [0.0, 0.0])
    assert float(result.payment[0]) == pytest.approx(1e-12 / 8, rel=1e-6)


WRONG = {
    "nan": ([[math.nan, 0.0]], [0.0, 0.0], 1.0, "NaN"),
    "infinite reward": ([[INF, 0.0]], [0.0, 0.0], 1.0, "+inf"),
    "reward beyond tau": ([[1e10, 0.0]], [0.0, 0.0], 1e-295, "beyond"),
    "infinite weight": ([[1.0, 0.0]], [INF, 0.0], 1.0, "π_gen"),
    "nan weight": ([[1.0, 0.0]], [math.nan, 0.0], 1.0, "NaN"),
    "no candidate": ([[]], [], 1.0, "no candidate"),
    "tau of 0": ([[1.0]], [0.0], 0.0, "tau is 0.0"),
    "negative tau": ([[1.0]], [0.0], -1.0, "tau"),
    "tau is nan": ([[1.0]], [0.0], math.nan, "tau"),
    "infinite tau": ([[1.0]], [0.0], INF, "tau"),
    "lengths": ([[1.0, 2.0]], [0.0], 1.0, "shape"),
}


@pytest.mark.parametrize("case", WRONG)
def test_finalizer_refuses_with_the_reason(case: str) -> None:
    rewards, log_weight, tau, fragment = WRONG[case]
    with pytest.raises(InvalidInput, match=fragment.replace("+", r"\+")):
        run(rewards, log_weight, tau)


def test_finalizer_refuses_a_market_without_agents() -> None:
    with pytest.raises(InvalidInput, match="no agent"):
        finalize(torch.zeros(0, 2, dtype=torch.float64), f64([0.0, 0.0]))


@pytest.mark.parametrize(("rewards", "log_weight"), [([[-INF, 0], [0, -INF]], [0, 0]), ([[0, 0]], [-INF, -INF])])
def test_finalizer_refuses_where_every_candidate_is_ruled_out(rewards: object, log_weight: object) -> None:
    with pytest.raises(NoCommonSupport):
        run(rewards, log_weight)


# --- The draw -----------------------------------------------------------------------------------------------------


def test_choice_is_by_inverse_cdf() -> None:
    p = f64([0.2, 0.0, 0.3, 0.5])
    drawn = choose(p.expand(6, 4), f64([0.0, 0.1999, 0.2, 0.4999, 0.5, 0.9999]))
    assert drawn.tolist() == [0, 0, 2, 2, 3, 3]


def test_choice_follows_the_probabilities() -> None:
    result = run(REWARDS, LOG_WEIGHT)
    uniforms = f64([choice_uniform(seed) for seed in range(4000)])
    drawn = choose(result.probabilities.expand(4000, 3), uniforms)
    shares = torch.bincount(drawn, minlength=3).double() / 4000
    assert shares.tolist() == pytest.approx(result.probabilities.tolist(), abs=0.03)


def test_choice_uniform_is_a_function_of_the_seed() -> None:
    assert choice_uniform(7) == choice_uniform(7) != choice_uniform(8)
    assert 0 <= choice_uniform(2**256 - 1) < 1
