"""The key-value cache of gangs that decode together: one batch, padded on the left, a token a row and step.

Gangs join and leave by cutting the batch into each gang's rows and joining other rows to a new batch. It must not know
which gangs are to step, nor when.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float32, Int
from torch import Tensor

from tokenauction.models import base
from tokenauction.models.causal_network import CausalNetwork


@dataclass(frozen=True)
class Rows:
    """The cache of the rows of one gang, padded on the left; its tensors may be views into a batch."""

    layers: list[tuple[Tensor, Tensor]]  # keys and values, each [rows, heads, columns, size]
    mask: Int[Tensor, "rows columns"]  # 1 where there is a token, 0 where there is padding

    @property
    def num_columns(self) -> int:
        return self.mask.shape[1]

    def widen(self, num_columns: int) -> Rows:
        padding = num_columns - self.num_columns
        return self._map(lambda tensor: torch.nn.functional.pad(tensor, (0, 0, padding, 0)))

    def without_last(self, num_columns: int) -> Rows:
        return self._map(lambda tensor: tensor[..., : tensor.shape[-2] - num_columns, :])

    def compact(self) -> Rows:
        """The same, not holding on to more memory than it shows."""

        def copy(tensor: Tensor) -> Tensor:
            return tensor.clone() if tensor.nbytes < tensor.untyped_storage().nbytes() else tensor

        return self._map(copy)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Rows:
        """`change` sees columns in the last dimension but one."""
        layers = [(change(keys), change(values)) for keys, values in self.layers]
        return Rows(layers, change(self.mask[..., None])[..., 0])


class Batch:
    """All rows of some gangs behind one cache, which takes in one token a row and step."""

    def __init__(self, network: CausalNetwork, gangs: Sequence[base.Gang], cache: Any, mask: Tensor) -> None:
        self.gangs = tuple(gangs)
        self.cache = cache
        self.mask = mask  # [rows, columns], 1 where there is a token, 0 where there is padding on the left
        self._network = network
        self._gang_of_row = network.tensor([place for place, gang in enumerate(gangs) for _ in gang.prompts])

    @classmethod
    def prefill(cls, network: CausalNetwork, gangs: Sequence[base.Gang]) -> tuple[Batch, Float32[Tensor, "rows vocab"]]:
        prompts = [prompt for gang in gangs for prompt in gang.prompts]
        width = max(map(len, prompts))
        ids = network.tensor([[*[0] * (width - len(prompt)), *prompt] for prompt in prompts])
        mask = network.tensor([[*[0] * (width - len(prompt)), *[1] * len(prompt)] for prompt in prompts])
        batch = cls(network, gangs, network.empty_cache(), mask[:, :0])
        return batch, batch._take_in(ids, mask)

    @classmethod
    def join(cls, network: CausalNetwork, parts: dict[base.Gang, Rows]) -> Batch:
        width = max(rows.num_columns for rows in parts.values())
        parts = {gang: rows.widen(width) for gang, rows in parts.items()}
        cache = network.empty_cache()
        for place, layer in enumerate(zip(*(rows.layers for rows in parts.values()), strict=True)):
            keys, values = (torch.cat(tensors) for tensors in zip(*layer, strict=True))
            cache.update(keys, values, place)
        return cls(network, list(parts), cache, torch.cat([rows.mask for rows in parts.values()]))

    def step(self, tokens: Int[Tensor, " gangs"]) -> Float32[Tensor, "rows vocab"]:
        ids = tokens.to(self.mask.device, torch.long)[self._gang_of_row, None]
        return self._take_in(ids, torch.ones_like(ids))

    def split(self) -> dict[base.Gang, Rows]:
        """Each gang's rows, as views without the padding that only the batch needs."""
        parts = {}
        start = 0
        for gang in self.gangs:
            rows = slice(start, start + gang.num_rows)
            start += gang.num_rows
            first = self.mask.shape[1] - max(map(len, gang.prompts)) - gang.num_tokens
            layers = [(layer.keys[rows, :, first:], layer.values[rows, :, first:]) for layer in self.cache.layers]
            parts[gang] = Rows(layers, self.mask[rows, first:])
        return parts

    def _take_in(
        self, ids: Int[Tensor, "rows columns"], mask: Int[Tensor, "rows columns"]
    ) -> Float32[Tensor, "rows vocab"]:
        """Append these columns to every row; a failure (no memory, an interrupt) leaves the batch as it was."""
        num_old, num_new = self.mask.shape[1], ids.shape[1]
        whole = torch.cat([self.mask, mask], dim=1)
        positions = (whole.cumsum(1) - 1).clamp(min=0)[:, -num_new:]
        kept = self._network.tensor([num_new - 1])
        try:
            logits = self._network.forward(ids, whole, kept, cache=self.cache, position_ids=positions)
        except BaseException:
            for layer in self.cache.layers:
                if layer.get_seq_length() > num_old:
                    layer.keys, layer.values = layer.keys[..., :num_old, :], layer.values[..., :num_old, :]
            raise
        self.mask = whole
        return logits[:, 0]
