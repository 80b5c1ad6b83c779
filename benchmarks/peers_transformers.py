"""The peers of `peers.py` that transformers computes: what people write today, and the best it can do on a CPU."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from peers_draw import Draft, Peer, draw_from
from torch import Tensor
from transformers import DynamicCache, LogitsProcessor, StaticCache, UnbatchedClassifierFreeGuidanceLogitsProcessor


class _Transformers(Peer):
    def __init__(self, model: Any, max_tokens: int) -> None:
        self.model = model
        self.max_tokens = max_tokens  # of one text
        accepted = inspect.signature(model.forward).parameters
        self.cache_option = "cache" if "cache" in accepted else "past_key_values"  # renamed in transformers 5.24

    def new_cache(self) -> Any:
        return DynamicCache(config=self.model.config)


class Generate(_Transformers):
    """One `generate(max_new_tokens=1)` an agent and token, each agent's cache handed in again."""

    def write(self, prompts: Sequence[Sequence[int]], num_tokens: int, draft: Draft) -> None:
        caches = [self.new_cache() for _ in prompts]
        texts = [torch.tensor([list(prompt)]) for prompt in prompts]
        for _ in range(num_tokens):
            token = draft(torch.cat([self._next(*row) for row in zip(texts, caches, strict=True)]))
            texts = [torch.cat((text, torch.tensor([[token]])), dim=1) for text in texts]

    def _next(self, text: Tensor, cache: Any) -> Tensor:
        written = self.model.generate(
            text,
            attention_mask=torch.ones_like(text),
            max_new_tokens=1,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
            **{self.cache_option: cache},
        )
        return written.logits[0]


class Proxy(_Transformers):
    """The loop of proxy-tuning code: each agent's own forward pass behind its own cache, one after the other."""

    def write(self, prompts: Sequence[Sequence[int]], num_tokens: int, draft: Draft) -> None:
        caches = [self.new_cache() for _ in prompts]
        token = draft(torch.cat([self._next(list(p), cache) for p, cache in zip(prompts, caches, strict=True)]))
        for _ in range(num_tokens - 1):
            token = draft(torch.cat([self._next([token], cache) for cache in caches]))

    def _next(self, ids: list[int], cache: Any) -> Tensor:
        options = {self.cache_option: cache, "use_cache": True, "logits_to_keep": 1}
        return self.model(torch.tensor([ids]), **options).logits[:, -1]


class Batched(_Transformers):
    """All agents in one left-padded batch."""

    def write(self, prompts: Sequence[Sequence[int]], num_tokens: int, draft: Draft) -> None:
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        mask = torch.ones(len(prompts), width + num_tokens, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            mask[row, : width - len(prompt)] = 0
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = self.new_cache()
        token = draft(self.prefill(ids, mask[:, :width], positions[:, :width], cache))
        for end in range(width, width + num_tokens - 1):
            ids = torch.full((len(prompts), 1), token)
            token = draft(self.step(ids, mask[:, : end + 1], positions[:, end : end + 1], cache))

    def prefill(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
        """The logits behind the prompts."""
        return self._forward(self.model, ids, mask, positions, cache)

    def step(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
        """The logits behind one more token."""
        return self._forward(self.model, ids, mask, positions, cache)

    def _forward(self, forward: Any, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
        options = {self.cache_option: cache, "use_cache": True, "logits_to_keep": 1}
        return forward(ids, attention_mask=mask, position_ids=positions, **options).logits[:, -1]


class Compiled(Batched):
    """The same batch in a static cache, its decode step compiled by inductor."""

    def __init__(self, model: Any, max_tokens: int) -> None:
        super().__init__(model, max_tokens)
        self.compiled = torch.compile(model.forward, dynamic=False, fullgraph=True)
        self.cache: Any = None
        self.mask = torch.empty(0)

    def new_cache(self) -> Any:
        """The one cache, emptied: another one would be compiled for again."""
        if self.cache is None:
            self.cache = StaticCache(config=self.model.config, max_cache_len=self.max_tokens)
        self.cache.reset()
        return self.cache

    def prefill(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
        self.mask = torch.ones(len(ids), self.max_tokens, dtype=torch.long)  # what is not written yet, causality hides
        self.mask[:, : mask.shape[1]] = mask
        return self._forward(self.model, ids, self.mask, positions, cache)

    def step(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
        return self._forward(self.compiled, ids, self.mask, positions.contiguous(), cache)


class _DrawnToken(LogitsProcessor):
    """Lets `generate` take the token that was drawn."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        chosen = torch.full_like(scores, -torch.inf)
        chosen[:, self.draft(scores)] = 0.0
        return chosen


class Guidance(_Transformers):
    """Classifier-free guidance of `generate`, scale ½: a mixture of two agents that transformers itself offers.

    It mixes logarithms (ln p = ½ ln p_1 + ½ ln p_2, up to a constant) and has no third agent, so it draws other tokens.
    """

    num_agents = 2
    note = "2 agents only, log-linear"

    def write(self, prompts: Sequence[Sequence[int]], num_tokens: int, draft: Draft) -> None:
        first, second = (torch.tensor([list(prompt)]) for prompt in prompts[:2])
        guidance = UnbatchedClassifierFreeGuidanceLogitsProcessor(0.5, self.model, unconditional_ids=second)
        self.model.generate(
            first,
            attention_mask=torch.ones_like(first),
            max_new_tokens=num_tokens,
            do_sample=False,
            logits_processor=[guidance, _DrawnToken(draft)],
        )

    def draw(self, logits: Tensor, step: int) -> int:
        return draw_from(logits[0].to(torch.float64).softmax(-1), step)

    def expected(self, logits: Tensor) -> Tensor:
        return logits[:2].to(torch.float64).log_softmax(-1).mean(0, keepdim=True).float()


PEERS = {
    "transformers-generate": Generate,
    "transformers-proxy": Proxy,
    "transformers-batched": Batched,
    "transformers-compiled": Compiled,
    "transformers-guidance-n2": Guidance,
}
