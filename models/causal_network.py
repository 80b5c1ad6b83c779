"""A transformers model behind typed calls: the one place where its loose types are let in.

It reads whole rows from their start, or columns behind a cache that others keep. It must not know of gangs.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float32, Int
from torch import Tensor

from tokenauction.models import base

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}

# Tokens in one forward pass that reads whole rows, padding included: logits are the largest tensor by far
# (1,024 tokens of a 150,000-token vocabulary are 0.6 GB in float32).
MAX_PASS_TOKENS = 1024


class CausalNetwork:
    """Forward passes of one transformers causal LM, with logits in float32."""

    def __init__(self, model: Any, name: str) -> None:
        self.model = model.eval()
        self.device: torch.device = model.device
        self._accepted = frozenset(inspect.signature(model.forward).parameters)
        # transformers 5.24 gave past_key_values a new name, in one architecture after the other.
        self._cache_option = next((name for name in ("cache", "past_key_values") if name in self._accepted), None)
        numerics = [numerics for numerics, dtype in DTYPES.items() if dtype == model.dtype]
        if not numerics:
            raise base.ModelNotLoadable(f"{name} computes in {model.dtype}; load it as one of {', '.join(DTYPES)}")
        self.numerics = numerics[0]
        self.vocab_size = self.next_logits([[0]]).shape[-1]

    def tensor(self, ids: Sequence[Sequence[int]] | Sequence[int]) -> Tensor:
        """`ids` on the network's device."""
        return torch.tensor(ids, dtype=torch.long, device=self.device)

    @torch.no_grad()
    def forward(
        self,
        ids: Int[Tensor, "rows columns"],
        mask: Int[Tensor, "rows all"],
        kept: Int[Tensor, " kept"],
        *,
        cache: Any = None,
        position_ids: Int[Tensor, "rows columns"] | None = None,
    ) -> Float32[Tensor, "rows kept vocab"]:
        """Logits of the columns `kept`; what the model has no parameter for is left out."""
        options = {"attention_mask": mask, "use_cache": cache is not None, "return_dict": True}
        if cache is not None and self._cache_option is not None:
            options |= {self._cache_option: cache, "position_ids": position_ids}
        options = {key: value for key, value in options.items() if key in self._accepted}
        if "logits_to_keep" in self._accepted:
            logits: Tensor = self.model(input_ids=ids, logits_to_keep=kept, **options).logits
        else:
            logits = self.model(input_ids=ids, **options).logits[:, kept]
        return logits.float()

    @property
    def takes_cache(self) -> bool:
        """Whether columns can be fed behind a cache, with a mask over all that it holds."""
        return self._cache_option is not None and "attention_mask" in self._accepted

    def empty_cache(self) -> Any:
        """A transformers cache with the layers that the model's config asks for."""
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config)

    def next_logits(self, rows: Sequence[Sequence[int]]) -> Float32[Tensor, "rows vocab"]:
        """The logits behind each row, every row read from its start."""
        logits = []
        for pass_rows in _passes(rows):
            kept = sorted({len(row) - 1 for row in pass_rows})
            read = self.forward(*self._pad(pass_rows), self.tensor(kept))
            logits.append(torch.stack([read[place, kept.index(len(row) - 1)] for place, row in enumerate(pass_rows)]))
        return torch.cat(logits)

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Float32[Tensor, " tokens"]]:
        """ln p of each token of the candidate behind the prefix, for (prefix, candidate) pairs."""
        scores = []
        rows = [[*prefix, *candidate[:-1]] for prefix, candidate in pairs]  # Nobody asks what follows the last token.
        remaining = iter(pairs)
        for pass_rows in _passes(rows):
            pass_pairs = [next(remaining) for _ in pass_rows]
            first = min(len(prefix) for prefix, _ in pass_pairs) - 1
            ids, mask = self._pad(pass_rows)
            logits = self.forward(ids, mask, torch.arange(first, ids.shape[1], device=self.device))
            totals = logits.logsumexp(-1)
            for row, (prefix, candidate) in enumerate(pass_pairs):
                start = len(prefix) - 1 - first
                places = torch.arange(start, start + len(candidate), device=self.device)
                scores.append(logits[row, places, self.tensor(candidate)] - totals[row, places])
        return scores

    def _pad(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Ids padded on the right, and a mask of ones: behind a causal model's text nothing needs to be masked."""
        width = max(map(len, rows))
        ids = self.tensor([[*row, *[0] * (width - len(row))] for row in rows])
        return ids, torch.ones_like(ids)


def _passes(rows: Sequence[Sequence[int]]) -> Iterator[Sequence[Sequence[int]]]:
    """The rows in order, in groups of at most MAX_PASS_TOKENS with their padding; a longer row goes alone."""
    start = 0
    while start < len(rows):
        stop, width = start, 0
        while stop < len(rows):
            width = max(width, len(rows[stop]))
            if stop > start and width * (stop + 1 - start) > MAX_PASS_TOKENS:
                break
            stop += 1
        yield rows[start:stop]
        start = stop
