"""Laws of whole texts, exactly: what is drawn, how likely a text is, and what anything is on average.

It knows nothing of agents, rewards or models; a text is the row of its tokens, filled up with ends behind its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int
from torch import Tensor

NextToken = Callable[[Sequence[int]], Float64[Tensor, " tokens"]]  # tokens so far -> ln p(next token | tokens so far)


@dataclass(frozen=True, eq=False)
class Chain:
    """A law of texts of at most `steps` tokens whose next token depends on the step and on the previous token alone."""

    log_probs: Float64[Tensor, "steps states tokens"]

    @classmethod
    def of_table(cls, table: Float64[Tensor, "states tokens"], num_steps: int) -> Chain:
        """The law of texts of a bigram model, cut after `num_steps` tokens."""
        return cls(table.expand(num_steps, *table.shape))

    @property
    def end(self) -> int:
        return self.log_probs.shape[-1] - 1

    def next_token(self, ids: Sequence[int]) -> Float64[Tensor, " tokens"]:
        """ln p of the token behind `ids`: a NextToken."""
        return self.log_probs[len(ids), ids[-1] if ids else self.end]

    def expectation(self, values: Float64[Tensor, "*steps states tokens"]) -> float:
        """E Σ_k values[k, s_k, t_k] over the steps k of a text, exactly, by passing the mass of each state forward."""
        mass = torch.eye(self.end + 1, dtype=torch.float64)[self.end]
        total = 0.0
        for log_probs, step_values in zip(self.log_probs, values.expand(self.log_probs.shape), strict=True):
            joint = mass[:, None] * log_probs.exp()
            total += torch.where(joint > 0, joint * step_values, 0.0).sum().item()
            mass = joint.sum(0)
            mass[self.end] = 0.0  # A text that has ended takes no further step.
        return total

    def sample(self, uniforms: Float64[Tensor, "texts draws"]) -> Int[Tensor, "texts draws"]:
        """The texts that these uniforms in [0, 1) draw, one a step, each by the inverse of the step's CDF.

        A text ends with its end or when its uniforms run out; behind its end there are more ends. Raises ValueError for
        what is no uniform, and for more draws than the law has steps.
        """
        if not ((uniforms >= 0) & (uniforms < 1)).all():
            raise ValueError("a uniform is outside; it must be at least 0 and less than 1")
        if uniforms.shape[1] > len(self.log_probs):
            raise ValueError(f"{uniforms.shape[1]} draws for {len(self.log_probs)} steps; there is one a step at most")
        texts = torch.full(uniforms.shape, self.end)
        previous = texts.new_full((len(texts),), self.end)
        for step, log_probs in enumerate(self.log_probs[: uniforms.shape[1]]):
            cdf = log_probs.exp().cumsum(-1)[previous]
            drawn = (cdf <= uniforms[:, step, None] * cdf[:, -1:]).sum(-1).clamp(max=self.end)
            has_ended = (previous == self.end) & (step > 0)
            previous = torch.where(has_ended, self.end, drawn)
            texts[:, step] = previous
        return texts

    def totals(
        self, values: Float64[Tensor, "*steps states tokens"], texts: Int[Tensor, "texts draws"]
    ) -> Float64[Tensor, " texts"]:
        """Σ_k values[k, s_k, t_k] over the steps of every text, up to its end and with it."""
        states = torch.cat([texts.new_full((len(texts), 1), self.end), texts[:, :-1]], dim=1)
        has_begun = torch.ones_like(states, dtype=torch.bool)
        has_begun[:, 1:] = states[:, 1:] != self.end
        steps = torch.arange(texts.shape[1])
        taken = values.expand(self.log_probs.shape)[steps, states, texts]
        return torch.where(has_begun, taken, 0.0).sum(1)

    def log_prob(self, texts: Int[Tensor, "texts draws"]) -> Float64[Tensor, " texts"]:
        """ln p of every text."""
        return self.totals(self.log_probs, texts)


def text_log_prob(next_token: NextToken, ids: Sequence[int]) -> float:
    """ln p of a whole text, its end included where `ids` holds it, under any per-step distribution function."""
    return math.fsum(next_token(ids[:step])[token].item() for step, token in enumerate(ids))


def text_law(next_token: NextToken, end: int, num_steps: int) -> dict[tuple[int, ...], float]:
    """The probability of every text of at most `num_steps` tokens under any per-step distribution function.

    A text holds its end, unless it was cut; texts of probability 0 are left out. About vocab^num_steps remain.
    """
    law: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(num_steps):
        grown: dict[tuple[int, ...], float] = {}
        for ids, probability in law.items():
            if ids[-1:] == (end,):
                grown[ids] = probability
                continue
            shares = enumerate(next_token(ids).exp().tolist())
            grown |= {(*ids, token): probability * share for token, share in shares if share > 0}
        law = grown
    return law
