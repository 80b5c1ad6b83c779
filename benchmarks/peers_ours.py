"""Our own rows of `peers.py`: the model behind the engine's protocol, and the engine's whole clearing of every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peers_draw import BIDS_MICROS, SEED, Draft, Peer
from torch import Tensor

from tokenauction.engine.auction import Auction
from tokenauction.engine.policy import Policy
from tokenauction.engine.randomness import step_key
from tokenauction.engine.spec import AgentSpec, AuctionSpec
from tokenauction.engine.stepping import Standing, clear_step
from tokenauction.models.loading import build_model
from tokenauction.models.toy import ToyTokenizer

NUMERICS = {"fp32": "float32", "bf16": "bf16", "int8": "int8"}


class TokenAuction(Peer):
    """Aggregates and draws as the others do, and finds every agent's critical bid, payment and influence besides."""

    note = "with prices"

    def __init__(self, model: Any, max_tokens: int, runner: str, numerics: str) -> None:
        self.numerics = numerics
        self.model = build_model(model, ToyTokenizer("ab"), runner=runner, numerics=numerics, max_rows=8)
        agents = tuple(AgentSpec(f"agent {i}", f"Brand {i}", "rooms", bid) for i, bid in enumerate(BIDS_MICROS))
        spec = AuctionSpec("a benchmark", agents, temperature=1.0, max_tokens=max_tokens, seed=SEED)
        self.standing = Standing(spec, [], Policy())
        self.bids = Auction(spec, "peers").read_bids()

    def write(self, prompts: Sequence[Sequence[int]], num_tokens: int, draft: Draft) -> None:
        gang = self.model.admit(prompts, num_tokens)
        logits = self.model.prefill([gang])
        for _ in range(num_tokens - 1):
            logits = self.model.step([gang], torch.tensor([draft(logits)]))
        draft(logits)
        self.model.release(gang)

    def draw(self, logits: Tensor, step: int) -> int:
        (outcome,) = clear_step([self.standing], [self.bids], [step_key(SEED, step)], logits)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome.token


PEERS = {
    f"tokenauction-{runner}-{name}": (runner, numerics)
    for runner in ("packed", "cpp")
    for name, numerics in NUMERICS.items()
}
