"""The optimum by weighing every text, and how fast each proposal comes up to it: [MO]'s claim, with the truth known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.toy_texts import END, EXACT, FIRST, NUM_STEPS, REFERENCE, SECOND, Texts, all_texts, law_of, table_sum

from tokenauction.models.toy_laws import Chain, text_law
from tokenauction.models.toy_market import PROPOSALS, Objective, Proposal, ToyMarket

OBJECTIVE = Objective([FIRST, SECOND], [0.5, 0.8], REFERENCE, tau=0.7)


# --- The optimum ----------------------------------------------------------------------------------------------------


def weigh(objective: Objective) -> tuple[Texts, float]:
    """The optimum and ln Z by weighing every text: π*(y) = π_ref(y)·exp(Σ_i r_i(y)/τ)/Z."""
    weights = {}
    for text in all_texts():
        reference = table_sum(objective.reference, text)
        pairs = zip(objective.agents, objective.strengths, strict=True)
        reward = sum(strength * (table_sum(agent, text) - reference) for agent, strength in pairs)
        weights[text] = math.exp(reference + reward / objective.tau)
    total = math.fsum(weights.values())
    return {text: weight / total for text, weight in weights.items()}, math.log(total)


def value_of(law: Texts, objective: Objective) -> float:
    """J of any law of texts, by the sum over all of them."""
    total = 0.0
    for text, probability in law.items():
        reference = table_sum(objective.reference, text)
        pairs = zip(objective.agents, objective.strengths, strict=True)
        reward = sum(strength * (table_sum(agent, text) - reference) for agent, strength in pairs)
        total += probability * (reward - objective.tau * (math.log(probability) - reference))
    return total


@pytest.mark.parametrize(
    "objective",
    [
        OBJECTIVE,
        Objective([FIRST], [0.7], REFERENCE, tau=0.7),
        Objective([FIRST, SECOND], [3.0, 5.0], REFERENCE, tau=0.5),  # rewards outweigh the reference by far
        Objective([], [], REFERENCE, tau=1.0),
    ],
)
def test_optimum_is_what_weighing_every_text_gives(objective: Objective) -> None:
    chain, log_partition = objective.optimum(NUM_STEPS)
    law, truth = weigh(objective)
    assert log_partition == pytest.approx(truth, abs=EXACT)
    assert law_of(chain) == pytest.approx(law, abs=EXACT)


def test_optimum_reaches_tau_times_the_log_partition() -> None:
    chain, log_partition = OBJECTIVE.optimum(NUM_STEPS)
    assert OBJECTIVE.value(chain) == pytest.approx(OBJECTIVE.tau * log_partition, abs=EXACT)
    assert value_of(law_of(chain), OBJECTIVE) == pytest.approx(OBJECTIVE.tau * log_partition, abs=EXACT)


def test_optimum_of_one_agent_whose_strength_is_tau_is_that_agent() -> None:
    chain, log_partition = Objective([FIRST], [0.7], REFERENCE, tau=0.7).optimum(NUM_STEPS)
    assert log_partition == pytest.approx(0, abs=EXACT)
    torch.testing.assert_close(chain.log_probs, FIRST.expand(NUM_STEPS, 4, 4), atol=EXACT, rtol=0)


def test_optimum_without_agents_is_the_reference() -> None:
    chain, log_partition = Objective([], [], REFERENCE, tau=1.0).optimum(NUM_STEPS)
    assert log_partition == pytest.approx(0, abs=EXACT)
    torch.testing.assert_close(chain.log_probs, REFERENCE.expand(NUM_STEPS, 4, 4), atol=EXACT, rtol=0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=16, max_size=16))
def test_no_other_chain_does_better_than_the_optimum(shifts: list[float]) -> None:
    chain, log_partition = OBJECTIVE.optimum(NUM_STEPS)
    other = Chain((chain.log_probs + torch.tensor(shifts, dtype=torch.float64).reshape(4, 4)).log_softmax(-1))
    best = OBJECTIVE.tau * log_partition
    assert OBJECTIVE.value(other) <= best + EXACT
    # What is lost is τ·KL(other ‖ optimum), exactly.
    divergence = other.expectation(other.log_probs - chain.log_probs)
    assert best - OBJECTIVE.value(other) == pytest.approx(OBJECTIVE.tau * divergence, abs=EXACT)


def test_value_equals_the_sum_over_all_texts() -> None:
    for table in (FIRST, SECOND, REFERENCE):
        chain = Chain.of_table(table, NUM_STEPS)
        assert OBJECTIVE.value(chain) == pytest.approx(value_of(law_of(chain), OBJECTIVE), abs=EXACT)


@pytest.mark.parametrize("tau", [0.0, -1.0])
def test_objective_is_refused_without_a_positive_tau(tau: float) -> None:
    with pytest.raises(ValueError, match="without a positive one the objective has no unique optimum"):
        Objective([FIRST], [1.0], REFERENCE, tau)


def test_value_of_a_single_candidate_misses_the_log_partition_by_the_divergence() -> None:
    optimum, log_partition = OBJECTIVE.optimum(NUM_STEPS)
    proposal = Chain.of_table(SECOND, NUM_STEPS)
    divergence = proposal.expectation(proposal.log_probs - optimum.log_probs)
    assert OBJECTIVE.log_weight_gap(proposal) == pytest.approx(-divergence, abs=EXACT)
    truth = math.fsum(
        probability * OBJECTIVE.log_weights(proposal, padded(text)).item()
        for text, probability in law_of(proposal).items()
    )
    assert truth - log_partition == pytest.approx(-divergence, abs=EXACT)


def padded(text: Sequence[int]) -> torch.Tensor:
    return torch.tensor([[*text, *[END] * (NUM_STEPS - len(text))]])


@pytest.mark.parametrize("table", [REFERENCE, FIRST, SECOND])
def test_weights_have_the_partition_as_their_mean_under_every_proposal(table: torch.Tensor) -> None:
    proposal = Chain.of_table(table, NUM_STEPS)
    mean = math.fsum(
        probability * OBJECTIVE.log_weights(proposal, padded(text)).exp().item()
        for text, probability in law_of(proposal).items()
    )
    assert math.log(mean) == pytest.approx(OBJECTIVE.optimum(NUM_STEPS)[1], abs=EXACT)


# --- The market -----------------------------------------------------------------------------------------------------


def gap(market: ToyMarket, name: Proposal, num_candidates: int, num_sets: int) -> float:
    """E[ln of the mean weight of so many candidates] - ln Z, over `num_sets` sets of candidates drawn by hash."""
    if num_candidates == 1:
        return market.objective.log_weight_gap(market.proposal(name))
    generator = torch.Generator().manual_seed(97 * market.seed + PROPOSALS.index(name))
    uniforms = torch.rand(num_sets * num_candidates, market.num_steps, dtype=torch.float64, generator=generator)
    proposal = market.proposal(name)
    weights = market.objective.log_weights(proposal, proposal.sample(uniforms)).reshape(num_sets, num_candidates)
    return weights.logsumexp(1).mean().item() - math.log(num_candidates) - market.optimum[1]


@pytest.mark.parametrize("num_agents", [1, 2, 3])
@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4])
def test_four_context_aware_candidates_beat_twenty_of_the_reference(seed: int, num_agents: int) -> None:
    market = ToyMarket(seed, num_agents)
    assert gap(market, "context_aware", 4, 2500) > gap(market, "reference", 20, 500)


@pytest.mark.parametrize("num_agents", [1, 2, 3])
@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4])
def test_one_draw_of_the_token_auction_is_worth_twenty_context_aware_ones(seed: int, num_agents: int) -> None:
    market = ToyMarket(seed, num_agents)
    assert gap(market, "token_auction", 1, 1) > gap(market, "context_aware", 20, 500) - 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", PROPOSALS)
def test_gap_of_every_proposal_goes_to_zero(name: Proposal) -> None:
    market = ToyMarket(1)
    gaps = [gap(market, name, num, 200_000 // num) for num in (1, 10, 100, 1000, 20_000)]
    assert gaps[0] < gaps[1] < gaps[2] < 0
    assert gaps[2] < gaps[4] < 0.05 and gaps[4] > -0.05, gaps
    assert all(value < 0.05 for value in gaps)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(-(2**40), 2**40), num_agents=st.integers(1, 5))
def test_token_auction_misses_the_optimum_by_little_in_every_market(seed: int, num_agents: int) -> None:
    market = ToyMarket(seed, num_agents)
    missed = {name: -market.objective.log_weight_gap(market.proposal(name)) for name in PROPOSALS}
    assert -EXACT <= missed["token_auction"] < missed["context_aware"] < missed["reference"]
    assert missed["token_auction"] < 0.15


def test_optimum_draws_exactly_what_it_says() -> None:
    market = ToyMarket(5, num_steps=3)
    optimum, _ = market.optimum
    uniforms = torch.rand(40_000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    texts = optimum.sample(uniforms)
    likeliest = max(text_law(optimum.next_token, optimum.end, 3).items(), key=lambda item: item[1])
    row = torch.tensor([*likeliest[0], *[optimum.end] * (3 - len(likeliest[0]))])
    share = (texts == row).all(1).double().mean().item()
    assert share == pytest.approx(likeliest[1], abs=4 * math.sqrt(likeliest[1] / 40_000))


def test_reference_is_shy_of_brands_and_advertisers_are_not_of_their_own() -> None:
    market = ToyMarket(0, 2)
    brands = torch.eye(market.reference.shape[0], dtype=torch.float64)[:2]
    chains = [Chain.of_table(table, 12) for table in (market.reference, *market.agents)]
    counts = [[chain.expectation(brand.expand_as(market.reference)) for brand in brands] for chain in chains]
    assert counts[1][0] > counts[0][0] and counts[2][1] > counts[0][1]
    assert market.names_a_brand(torch.tensor([[2, 0, 12], [2, 3, 12], [12, 12, 12]])).tolist() == [True, False, False]


def test_rewards_are_those_of_the_objective() -> None:
    market = ToyMarket(3, 3)
    chain = market.proposal("context_aware")
    texts = chain.sample(torch.rand(20, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    weights = market.rewards(texts).sum(0) + chain.totals(market.reference - chain.log_probs, texts)
    torch.testing.assert_close(market.objective.log_weights(chain, texts), weights, atol=1e-10, rtol=0)


@pytest.mark.parametrize("num_agents", [0, -1, 12])
def test_market_is_refused_without_advertisers_or_with_more_than_symbols(num_agents: int) -> None:
    with pytest.raises(ValueError, match="a toy market has 1 to 11"):
        ToyMarket(0, num_agents)


def test_market_is_refused_without_steps() -> None:
    with pytest.raises(ValueError, match="at least 1 is needed"):
        ToyMarket(num_steps=0)
