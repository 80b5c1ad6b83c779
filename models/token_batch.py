"""The tokens of one forward pass: whose they are, where they stand in their rows, and which pages their rows hold.

It must not know of gangs, nor how a model computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenauction.models.kv_cache import PAGE_SIZE


@dataclass(frozen=True)
class Keys:
    """The keys and values of one layer, a slot a token."""

    keys: Float[Tensor, "slots kv_heads size"]
    values: Float[Tensor, "slots kv_heads size"]


@dataclass(frozen=True)
class TokenBatch:
    """The next tokens of several rows, row after row; a token looks at its row's tokens up to itself."""

    ids: Int[Tensor, " tokens"]
    pages: Int[Tensor, "rows columns"]  # each row's pages in order, padded with any
    counts: Sequence[int]  # how many of the tokens each row has: at least 1
    lengths: Sequence[int]  # how many tokens each row holds with them
    num_wanted: Sequence[int]  # of how many of a row's tokens, the last ones, the logits are asked for

    @property
    def is_step(self) -> bool:
        """Whether every row has one token."""
        return len(self.ids) == len(self.counts)

    def positions(self) -> list[int]:
        """Every token's place in its row."""
        pairs = zip(self.counts, self.lengths, strict=True)
        return [place for count, length in pairs for place in range(length - count, length)]

    def wanted(self) -> list[int]:
        """The places among `ids` of the tokens whose logits are asked for."""
        places: list[int] = []
        end = 0
        for count, num in zip(self.counts, self.num_wanted, strict=True):
            end += count
            places += range(end - num, end)
        return places

    def row_slots(self) -> Int[Tensor, "rows slots"]:
        """Every row's slots in order, up to the longest row's length; a shorter row's end is padding."""
        offsets = torch.arange(PAGE_SIZE, device=self.pages.device)
        slots = (self.pages[:, :, None] * PAGE_SIZE + offsets).flatten(1)
        return slots[:, : max(self.lengths)]
