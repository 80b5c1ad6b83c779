"""The Llama family's step from device tensors alone, for a CUDA graph to hold: `base.DeviceModel`.

Prompts are read as in every runner of the family. A step reads ids, lengths and pages on the device: positions are the
lengths, slots follow from pages, angles from a table, and attention runs over pages. It must not know of auctions, nor
whether it is captured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float32, Int
from torch import Tensor

from tokenauction.models import base
from tokenauction.models.kv_cache import PAGE_SIZE
from tokenauction.models.llama import LlamaModel
from tokenauction.models.llama_network import Attention, LlamaNetwork, StepAttention

# From int32 pages and the lengths with the new token to an attention.
AttentionOver = Callable[[Int[Tensor, "rows columns"], Int[Tensor, " rows"]], Attention]


class DeviceLlama(LlamaModel):
    """`base.DeviceModel` over a transformers model of the Llama family."""

    _NUM_SPARE = 1

    def __init__(self, model: Any, tokenizer: base.Tokenizer, *, runner: str = "cuda", **options: Any) -> None:
        """As `LlamaModel`, for a runner whose network is `LlamaNetwork`: "cuda", or "packed" on a CPU."""
        super().__init__(model, tokenizer, runner=runner, **options)
        assert isinstance(self._network, LlamaNetwork), "the other networks are not written in tensor operations"
        self._tensor_network = self._network
        self._tensor_network.tabulate_angles(self.max_length)
        self.attention = attention_on(self.device)

    @property
    def page_size(self) -> int:
        return PAGE_SIZE

    @property
    def num_columns(self) -> int:
        return -(-self.max_length // PAGE_SIZE)

    @property
    def spare_page(self) -> int:
        return self._pages.num_pages

    def pages_of(self, gang: base.Gang) -> list[list[int]]:
        return [list(row.pages) for row in self._rows[gang]]

    def grow(self, gangs: Sequence[base.Gang]) -> list[int]:
        rows = [row for gang in gangs for row in self._rows[gang]]
        places = [len(prompt) + gang.num_tokens for gang in gangs for prompt in gang.prompts]
        if not self._pages.extend(rows, [place + 1 for place in places]):
            raise base.NoRoom(f"{len(rows)} rows need more than the {self.num_free_pages * PAGE_SIZE} free tokens")
        for gang in gangs:
            gang.num_tokens += 1
        return [row.pages[place // PAGE_SIZE] for row, place in zip(rows, places, strict=True)]

    def decode(
        self, ids: Int[Tensor, " rows"], lengths: Int[Tensor, " rows"], pages: Int[Tensor, "rows columns"]
    ) -> Float32[Tensor, "rows vocab"]:
        page = pages.gather(1, (lengths // PAGE_SIZE)[:, None])[:, 0].long()
        slots = page * PAGE_SIZE + lengths % PAGE_SIZE
        attention = self.attention(pages, lengths + 1)
        return self._tensor_network.compute(ids, lengths, slots, self._cache, attention)


def attention_on(device: torch.device) -> AttentionOver:
    """Triton's where there is CUDA, else torch's."""
    if device.type != "cuda":
        return attention_over_slots
    from tokenauction.models.paged_attention import PagedAttention

    return PagedAttention


def attention_over_slots(pages: Int[Tensor, "rows columns"], lengths: Int[Tensor, " rows"]) -> StepAttention:
    """Every slot of every page in order; the oracle of `paged_attention`."""
    slots = (pages.long()[:, :, None] * PAGE_SIZE + torch.arange(PAGE_SIZE, device=pages.device)).flatten(1)
    return StepAttention(slots, torch.arange(slots.shape[1], device=pages.device) < lengths[:, None])
