"""What every peer of `peers.py` is: something that writes one text for three agents, a drawn token at a time.

A peer hands its logits to a `Draft`, which draws and notes the time, and goes on with the token it gets back. The draw
here is the least an auction of linear aggregation needs; the engine's own clearing, which `peers_ours.py` runs, also
prices every agent. This file must not know how any peer computes.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tokenauction.engine.randomness import step_key, uniform

BIDS_MICROS = (1000, 2000, 500)  # of the three agents, per token
SEED = 7
TOLERANCES = {"float32": 1e-3, "bf16": 0.1, "int8": 0.2, "int4": 1.5}  # rms error of logits whose std is 2.5


class PeerMissing(Exception):
    """A peer cannot be built here; the message says why in one line."""


def draw_linear(logits: Tensor, step: int) -> int:
    """Draw from q = Σ_i b_i·softmax(l_i) / Σ_i b_i, in float64, by inverse CDF at the step's uniform; no payments."""
    weights = torch.tensor(BIDS_MICROS, dtype=torch.float64)
    return draw_from(weights @ logits.to(torch.float64).softmax(-1), step)


def draw_from(mass: Tensor, step: int) -> int:
    """The first token at which the running sum of `mass` [vocab] exceeds u times its total."""
    running = mass.cumsum(-1)
    target = running[-1] * uniform(step_key(SEED, step), "token")
    return min(int(torch.searchsorted(running, target, right=True)), len(mass) - 1)


class Peer(ABC):
    """One way to compute the auction's logits; a subclass writes, and may draw in its own way."""

    numerics = "float32"  # of the weights
    num_agents = 3
    note = ""  # what the table must say of this peer

    @abstractmethod
    def write(self, prompts: Sequence[Sequence[int]], num_tokens: int, draft: Draft) -> None:
        """Write `num_tokens` tokens: each is what `draft` returns for the logits [agents, vocab] of a step."""

    def draw(self, logits: Tensor, step: int) -> int:
        """The token of one step, from logits as `write` hands them over."""
        return draw_linear(logits, step)

    def expected(self, logits: Tensor) -> Tensor:
        """What `write` should hand over where the agents' true logits are `logits` [agents, vocab]."""
        return logits


@dataclass
class Draft:
    """One text in the writing; with `text` it is that one whatever is drawn, so that peers can be compared."""

    peer: Peer
    text: Sequence[int] | None = None
    keeps_logits: bool = False
    tokens: list[int] = field(default_factory=list)  # as drawn
    logits: list[Tensor] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)  # seconds, when each token was known

    def __call__(self, logits: Tensor) -> int:
        """Draw the next token; this ends a step."""
        step = len(self.tokens)
        token = self.peer.draw(logits, step)
        self.tokens.append(token)
        if self.keeps_logits:
            self.logits.append(logits.to(torch.float32, copy=True))
        self.ends.append(time.perf_counter())
        return token if self.text is None else self.text[step]


def write(
    peer: Peer,
    prompts: Sequence[Sequence[int]],
    num_tokens: int,
    text: Sequence[int] | None = None,
    keeps_logits: bool = False,
) -> Draft:
    """One whole text of a peer, its own or `text`."""
    draft = Draft(peer, text, keeps_logits)
    with torch.inference_mode():
        peer.write(prompts, num_tokens, draft)
    assert len(draft.tokens) == num_tokens, f"{type(peer).__name__} wrote {len(draft.tokens)} of {num_tokens} tokens"
    return draft


@dataclass(frozen=True)
class Check:
    """How close a peer comes to transformers' own logits on one and the same text."""

    tokens_equal: float  # share of the steps at which it draws the same token
    logits_rms_error: float

    @classmethod
    def of(cls, peer: Peer, prompts: Sequence[Sequence[int]], truth: Draft) -> Check:
        """Let `peer` read the text of `truth`, a float32 draft that kept its logits."""
        draft = write(peer, prompts, len(truth.tokens), text=truth.tokens, keeps_logits=True)
        expected = [peer.expected(logits) for logits in truth.logits]
        errors = torch.stack(draft.logits).double() - torch.stack(expected).double()
        wanted = [peer.draw(logits, step) for step, logits in enumerate(expected)]
        if peer.num_agents == truth.peer.num_agents:
            assert wanted == truth.tokens, "a peer's draw differs from the minimal one on the same logits"
        equal = sum(a == b for a, b in zip(draft.tokens, wanted, strict=True)) / len(wanted)
        return cls(equal, float(errors.square().mean().sqrt()))
