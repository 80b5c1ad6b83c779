"""The toy world and its model: tables of a hash, one symbol a token, and gangs that follow their tables."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenauction.models import base
from tokenauction.models.toy import ToyModel, ToyTokenizer, ToyWorld
from tokenauction.models.toy_laws import Chain, text_log_prob

# Exact formulas in float64 on a few hundred terms.
EXACT = 1e-12

WORLD = ToyWorld(seed=3, symbols="xyz")
END = WORLD.end
REFERENCE, FIRST, SECOND = (WORLD.table(WORLD.tokenizer.encode_prompt(name)) for name in ("reference", "a", "b"))


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
