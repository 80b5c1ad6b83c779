"""Where rewards come from: log-ratios, a function, a linear probe on embeddings and how one is fitted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tokenauction.engine.candidate import Candidate
from tokenauction.engine.errors import InvalidInput
from tokenauction.engine.reward import Callback, LinearProbe, LogRatio, RewardSource, fit_probe

AGENTS = ["alpha", "beta"]
CANDIDATES = [
    Candidate(0, (1, 2, 3), "one two", "end", (0.5,) * 3, (0.0,) * 3),
    Candidate(1, (2, 2), "two two", "end", (0.5,) * 2, (0.0,) * 2),
    Candidate(2, (3,), "three", "max_tokens", (0.5,), (0.0,)),
]
RATIOS = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=torch.float64)


def embed(token_ids: Sequence[int]) -> Tensor:
    """How often each of the tokens 1, 2, 3 stands in a text."""
    return torch.tensor([float(list(token_ids).count(token)) for token in (1, 2, 3)])


def rewards_of(source: RewardSource) -> list[list[float]]:
    rows: list[list[float]] = source.rewards(AGENTS, CANDIDATES, RATIOS).tolist()
    return rows


def test_log_ratio_is_what_the_models_say() -> None:
    assert rewards_of(LogRatio()) == RATIOS.tolist()
    assert LogRatio().reads_models


def test_callback_is_asked_for_every_agent_and_text() -> None:
    def likes(agent_id: str, text: str) -> float:
        return -math.inf if text == "three" else len(agent_id) + text.count("two")

    assert rewards_of(Callback(likes)) == [[6.0, 7.0, -math.inf], [5.0, 6.0, -math.inf]]
    assert not Callback(likes).reads_models


def test_probe_is_linear_in_the_embedding() -> None:
    weights = {
        "alpha": torch.tensor([1.0, 10.0, 100.0, 0.5], dtype=torch.float64),
        "beta": torch.tensor([0.0, -1.0, 0.0, 0.0], dtype=torch.float64),
        "nobody": torch.zeros(4, dtype=torch.float64),
    }
    assert rewards_of(LinearProbe(embed, weights)) == [[111.5, 20.5, 100.5], [-1.0, -2.0, 0.0]]


def test_probe_says_whom_it_does_not_know_and_what_does_not_fit() -> None:
    with pytest.raises(InvalidInput, match="'beta'"):
        rewards_of(LinearProbe(embed, {"alpha": torch.zeros(4, dtype=torch.float64)}))
    narrow = {agent: torch.zeros(3, dtype=torch.float64) for agent in AGENTS}
    with pytest.raises(InvalidInput, match="width of 2"):
        rewards_of(LinearProbe(embed, narrow))


def test_fitted_probe_finds_the_weights_that_made_the_rewards() -> None:
    grid = torch.cartesian_prod(*[torch.arange(4, dtype=torch.float64)] * 3)
    truth = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    weights = fit_probe(grid, grid @ truth + 7.0, ridge=1e-9)
    assert weights.tolist() == pytest.approx([2.0, -1.0, 0.5, 7.0], abs=1e-6)


def test_fitted_probe_shrinks_all_but_the_constant() -> None:
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    weights = fit_probe(x, torch.tensor([4.0, 2.0], dtype=torch.float64), ridge=2.0)
    assert weights.tolist() == pytest.approx([0.5, 3.0])  # 2w + 2w = 2 and c = 3


@pytest.mark.parametrize(
    ("num_rewards", "ridge", "fragment"), [(1, 1.0, "one reward"), (2, 0.0, "positive"), (2, math.nan, "positive")]
)
def test_fitting_refuses_with_the_reason(num_rewards: int, ridge: float, fragment: str) -> None:
    with pytest.raises(InvalidInput, match=fragment):
        fit_probe(torch.zeros(2, 3, dtype=torch.float64), torch.zeros(num_rewards, dtype=torch.float64), ridge)
