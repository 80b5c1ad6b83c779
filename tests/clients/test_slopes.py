"""Half of a small reward's gain, all of a large one's: [MO]'s slopes, on instances nobody chose and by the algebra."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenauction.clients.cli.reproduction.slopes import LARGE, gains, slopes
from tokenauction.clients.cli.reproduction.statistics import fit

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", range(4))
def test_slopes_are_half_and_one_and_need_the_offset(seed: int) -> None:
    found = slopes(seed)
    assert found.small.slope == pytest.approx(0.5, abs=0.05)
    assert found.large.slope == pytest.approx(1.0, abs=0.05)
    assert found.with_offset.r_squared > 0.9
    assert found.without_offset.r_squared < 0.2


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    num_candidates=st.integers(2, 40),
    size=st.floats(1e-4, 0.1),
    num_agents=st.integers(1, 4),
)
def test_slope_of_small_rewards_is_half_in_any_market(
    seed: int, num_candidates: int, size: float, num_agents: int
) -> None:
    draw = np.random.default_rng(seed)
    rewards = draw.standard_normal((100, num_agents, num_candidates)) * draw.uniform(0, 3)
    rewards[:, 0] = size * draw.standard_normal((100, num_candidates)) * draw.uniform(0.5, 2, (100, 1))
    weights = draw.standard_normal((100, num_candidates)) * draw.uniform(0, 3)
    reward_gain, utility_gain = gains(torch.from_numpy(rewards), torch.from_numpy(weights))
    assert fit(reward_gain.numpy(), utility_gain.numpy()).slope == pytest.approx(0.5, abs=0.05)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), num_candidates=st.integers(2, 40), constant=st.floats(-50, 50))
def test_slope_of_a_large_reward_against_a_flat_market_is_one(seed: int, num_candidates: int, constant: float) -> None:
    draw = np.random.default_rng(seed)
    rewards = np.full((200, 1, num_candidates), constant)  # a constant in a reward changes nothing
    rewards[:, 0, draw.integers(num_candidates)] += draw.uniform(*LARGE, 200)
    flat = torch.zeros(200, num_candidates, dtype=torch.float64)
    reward_gain, utility_gain = gains(torch.from_numpy(rewards), flat)
    line = fit(reward_gain.numpy(), utility_gain.numpy())
    assert line.slope == pytest.approx(1.0, abs=0.05)
    # What is lost is what is paid, which a flat market bounds.
    assert (reward_gain - utility_gain).max() <= math.log(num_candidates) + 1e-9
