"""The toy world against brute force: every law by enumeration, the optimum by weighing every text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenauction.models import base
from tokenauction.models.toy import (
    Chain,
    Objective,
    ToyModel,
    ToyTokenizer,
    ToyWorld,
    text_law,
    text_log_prob,
)

# Exact formulas in float64 on a few hundred terms.
EXACT = 1e-12

WORLD = ToyWorld(seed=3, symbols="xyz")
END = WORLD.end
NUM_STEPS = 4
REFERENCE, FIRST, SECOND = (WORLD.table(WORLD.tokenizer.encode_prompt(name)) for name in ("reference", "a", "b"))
OBJECTIVE = Objective([FIRST, SECOND], [0.5, 0.8], REFERENCE, tau=0.7)

Texts = dict[tuple[int, ...], float]


def law_of(chain: Chain) -> Texts:
    return text_law(chain.next_token, END, len(chain.log_probs))


def steps_of(text: Sequence[int]) -> list[tuple[int, int]]:
    """(previous token, token) of every step, where the end stands in front of the first."""
    return list(itertools.pairwise([END, *text]))


def table_sum(table: torch.Tensor, text: Sequence[int]) -> float:
    return math.fsum(table[state, token].item() for state, token in steps_of(text))


def all_texts() -> list[tuple[int, ...]]:
    symbols = range(END)
    ended = [(*text, END) for size in range(NUM_STEPS) for text in itertools.product(symbols, repeat=size)]
    return ended + list(itertools.product(symbols, repeat=NUM_STEPS))


# --- Laws of texts --------------------------------------------------------------------------------------------------


def test_text_law_covers_every_text_once_and_sums_to_one() -> None:
    law = law_of(Chain.of_table(FIRST, NUM_STEPS))
    assert sorted(law) == sorted(all_texts())
    assert math.fsum(law.values()) == pytest.approx(1, abs=EXACT)


def test_text_law_is_the_product_of_the_steps() -> None:
    law = law_of(Chain.of_table(FIRST, NUM_STEPS))
    for text, probability in law.items():
        assert math.log(probability) == pytest.approx(table_sum(FIRST, text), abs=EXACT)


def test_text_log_prob_agrees_with_the_law() -> None:
    chain = Chain.of_table(SECOND, NUM_STEPS)
    for text, probability in law_of(chain).items():
        assert text_log_prob(chain.next_token, text) == pytest.approx(math.log(probability), abs=EXACT)
    assert text_log_prob(chain.next_token, ()) == 0


def test_text_law_takes_any_per_step_function_such_as_a_mixture_with_fixed_weights() -> None:
    first, second = Chain.of_table(FIRST, NUM_STEPS), Chain.of_table(SECOND, NUM_STEPS)

    def mixture(ids: Sequence[int]) -> torch.Tensor:
        return (0.25 * first.next_token(ids).exp() + 0.75 * second.next_token(ids).exp()).log()

    law = text_law(mixture, END, NUM_STEPS)
    assert math.fsum(law.values()) == pytest.approx(1, abs=EXACT)
    mixed = 0.25 * FIRST.exp() + 0.75 * SECOND.exp()
    for text, probability in law.items():
        assert probability == pytest.approx(math.prod(mixed[s, t].item() for s, t in steps_of(text)), rel=1e-12)


def test_text_law_leaves_out_what_cannot_happen() -> None:
    certain = torch.full((3, 3), -torch.inf, dtype=torch.float64)
    certain[2, 0] = certain[0, 1] = certain[1, 2] = 0.0
    assert text_law(Chain.of_table(certain, 4).next_token, 2, 4) == {(0, 1, 2): 1.0}
    assert text_law(Chain.of_table(certain, 2).next_token, 2, 2) == {(0, 1): 1.0}


def test_expectation_equals_the_sum_over_all_texts() -> None:
    chain, _ = OBJECTIVE.optimum(NUM_STEPS)
    values = torch.arange(NUM_STEPS * 16, dtype=torch.float64).reshape(NUM_STEPS, 4, 4).sin()
    truth = math.fsum(
        probability * sum(values[step, s, t].item() for step, (s, t) in enumerate(steps_of(text)))
        for text, probability in law_of(chain).items()
    )
    assert chain.expectation(values) == pytest.approx(truth, abs=EXACT)
    length = math.fsum(probability * len(text) for text, probability in law_of(chain).items())
    assert chain.expectation(torch.ones(4, 4, dtype=torch.float64)) == pytest.approx(length, abs=EXACT)


def test_expectation_takes_no_harm_from_what_cannot_happen() -> None:
    table = torch.tensor([[0.5, 0.5], [1.0, 0.0]], dtype=torch.float64).log()
    assert Chain.of_table(table, 3).expectation(table) == pytest.approx(-1.5 * math.log(2), abs=EXACT)


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


# --- Exact sampling -------------------------------------------------------------------------------------------------


def test_sample_draws_each_text_from_exactly_its_share_of_the_uniforms() -> None:
    chain, _ = OBJECTIVE.optimum(NUM_STEPS)
    for text in all_texts():
        lows, highs = [], []
        for step, token in enumerate(text):
            cdf = torch.cat([torch.zeros(1, dtype=torch.float64), chain.next_token(text[:step]).exp().cumsum(0)])
            low, high = (cdf[token : token + 2] / cdf[-1]).tolist()
            lows.append(low + 1e-9 * (high - low))
            highs.append(high - 1e-9 * (high - low))
        padding = [0.5] * (NUM_STEPS - len(text))
        assert tuple(chain.sample(lows + padding)) == text
        assert tuple(chain.sample(highs + padding)) == text


def test_sample_stops_at_the_end_or_when_uniforms_run_out() -> None:
    chain, _ = OBJECTIVE.optimum(NUM_STEPS)
    last = math.nextafter(1, 0)
    assert chain.sample([last] * NUM_STEPS) == [END]
    assert chain.sample([0.0] * 9) == [0] * NUM_STEPS
    assert chain.sample([0.0] * 2) == [0, 0]


@pytest.mark.parametrize("uniform", [-0.1, 1.0, math.nan])
def test_sample_is_refused_for_what_is_no_uniform(uniform: float) -> None:
    with pytest.raises(ValueError, match="it must be at least 0 and less than 1"):
        Chain.of_table(FIRST, 2).sample([uniform])


# --- The world ------------------------------------------------------------------------------------------------------


def test_table_is_the_same_on_every_machine() -> None:
    table = ToyWorld(seed=0, symbols="ab").table([0, 1, 1]).exp()
    golden = [  # computed from the definition with hashlib and math alone
        [0.7593743896786916, 0.21725814236979993, 0.023367467951508313],
        [0.35286206719248137, 0.638853577155863, 0.008284355651655452],
        [0.4851645909095077, 0.07277992026117837, 0.4420554888293139],
    ]
    np.testing.assert_allclose(table.numpy(), golden, rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(-(2**70), 2**70),
    prompt=st.lists(st.integers(0, 8), min_size=1, max_size=6),
    sharpness=st.floats(0.2, 4),
)
def test_table_holds_distributions_that_are_neither_zero_anywhere_nor_uniform(
    seed: int, prompt: list[int], sharpness: float
) -> None:
    table = ToyWorld(seed, sharpness=sharpness).table(prompt).exp()
    assert table.shape == (9, 9)
    torch.testing.assert_close(table.sum(-1), torch.ones(9, dtype=torch.float64), atol=EXACT, rtol=0)
    assert (table > 0).all()
    assert (table.amax(-1) > 1.2 * table.amin(-1)).all()


def test_table_depends_on_seed_and_on_every_token_of_the_prompt() -> None:
    worlds = [ToyWorld(0), ToyWorld(1), ToyWorld(0, sharpness=2.0), ToyWorld(0, symbols="abcdefgi")]
    prompts = [[1, 2, 3], [1, 2, 4], [0, 2, 3], [1, 2], [12, 3], [1, 23]]
    tables = [world.table(prompt) for world in worlds for prompt in prompts]
    assert all((a - b).abs().max() > 0.01 for a, b in itertools.combinations(tables, 2))
    torch.testing.assert_close(ToyWorld(0).table([1, 2, 3]), tables[0], atol=0, rtol=0)


def test_making_tables_leaves_the_global_generators_alone() -> None:
    before = torch.get_rng_state()
    ToyWorld(5).table([1])
    assert torch.equal(before, torch.get_rng_state())


def test_sharper_world_is_more_decided() -> None:
    def entropy(sharpness: float) -> float:
        table = ToyWorld(2, sharpness=sharpness).table([1])
        return -(table.exp() * table).sum(-1).mean().item()

    assert entropy(0.3) > entropy(1.0) > entropy(3.0)


# --- The tokenizer --------------------------------------------------------------------------------------------------


def test_tokenizer_spells_its_symbols_and_ends_with_its_last_id() -> None:
    tokenizer = ToyTokenizer("abc ")
    assert isinstance(tokenizer, base.Tokenizer)
    assert tokenizer.encode("a cab") == [0, 3, 2, 0, 1]
    assert tokenizer.decode([0, 3, 2, 0, 1, 4]) == "a cab"
    assert tokenizer.vocab_size == 5
    assert tokenizer.end_ids == {4}
    assert tokenizer.has_chat_template


def test_tokenizer_takes_any_text_at_all() -> None:
    tokenizer = ToyTokenizer("abc")
    for text in ("Grüße 😀", "\ud800", "", "Write for Tea & Co."):
        for ids in (tokenizer.encode(text), tokenizer.encode_prompt(text), tokenizer.encode_chat(text, text)):
            assert set(ids) <= {0, 1, 2}


@pytest.mark.parametrize("symbols", ["ab", "abcdefgh", "abcdefghijklmnopqrstuvwxyz ,."])
def test_prompts_are_told_apart_by_64_bits_in_any_alphabet(symbols: str) -> None:
    tokenizer = ToyTokenizer(symbols)
    prompts = [tokenizer.encode_prompt(f"Write for agent {number}:") for number in range(300)]
    prompts += [tokenizer.encode_chat("system", f"agent {number}") for number in range(300)]
    assert len({tuple(prompt) for prompt in prompts}) == 600
    assert len(symbols) ** len(prompts[0]) >= 2**64
    assert tokenizer.encode_chat("ab", "c") != tokenizer.encode_chat("a", "bc")


@pytest.mark.parametrize("symbols", ["", "a", "aba"])
def test_tokenizer_is_refused_without_two_symbols_or_with_one_twice(symbols: str) -> None:
    with pytest.raises(ValueError, match="at least two characters are needed, each of them once"):
        ToyTokenizer(symbols)


def test_text_stream_gives_a_character_a_token() -> None:
    tokenizer = ToyTokenizer("abc")
    stream = tokenizer.text_stream()
    assert [stream.push(token) for token in (0, 1, 2, 9, 3)] == ["a", "b", "c", "", ""]
    assert stream.finish() == ""


def test_hashes_tell_worlds_and_vocabularies_apart() -> None:
    worlds = [ToyWorld(), ToyWorld(1), ToyWorld(symbols="abcdefg"), ToyWorld(sharpness=2.0)]
    assert len({world.hash for world in worlds}) == 4
    assert ToyModel(ToyWorld()).hash == ToyWorld().hash
    assert ToyTokenizer("ab").hash == ToyTokenizer("ab").hash != ToyTokenizer("ba").hash


# --- The model ------------------------------------------------------------------------------------------------------


def test_model_satisfies_the_protocol_and_says_what_it_is() -> None:
    model = ToyModel(ToyWorld(seed=7), max_rows=3, max_length=40)
    assert isinstance(model, base.LanguageModel)
    assert (model.name, model.numerics, model.vocab_size) == ("toy-7", "float64", 9)
    assert (model.max_rows, model.free_rows, model.max_length, model.device) == (3, 3, 40, torch.device("cpu"))


def test_model_follows_each_agents_table_as_gangs_step_and_roll_back() -> None:
    model = ToyModel(WORLD)
    prompts = {name: WORLD.tokenizer.encode_prompt(name) for name in ("reference", "a", "b")}
    pair, single = model.admit([prompts["a"], prompts["b"]], 9), model.admit([prompts["reference"]], 9)
    logits = model.prefill([pair, single])
    assert torch.equal(logits, torch.stack([FIRST[END], SECOND[END], REFERENCE[END]]))
    logits = model.step([single, pair], torch.tensor([0, 1]))
    assert torch.equal(logits, torch.stack([REFERENCE[0], FIRST[1], SECOND[1]]))
    assert torch.equal(model.step([pair], torch.tensor([2])), torch.stack([FIRST[2], SECOND[2]]))
    model.rollback(pair, 2)
    logits = model.step([pair, single], torch.tensor([0, 2]))
    assert torch.equal(logits, torch.stack([FIRST[0], SECOND[0], REFERENCE[2]]))
    model.rollback(pair, 0)
    assert (pair.num_tokens, single.num_tokens) == (1, 2)


def test_model_begins_anew_behind_an_end() -> None:
    model = ToyModel(WORLD)
    gang = model.admit([[0]], 3)
    first = model.prefill([gang])
    model.step([gang], torch.tensor([1]))
    assert torch.equal(model.step([gang], torch.tensor([END])), first)


def test_model_steps_no_gangs_to_no_rows() -> None:
    model = ToyModel(WORLD)
    assert model.prefill([]).shape == model.step([], torch.tensor([], dtype=torch.long)).shape == (0, 4)


def test_score_is_the_log_probability_of_every_token() -> None:
    model = ToyModel(WORLD)
    prefixes = [[0, 1], [2]]
    candidates = [(0, 1, END), (2,), (), (1, 1, 1, 1)]
    for prefix, row in zip(prefixes, model.score(prefixes, candidates), strict=True):
        chain = Chain.of_table(WORLD.table(prefix), 4)
        for candidate, score in zip(candidates, row, strict=True):
            assert score.shape == (len(candidate),)
            assert score.sum().item() == pytest.approx(text_log_prob(chain.next_token, candidate), abs=EXACT)
    assert model.score([], [[1]]) == []
    assert model.score([[1]], []) == [[]]
