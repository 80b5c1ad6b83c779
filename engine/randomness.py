"""All randomness: pure functions of (seed, step, purpose, agent id); no generator state, nothing keyed by a row.

    step key     = SHA-256("tokenauction/step/v1" ‖ seed as 32 bytes ‖ step as 8 bytes)           big endian throughout
    word         = first 8 bytes of SHA-256("tokenauction/word/v1" ‖ step key ‖ len ‖ purpose ‖ len ‖ agent id)
    uniform      = (word >> 11) / 2^53                   in [0, 1)
    exponential  = -ln(((word >> 12) + ½) / 2^52)        Exp(1), never 0, never infinite
    token clocks = -ln(((x_k >> 12) + ½) / 2^52),        x_k the k-th output of SplitMix64 started at a word

`len` is the length in bytes (4 bytes) of the UTF-8 text behind it. The purposes are "token", "price", "counterfactual"
(with an agent id), "agent clock" (with an agent id) and "token clocks"; where no agent is meant the id is empty. Who
holds a step's key can recompute that step's numbers and no other step's. This file must not know what is drawn with
them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from tokenauction.engine.errors import InvalidInput
from tokenauction.engine.guarantees import Sampler

SEED_BITS = 256
STEP_BITS = 64
KEY_BYTES = 32
_WORD = b"tokenauction/word/v1"

# SplitMix64: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014; as signed 64-bit words.
_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


@dataclass(frozen=True)
class CoupledRandomness:
    """What one step of the coupled sampler consumes: three kinds of uniforms in [0, 1)."""

    token: Float64[Tensor, " auctions"]
    price: Float64[Tensor, " auctions"]
    counterfactual: Float64[Tensor, "auctions agents"]


@dataclass(frozen=True)
class RaceRandomness:
    """What one step of the race sampler consumes: an Exp(1) clock for each agent and for each token."""

    agent_clock: Float64[Tensor, "auctions agents"]
    token_clock: Float64[Tensor, "auctions vocab"]


def seed_bytes(seed: int) -> bytes:
    """Return a seed as 32 bytes, big endian; raises InvalidInput unless 0 <= seed < 2^256."""
    if not 0 <= seed < 1 << SEED_BITS:
        raise InvalidInput(f"seed {seed} is out of range: give an integer from 0 to 2^{SEED_BITS} - 1")
    return seed.to_bytes(SEED_BITS // 8, "big")


def step_key(seed: int, step: int) -> bytes:
    """Return the 32-byte key of one step; raises InvalidInput unless 0 <= seed < 2^256 and 0 <= step < 2^64."""
    if not 0 <= step < 1 << STEP_BITS:
        raise InvalidInput(f"step {step} is out of range: give an integer from 0 to 2^{STEP_BITS} - 1")
    message = b"tokenauction/step/v1" + seed_bytes(seed) + step.to_bytes(STEP_BITS // 8, "big")
    return hashlib.sha256(message).digest()


def word(key: bytes, purpose: str, agent_id: str = "") -> int:
    """Return 64 random bits for one purpose of one step, and of one agent where the number is an agent's."""
    if len(key) != KEY_BYTES:
        raise InvalidInput(f"a step key has {KEY_BYTES} bytes, not {len(key)}: use step_key(seed, step)")
    return int.from_bytes(hashlib.sha256(_WORD + key + _framed(purpose, agent_id)).digest()[:8], "big")


def uniform(key: bytes, purpose: str, agent_id: str = "") -> float:
    """Return a uniform in [0, 1) with 53 random bits."""
    return (word(key, purpose, agent_id) >> 11) / (1 << 53)


def coupled_uniforms(key: bytes, agent_ids: tuple[str, ...]) -> list[float]:
    """Return `uniform` for "token", for "price", and for every agent's "counterfactual", at less than half the cost."""
    if len(key) != KEY_BYTES:
        word(key, "token")  # says what is wrong
    sha256, start, bits = hashlib.sha256, _WORD + key, int.from_bytes
    return [(bits(sha256(start + end).digest()[:8], "big") >> 11) * 2.0**-53 for end in _coupled_ends(agent_ids)]


@lru_cache(maxsize=1024)
def _coupled_ends(agent_ids: tuple[str, ...]) -> tuple[bytes, ...]:
    """What is hashed behind a step's key for each of `coupled_uniforms`."""
    purposes = (("token", ""), ("price", ""), *(("counterfactual", agent_id) for agent_id in agent_ids))
    return tuple(_framed(*purpose) for purpose in purposes)


def _framed(*parts: str) -> bytes:
    """Every text as UTF-8 behind its length in 4 bytes."""
    texts = [part.encode() for part in parts]
    return b"".join(len(text).to_bytes(4, "big") + text for text in texts)


