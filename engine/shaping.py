"""Shaping: from logits to each agent's own distribution, before anything is aggregated.

Order: temperature, policy mask, top-k, softmax, top-p, and a floor where one is configured. Shaping the aggregate
instead would break monotonicity and every payment, so there is no function for it. Each row has its own settings. This
file knows no bid; the mask is the policy's and must be the same for all agents of an auction.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from tokenauction.engine.errors import InvalidDistribution, InvalidInput, InvalidSpec
from tokenauction.engine.guarantees import Rule

_FIRST_CANDIDATES = 256  # tokens that top-p looks at first; eightfold more until they hold its mass


def check_truncation(rule: Rule, top_k: int | None, top_p: float | None, floor: float | None) -> None:
    """Raise InvalidSpec for top-k or top-p under log_linear without a floor: one agent's zero would veto the token."""
    truncated = top_k is not None or (top_p is not None and top_p < 1)
    if rule == "log_linear" and truncated and not floor:
        raise InvalidSpec(
            "log_linear multiplies probabilities, so a token that one agent's top_k or top_p cuts is lost to all: "
            "use temperature alone, set a floor, or choose the linear rule"
        )


def shape(
    logits: Float[Tensor, "rows vocab"],
    temperature: Float[Tensor, " rows"] | None = None,
    top_k: Int64[Tensor, " rows"] | None = None,
    top_p: Float[Tensor, " rows"] | None = None,
    allowed: Bool[Tensor, "#rows vocab"] | None = None,
    *,
    validate: bool = True,
) -> Float64[Tensor, "rows vocab"]:
    """Return softmax(logits/temperature) in float64 over the allowed tokens, cut to top-k and then top-p.

    A top_k of 0 or at least the vocabulary, and a top_p of at least 1, cut nothing; tokens that tie with the last one
    kept are kept. Greedy agents are top_k = 1: a temperature of 0 raises InvalidInput. A row whose allowed tokens all
    have probability 0 raises InvalidDistribution, or without `validate` becomes zeros, which clearing refuses.
    """
    if validate and temperature is not None and not bool((temperature > 0).all()):
        raise InvalidInput("a temperature is not above 0: for an agent that always takes its best token set top_k to 1")
    scores = logits.to(torch.float64)
    if temperature is not None:
        scores = scores / temperature.unsqueeze(-1)
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -torch.inf)
    if top_k is not None:
        scores = _cut_top_k(scores, top_k)
    banned = (scores.amax(-1) == -torch.inf).unsqueeze(-1)
    if validate and bool(banned.any()):
        rows = banned.squeeze(-1).nonzero().flatten().tolist()
        raise InvalidDistribution(f"rows {rows}: the policy bans every token that the agent allows; relax one of them")
    distributions = scores.softmax(-1).masked_fill_(banned, 0.0)
    return distributions if top_p is None else _cut_top_p(distributions, top_p)


def with_floor(
    distributions: Float64[Tensor, "rows vocab"],
    floor: Float[Tensor, " rows"],
    allowed: Bool[Tensor, "#rows vocab"] | None = None,
) -> Float64[Tensor, "rows vocab"]:
    """Return (1 - floor)·p + floor·uniform over the allowed tokens, so that no agent can veto one under log_linear."""
    mass = floor.to(torch.float64).unsqueeze(-1)
    if allowed is None:
        return distributions * (1 - mass) + mass / distributions.shape[-1]
    return distributions * (1 - mass) + mass * (allowed / allowed.sum(-1, keepdim=True).to(torch.float64))


def _cut_top_k(scores: Float64[Tensor, "rows vocab"], top_k: Int64[Tensor, " rows"]) -> Float64[Tensor, "rows vocab"]:
    """Return the scores with -inf below each row's k-th largest."""
    vocab_size = scores.shape[-1]
    k = torch.where((top_k > 0) & (top_k < vocab_size), top_k, vocab_size).unsqueeze(-1)
    cuts = k < vocab_size
    num_candidates = int(torch.where(cuts, k, 1).max())
    best = scores.topk(num_candidates, dim=-1).values
    least = best.gather(-1, k.clamp(max=num_candidates) - 1)
    return scores.masked_fill(cuts & (scores < least), -torch.inf)


def _cut_top_p(
    distributions: Float64[Tensor, "rows vocab"], top_p: Float[Tensor, " rows"]
) -> Float64[Tensor, "rows vocab"]:
    """Return the rows cut to the fewest most likely tokens that hold top_p of the mass, renormalised."""
    vocab_size, mass = distributions.shape[-1], top_p.to(torch.float64).unsqueeze(-1)
    cuts = mass < 1
    num_candidates = min(_FIRST_CANDIDATES, vocab_size)
    best = distributions.topk(num_candidates, dim=-1).values
    while num_candidates < vocab_size and bool((cuts & (best.sum(-1, keepdim=True) < mass)).any()):
        num_candidates = min(8 * num_candidates, vocab_size)
        best = distributions.topk(num_candidates, dim=-1).values
    above = best.cumsum(-1) - best  # mass of the tokens that are likelier
    num_kept = (above < mass).sum(-1, keepdim=True).clamp(min=1)
    kept = distributions.masked_fill(cuts & (distributions < best.gather(-1, num_kept - 1)), 0.0)
    return torch.where(cuts, kept / kept.sum(-1, keepdim=True), distributions)
