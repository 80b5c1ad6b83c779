"""Randomness: exact values a stranger can recompute, SplitMix64 against its published outputs, and the refusals."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch

from tokenauction.engine.errors import InvalidInput
from tokenauction.engine.randomness import (
    coupled_randomness,
    coupled_uniforms,
    exponential,
    race_randomness,
    seed_bytes,
    splitmix64,
    step_key,
    token_clocks,
    uniform,
    word,
)

KEY = step_key(2**255 + 17, 3)
MASK = 2**64 - 1


def splitmix64_of_python(state: int, count: int) -> list[int]:
    """Vigna's splitmix64.c in plain integers."""
    outputs = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        outputs.append(z ^ (z >> 31))
    return outputs


def signed(x: int) -> int:
    return x - 2**64 if x >> 63 else x


def test_splitmix64_gives_the_published_outputs() -> None:
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert splitmix64(torch.tensor([1234567]), 4).tolist() == [[signed(x) for x in published]]
    assert splitmix64(torch.tensor([0]), 1).item() == signed(0xE220A8397B1DCDAF)


def test_splitmix64_agrees_with_plain_integers_at_extreme_keys() -> None:
    keys = [0, 1, MASK, 2**63, 2**63 - 1, 0x9E3779B97F4A7C15, *splitmix64_of_python(99, 20)]
    expected = [[signed(x) for x in splitmix64_of_python(key, 50)] for key in keys]
    assert splitmix64(torch.tensor([signed(key) for key in keys]), 50).tolist() == expected


def test_step_key_is_the_documented_hash() -> None:
    message = b"tokenauction/step/v1" + (2**255 + 17).to_bytes(32, "big") + (3).to_bytes(8, "big")
    assert hashlib.sha256(message).digest() == KEY


def test_uniform_is_the_documented_hash() -> None:
    message = b"tokenauction/word/v1" + KEY + b"\0\0\0\5price" + b"\0\0\0\3\xc3\xa91"
    first = int.from_bytes(hashlib.sha256(message).digest()[:8], "big")
    assert word(KEY, "price", "é1") == first
    assert uniform(KEY, "price", "é1") == (first >> 11) / 2**53
    assert exponential(KEY, "price", "é1") == -math.log(((first >> 12) + 0.5) / 2**52)


def test_uniform_differs_by_seed_step_purpose_and_agent() -> None:
    keys = [step_key(seed, step) for seed in (0, 1, 2**256 - 1) for step in (0, 1, 2**64 - 1)]
    values = {uniform(key, purpose, agent) for key in keys for purpose in ("a", "ab") for agent in ("", "b", "ab")}
    assert len(values) == 9 * 2 * 3  # also ("ab", "b") and ("a", "bb") would differ: lengths are hashed


def test_uniform_does_not_confuse_where_the_purpose_ends() -> None:
    assert uniform(KEY, "ab", "c") != uniform(KEY, "a", "bc")


@pytest.mark.parametrize("seed", [-1, 2**256])
def test_seed_is_refused_out_of_range(seed: int) -> None:
    with pytest.raises(InvalidInput, match="2\\^256"):
        seed_bytes(seed)


@pytest.mark.parametrize("step", [-1, 2**64])
def test_step_is_refused_out_of_range(step: int) -> None:
    with pytest.raises(InvalidInput, match="step"):
        step_key(0, step)


def test_coupled_uniforms_are_those_of_their_purposes() -> None:
    key, ids = step_key(3, 4), ("alpha", "β", "")
    others = [uniform(key, "counterfactual", agent_id) for agent_id in ids]
    assert coupled_uniforms(key, ids) == [uniform(key, "token"), uniform(key, "price"), *others]
    with pytest.raises(InvalidInput, match="not 31"):
        coupled_uniforms(key[1:], ids)


def test_word_is_refused_without_a_whole_key() -> None:
    with pytest.raises(InvalidInput, match="32 bytes"):
        word(b"short", "token")


def test_token_clocks_are_exponential() -> None:
    clocks = token_clocks(torch.tensor([signed(word(KEY, "token clocks"))]), 200_000).flatten()
    assert clocks.dtype == torch.float64
    assert bool((clocks > 0).all()) and bool(clocks.isfinite().all())
    levels = torch.linspace(0.1, 4, 40, dtype=torch.float64)
    distance = ((clocks.unsqueeze(-1) > levels).double().mean(0) - (-levels).exp()).abs().max()
    assert distance < 2.7 / math.sqrt(200_000)  # Kolmogorov: false alarm below 1e-6


def test_coupled_randomness_is_keyed_by_agent_and_not_by_place() -> None:
    other = step_key(5, 0)
    a = coupled_randomness([KEY, other], [["x", "y"], ["y"]], num_agents=3)
    b = coupled_randomness([KEY], [["y", "x"]])
    assert a.counterfactual[0, :2].flip(0).equal(b.counterfactual[0])
    assert a.counterfactual[1].tolist() == [uniform(other, "counterfactual", "y"), 0, 0]
    assert a.token.tolist() == [uniform(KEY, "token"), uniform(other, "token")]
    assert a.price.tolist() == [uniform(KEY, "price"), uniform(other, "price")]


def test_race_randomness_is_keyed_by_agent_and_not_by_place() -> None:
    a = race_randomness([KEY], [["x", "y"]], 100, num_agents=3)
    b = race_randomness([step_key(5, 0), KEY], [["z"], ["y", "x"]], 100)
    assert a.agent_clock.tolist() == [[exponential(KEY, "agent clock", "x"), exponential(KEY, "agent clock", "y"), 1]]
    assert a.agent_clock[0, :2].flip(0).equal(b.agent_clock[1])
    assert a.token_clock[0].equal(b.token_clock[1])


@pytest.mark.parametrize(
    ("keys", "ids", "num_agents", "says"),
    [
        ([KEY], [["a", "a"]], None, "repeats"),
        ([KEY], [["a"], ["b"]], None, "one an auction"),
        ([KEY], [["a", "b"]], 1, "num_agents is 1"),
    ],
)
def test_randomness_is_refused_for_ids_that_do_not_fit(
    keys: list[bytes], ids: list[list[str]], num_agents: int | None, says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        coupled_randomness(keys, ids, num_agents)
