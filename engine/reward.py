"""What candidates are worth to agents, in nats: from their models, from a function, or from a probe on embeddings.

    LogRatio   r_i(y) = ln π_i(y) - ln π_ref(y)            of the models' own laws, unshaped
    Callback   r_i(y) = whatever somebody's function says
    LinearProbe   r_i(y) = w_i · φ(y) + c_i                Li et al., "Q-Probe", arXiv 2402.14688

An agent's value per nat is multiplied later: it is money, and never a per-token bid. Where an agent itself says what a
candidate is worth, it must not have written, chosen or weighted the candidates. This file knows no price.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from tokenauction.engine.candidate import Candidate
from tokenauction.engine.errors import InvalidInput


class RewardSource(Protocol):
    """Whatever says what candidates are worth."""

    @property
    def name(self) -> str:
        """Which source it is; goes on the receipt."""

    @property
    def reads_models(self) -> bool:
        """Whether every agent's model is to score the candidates; the reference's scores them in any case."""

    def rewards(
        self,
        agent_ids: Sequence[str],
        candidates: Sequence[Candidate],
        log_ratios: Float64[Tensor, "agents candidates"],
    ) -> Float64[Tensor, "agents candidates"]:
        """r_i(y_j) in nats; -inf rules a candidate out. `log_ratios` is zeros unless `reads_models`."""


@dataclass(frozen=True)
class LogRatio:
    """What an agent's model prefers to the reference: the reward of the paper's experiments."""

    name: str = "log_ratio"
    reads_models: bool = True

    def rewards(
        self,
        agent_ids: Sequence[str],
        candidates: Sequence[Candidate],
        log_ratios: Float64[Tensor, "agents candidates"],
    ) -> Float64[Tensor, "agents candidates"]:
        return log_ratios


@dataclass(frozen=True)
class Callback:
    """What a function of (agent id, text) says; numbers or -inf."""

    function: Callable[[str, str], float]
    name: str = "callback"
    reads_models: bool = False

    def rewards(
        self,
        agent_ids: Sequence[str],
        candidates: Sequence[Candidate],
        log_ratios: Float64[Tensor, "agents candidates"],
    ) -> Float64[Tensor, "agents candidates"]:
        rows = [[float(self.function(agent_id, c.text)) for c in candidates] for agent_id in agent_ids]
        return torch.tensor(rows, dtype=torch.float64).view(len(agent_ids), len(candidates))


@dataclass(frozen=True)
class LinearProbe:
    """A linear function of a text's embedding for every agent; `embed` gives the embedding of a text's token ids."""

    embed: Callable[[Sequence[int]], Float[Tensor, " width"]]
    weights: Mapping[str, Float64[Tensor, " width_and_one"]]  # by agent; the last entry is the constant c_i
    name: str = "linear_probe"
    reads_models: bool = False

    def rewards(
        self,
        agent_ids: Sequence[str],
        candidates: Sequence[Candidate],
        log_ratios: Float64[Tensor, "agents candidates"],
    ) -> Float64[Tensor, "agents candidates"]:
        missing = [agent_id for agent_id in agent_ids if agent_id not in self.weights]
        if missing:
            raise InvalidInput(f"the probe has no weights for {missing[0]!r}; fit one for every agent")
        embeddings = with_one(torch.stack([self.embed(c.token_ids).double().cpu() for c in candidates]))
        table = torch.stack([self.weights[agent_id] for agent_id in agent_ids])
        if table.shape[-1] != embeddings.shape[-1]:
            raise InvalidInput(f"the probe's weights are for a width of {table.shape[-1] - 1}, embeddings have another")
        return table @ embeddings.T


def fit_probe(
    embeddings: Float64[Tensor, "texts width"], rewards: Float64[Tensor, " texts"], ridge: float = 1e-3
) -> Float64[Tensor, " width_and_one"]:
    """Return the weights that minimise Σ (w·φ + c - r)² + ridge·|w|², the constant c last and not shrunk.

    Raises InvalidInput where lengths differ or `ridge` is not positive.
    """
    if len(embeddings) != len(rewards) or len(rewards) == 0:
        raise InvalidInput(f"{len(embeddings)} embeddings and {len(rewards)} rewards; give one reward a text")
    if not ridge > 0:
        raise InvalidInput(f"ridge is {ridge!r}; it must be positive, so that there is one solution")
    x = with_one(embeddings)
    shrink = torch.full((x.shape[-1],), ridge, dtype=torch.float64)
    shrink[-1] = 0.0
    solution: Tensor = torch.linalg.solve(x.T @ x + torch.diag(shrink), x.T @ rewards)
    return solution


def with_one(embeddings: Float64[Tensor, "texts width"]) -> Float64[Tensor, "texts width_and_one"]:
    """Embeddings with a 1 behind each, which the constant of a probe multiplies."""
    return torch.cat((embeddings, torch.ones_like(embeddings[:, :1])), -1)
