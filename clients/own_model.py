"""What an agent with a model of its own sends: the distribution behind the text so far, for every step that is opened.

It follows the text from what `step.opened` says, so that no other event is needed. It must not know what the model is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from tokenauction.server.wire import DistributionSubmit, encode, write_frame

Event = dict[str, Any]


@dataclass(frozen=True)
class Sparse:
    """The most likely tokens, and the probability of all others together."""

    ids: Sequence[int]
    log_probs: Sequence[float]  # natural logarithms
    tail_mass: float


Distribution = np.ndarray[tuple[int], np.dtype[np.floating]] | Sparse  # float16 or float32: ln p of every token


class OwnModel(Protocol):
    """What an agent's model is asked; `tokenauction.models.remote.RemoteRow` is one."""

    @property
    def vocabulary_hash(self) -> str:
        """`tokenizer_hash` of the auctions that it can take part in."""

    def log_probs(self, token_ids: Sequence[int]) -> Distribution:
        """The distribution behind this text; called in a thread."""


@dataclass
class Speaker:
    """Answers the steps that are opened for one agent in one auction, on one connection."""

    model: OwnModel
    auction_id: str
    agent_id: str
    _text: list[int] = field(default_factory=list)

    async def answer(self, opened: Event) -> str | bytes:
        """The message that answers a `step.opened`."""
        step = opened["step"]
        if "token_ids" in opened:
            self._text = list(opened["token_ids"])
        elif opened["last_token_id"] is not None:
            self._text.append(opened["last_token_id"])
        if len(self._text) != step:
            raise ConnectionError(f"the server opened step {step} behind {len(self._text)} tokens; connect again")
        says = await asyncio.to_thread(self.model.log_probs, list(self._text))
        if isinstance(says, Sparse):
            message = DistributionSubmit(
                auction_id=self.auction_id,
                agent_id=self.agent_id,
                step=step,
                vocabulary_hash=self.model.vocabulary_hash,
                ids=list(says.ids),
                log_probs=list(says.log_probs),
                tail_mass=says.tail_mass,
            )
            return encode(message).decode()
        return write_frame(self.auction_id, self.agent_id, step, self.model.vocabulary_hash, says)
