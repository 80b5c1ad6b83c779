"""The peers of `gpu.py`: the same rows by transformers, mixed and drawn by a few tensor operations, without a price."""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, StaticCache


class Batched:
    """All rows of all auctions in one batch with a DynamicCache; the token is read back in every step."""

    name = "transformers-batched"

    def __init__(self, model: Any, num_agents: int) -> None:
        self.model = model
        self.num_agents = num_agents
        accepted = inspect.signature(model.forward).parameters
        self.cache_option = "cache" if "cache" in accepted else "past_key_values"  # renamed in transformers 5.24

    def step_seconds(self, prompts: Sequence[Sequence[int]], num_tokens: int) -> list[float]:
        """Write a text of so many tokens behind prompts of one length; the seconds of every step but the first."""
        ids = torch.tensor(prompts, device=self.model.device)
        cache = self.new_cache(ids.shape[1] + num_tokens)
        seconds: list[float] = []
        with torch.inference_mode():
            tokens = self._draw(self._forward(self.model, ids, 0, cache))
            for place in range(ids.shape[1], ids.shape[1] + num_tokens - 1):
                started = time.perf_counter()
                logits = self.step(tokens.repeat_interleave(self.num_agents)[:, None], place, cache)
                tokens = self._draw(logits)
                tokens.tolist()  # whoever looks for the end of a text waits here
                seconds.append(time.perf_counter() - started)
        return seconds

    def new_cache(self, length: int) -> Any:
        """An empty cache for rows of at most `length` tokens."""
        return DynamicCache(config=self.model.config)

    def step(self, ids: Tensor, place: int, cache: Any) -> Tensor:
        """The logits behind one more token."""
        return self._forward(self.model, ids, place, cache)

    def _forward(self, forward: Any, ids: Tensor, start: int, cache: Any) -> Tensor:
        places = torch.arange(start, start + ids.shape[1], device=ids.device).expand(len(ids), -1)
        options = {self.cache_option: cache, "use_cache": True, "logits_to_keep": 1}
        logits: Tensor = forward(ids, position_ids=places, **options).logits[:, -1]
        return logits

    def _draw(self, logits: Tensor) -> Tensor:
        """One token an auction from the mean of its agents' distributions."""
        q = logits.double().softmax(-1).view(-1, self.num_agents, logits.shape[-1]).mean(1)
        uniforms = torch.full((len(q), 1), 0.5, dtype=torch.float64, device=q.device)
        return torch.searchsorted(q.cumsum(-1), uniforms)[:, 0].clamp_(max=logits.shape[-1] - 1)


class Compiled(Batched):
    """The same in a static cache, the step compiled with CUDA graphs (`mode="reduce-overhead"`)."""

    name = "transformers-compiled"

    def __init__(self, model: Any, num_agents: int) -> None:
        super().__init__(model, num_agents)
        torch.compiler.reset()  # what was compiled for another size counts against a limit
        self.compiled = torch.compile(model.forward, mode="reduce-overhead", fullgraph=True, dynamic=False)
        self.cache: Any = None

    def new_cache(self, length: int) -> Any:
        """The one cache, emptied: another one would be compiled for again."""
        if self.cache is None:
            self.cache = StaticCache(config=self.model.config, max_cache_len=length)
        self.cache.reset()
        return self.cache

    def step(self, ids: Tensor, place: int, cache: Any) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        return self._forward(self.compiled, ids, place, cache).clone()