def exponential(key: bytes, purpose: str, agent_id: str = "") -> float:
    """Return an Exp(1) variate, strictly positive and finite."""
    return -math.log(((word(key, purpose, agent_id) >> 12) + 0.5) / (1 << 52))


def splitmix64(keys: Int64[Tensor, " auctions"], count: int) -> Int64[Tensor, "auctions count"]:
    """Return outputs 1..count of SplitMix64 started at each key, as signed words; a pure function of (key, place).

    z = key + k·γ;  z = (z ^ z >>> 30)·m_1;  z = (z ^ z >>> 27)·m_2;  z ^ z >>> 31   (all modulo 2^64)
    """
    places = torch.arange(1, count + 1, dtype=torch.int64, device=keys.device)
    z = keys.unsqueeze(-1) + places * _GAMMA
    z = (z ^ _shift_right(z, 30)) * _MIX_1
    z = (z ^ _shift_right(z, 27)) * _MIX_2
    return z ^ _shift_right(z, 31)


def token_clocks(keys: Int64[Tensor, " auctions"], vocab_size: int) -> Float64[Tensor, "auctions vocab"]:
    """Return one Exp(1) variate for every token of every auction, on the keys' device."""
    bits = _shift_right(splitmix64(keys, vocab_size), 12)
    return bits.to(torch.float64).add_(0.5).mul_(2.0**-52).log_().neg_()


def _shift_right(x: Int64[Tensor, "*shape"], places: int) -> Int64[Tensor, "*shape"]:
    """Logical shift: torch's >> on int64 is arithmetic, so the copies of the sign bit are masked off."""
    return (x >> places) & ((1 << (64 - places)) - 1)


def coupled_randomness(
    keys: Sequence[bytes],
    agent_ids: Sequence[Sequence[str]],
    num_agents: int | None = None,
    device: torch.device | str = "cpu",
) -> CoupledRandomness:
    """Return the coupled sampler's uniforms for one step of each auction, padded with 0 to `num_agents` columns."""
    width = _check_agent_ids(keys, agent_ids, num_agents)
    rows = [coupled_uniforms(key, tuple(ids)) for key, ids in zip(keys, agent_ids, strict=True)]
    padded = [row + [0.0] * (2 + width - len(row)) for row in rows]
    table = torch.tensor(padded, dtype=torch.float64, device=device).view(len(keys), 2 + width)
    return CoupledRandomness(token=table[:, 0], price=table[:, 1], counterfactual=table[:, 2:])


def race_randomness(
    keys: Sequence[bytes],
    agent_ids: Sequence[Sequence[str]],
    vocab_size: int,
    num_agents: int | None = None,
    device: torch.device | str = "cpu",
) -> RaceRandomness:
    """Return the race sampler's clocks for one step of each auction, padded with 1 to `num_agents` columns."""
    width = _check_agent_ids(keys, agent_ids, num_agents)
    agent_clock = [
        [exponential(key, "agent clock", agent_id) for agent_id in ids] + [1.0] * (width - len(ids))
        for key, ids in zip(keys, agent_ids, strict=True)
    ]
    words = [word(key, "token clocks") for key in keys]
    signed = torch.tensor([x - (x >> 63 << 64) for x in words], dtype=torch.int64, device=device)
    return RaceRandomness(
        agent_clock=torch.tensor(agent_clock, dtype=torch.float64, device=device).view(len(keys), width),
        token_clock=token_clocks(signed, vocab_size),
    )


def step_randomness(
    sampler: Sampler,
    keys: Sequence[bytes],
    agent_ids: Sequence[Sequence[str]],
    vocab_size: int,
    num_agents: int | None = None,
    device: torch.device | str = "cpu",
) -> CoupledRandomness | RaceRandomness:
    """Return what `sampler` draws from in one step of each auction."""
    if sampler == "coupled":
        return coupled_randomness(keys, agent_ids, num_agents, device)
    return race_randomness(keys, agent_ids, vocab_size, num_agents, device)


def _check_agent_ids(keys: Sequence[bytes], agent_ids: Sequence[Sequence[str]], num_agents: int | None) -> int:
    """Return the number of agent columns; raises InvalidInput when ids repeat or do not fit the keys or columns."""
    if len(keys) != len(agent_ids):
        raise InvalidInput(f"{len(keys)} step keys but {len(agent_ids)} lists of agent ids: give one an auction")
    longest = max((len(ids) for ids in agent_ids), default=0)
    for auction, ids in enumerate(agent_ids):
        if len(set(ids)) != len(ids):
            raise InvalidInput(f"auction {auction}: an agent id repeats, so two agents would share their randomness")
    if num_agents is not None and num_agents < longest:
        raise InvalidInput(f"num_agents is {num_agents}, but an auction has {longest} agents")
    return longest if num_agents is None else num_agents
