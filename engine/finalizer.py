"""The softmax auction over whole texts: which candidate wins, and what every agent pays for having moved that choice.

    nats_i,j = r_i(y_j)/τ                         what candidate j is worth to agent i
    β_-i,j   = Σ_{k≠i} nats_k,j + ln w_j          ln w_j = ln π_ref(y_j) - ln π_gen(y_j), of the laws really sampled
    π        = softmax_j(Σ_i nats_i,j + ln w_j)   π_-i = softmax_j(β_-i)
    U_i      = τ·[LSE_j(nats_i,j + β_-i,j) - LSE_j(β_-i,j)]
    payment  = E_π[r_i] - U_i = τ·KL(π ‖ π_-i)

Soumalias, Curry, Seuken, arXiv 2405.05905, (7)-(9); the closed form of the payment is derived, see docs/mechanism.md.
Rewards, payments and τ have one unit: currency, or nats where no money is meant. Everything is float64, and any number
of instances may stand in front. This file must not know where candidates or rewards come from, nor of budgets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from tokenauction.engine.errors import InvalidInput, NoCommonSupport
from tokenauction.engine.randomness import step_key, uniform
from tokenauction.engine.sampling import inverse_cdf
from tokenauction.engine.summation import sum_tokens
from tokenauction.engine.tilt import tilt

MAX_NATS = 1e300  # of |r/τ|: the sum over any number of agents still fits a float64


@dataclass(frozen=True)
class Finalization:
    """What the softmax auction decides over a set of candidates, before one is drawn."""

    probabilities: Float64[Tensor, "*instances candidates"]  # π
    probabilities_without: Float64[Tensor, "*instances agents candidates"]  # π_-i: had agent i wanted nothing
    payment: Float64[Tensor, "*instances agents"]  # >= 0; exactly 0 for a reward that is constant
    utility: Float64[Tensor, "*instances agents"]  # between the agent's smallest and largest reward
    expected_reward: Float64[Tensor, "*instances agents"]  # E_π[r_i] = payment + utility
    effective_sample_size: Float64[Tensor, "*instances"]  # 1/Σ π², from 1 to the number of candidates
    log_mean_weight: Float64[Tensor, "*instances"]  # ln (1/M Σ_j w_j·e^{Σ_i nats_i,j}), which estimates ln Z
    divergence: Float64[Tensor, "*instances"]  # KL(π ‖ softmax(ln w)), in nats: what the user loses


def finalize(
    rewards: Float64[Tensor, "*instances agents candidates"],
    log_weight: Float64[Tensor, "*instances candidates"],
    tau: float = 1.0,
) -> Finalization:
    """Return the allocation, payments and utilities for fixed candidates with ln w_j = ln π_ref(y_j) - ln π_gen(y_j).

    A reward or weight of -inf rules its candidate out. Raises InvalidInput for NaN, +inf, shapes that do not match, no
    candidate, or a τ that is not positive; NoCommonSupport where every candidate is ruled out.
    """
    check(rewards, log_weight, tau)
    nats = rewards / tau
    top = nats.amax(-1, keepdim=True)
    below = nats - top  # a constant in a reward changes nothing, and an agent that wants nothing adds exact zeros
    total, others = _sums(below)
    log_without = torch.log_softmax(others + log_weight.unsqueeze(-2), -1)
    score = total + log_weight
    probabilities = torch.softmax(score, -1)
    lift, divergence = tilt(log_without, below)
    highest, lowest = rewards.amax(-1), rewards.amin(-1)
    _, from_reference = tilt(torch.log_softmax(log_weight, -1), total)
    num_candidates = log_weight.shape[-1]
    weighted = torch.where(probabilities.unsqueeze(-2) > 0, probabilities.unsqueeze(-2) * rewards, 0.0)
    return Finalization(
        probabilities=probabilities,
        probabilities_without=log_without.exp(),
        payment=tau * divergence,
        utility=(highest + tau * lift).clamp(lowest, highest),
        expected_reward=sum_tokens(weighted),
        effective_sample_size=1 / sum_tokens(probabilities.square()),
        log_mean_weight=torch.logsumexp(score, -1) + top.sum((-1, -2)) - math.log(num_candidates),
        divergence=from_reference,
    )


def choose(
    probabilities: Float64[Tensor, "*instances candidates"], uniforms: Float64[Tensor, "*instances"]
) -> Int64[Tensor, "*instances"]:
    """Draw a candidate by inverse CDF: the first at which the running sum exceeds u; never one of probability 0."""
    return inverse_cdf(probabilities, uniforms)[0]


def choice_uniform(seed: int) -> float:
    """Return the uniform in [0, 1) that draws the winner: purpose "candidate" of step 0."""
    return uniform(step_key(seed, 0), "candidate")


def check(rewards: Tensor, log_weight: Tensor, tau: float) -> None:
    """Raise what `finalize` raises."""
    if not (math.isfinite(tau) and tau > 0):
        raise InvalidInput(f"tau is {tau!r}; it must be positive and finite")
    if log_weight.shape[-1] == 0:
        raise InvalidInput("there is no candidate; give at least one")
    if rewards.shape[-2] == 0:
        raise InvalidInput("there is no agent; give at least one")
    if rewards.shape[:-2] + rewards.shape[-1:] != log_weight.shape:
        raise InvalidInput(f"rewards have the shape {tuple(rewards.shape)}, weights {tuple(log_weight.shape)}")
    nats = rewards / tau
    if not bool((nats <= MAX_NATS).all() & ((nats >= -MAX_NATS) | (rewards == -math.inf)).all()):
        raise InvalidInput(f"a reward is NaN, +inf, or beyond {MAX_NATS:g}·tau; give finite numbers or -inf")
    if not bool((log_weight <= MAX_NATS).all() & ((log_weight >= -MAX_NATS) | (log_weight == -math.inf)).all()):
        raise InvalidInput("a weight ln π_ref - ln π_gen is NaN or +inf: a candidate that was drawn has π_gen > 0")
    if bool(((rewards.sum(-2) + log_weight).amax(-1) == -math.inf).any()):
        raise NoCommonSupport("every candidate is ruled out, by an agent's reward of -inf or by the reference")


def _sums(
    nats: Float64[Tensor, "*instances agents candidates"],
) -> tuple[Float64[Tensor, "*instances candidates"], Float64[Tensor, "*instances agents candidates"]]:
    """The sum over agents, and for each the sum over the others; never by subtraction, which -inf does not survive."""
    nothing = torch.zeros_like(nats[..., :1, :])
    before = torch.cat((nothing, nats.cumsum(-2)), -2)
    after = torch.cat((nats.flip(-2).cumsum(-2).flip(-2), nothing), -2)
    return before[..., -1, :], before[..., :-1, :] + after[..., 1:, :]
