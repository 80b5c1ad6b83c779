"""Any causal language model that transformers can load, decoded in gangs: slow, correct, the faster runners' oracle.

All rows of all gangs take a step in one forward pass over one key-value cache, padded on the left. That needs a cache
of plain attention layers; any other model (sliding window, recurrent, hybrid) reads its rows anew at every step. It
must not know what the logits are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float32, Int
from torch import Tensor

from tokenauction.models import base
from tokenauction.models.admissions import Admissions, Admitting, context_length
from tokenauction.models.causal_network import CausalNetwork
from tokenauction.models.checkpoint import hash_files, hash_parameters
from tokenauction.models.padded_cache import Batch, Rows

CacheKind = Literal["dynamic", "reread"]

# Two ways to the same logits may part by this much, root mean square over the logits' standard deviation. A wrong
# position or an unmasked padding parts them by 0.1 and more in a trained model.
_TOLERANCES = {"float32": 1e-3, "bf16": 0.05}


class HuggingFaceModel(Admitting):
    """`base.LanguageModel` over a transformers model; see `loading.load_model` for one from a folder."""

    def __init__(
        self,
        model: Any,
        tokenizer: base.Tokenizer,
        *,
        name: str = "in-memory",
        max_rows: int = 64,
        max_length: int | None = None,
        weights: Sequence[Path] = (),
    ) -> None:
        """Take a transformers causal LM where it is (device and dtype are its own).

        `max_length` may lower the context that the config names. `weights` are the files the hash is taken of; without
        any it is taken of the parameters. Runs a few short forward passes to see how the model can be decoded; raises
        ModelNotLoadable if it is not causal or not of a supported dtype.
        """
        self._network = CausalNetwork(model, name)
        self._name = name
        self._tokenizer = tokenizer
        self._weights = tuple(weights)
        self._hash: str | None = None
        self._cache_kind = _probe(self._network, name)
        max_length = context_length(model.config, max_length)
        self._admissions = Admissions(max_rows, max_length, self._network.vocab_size)
        self._batch: Batch | None = None  # the gangs of the last step
        self._parked: dict[base.Gang, Rows] = {}  # prefilled gangs that are not in the batch
        self._texts: dict[base.Gang, list[int]] = {}  # what re-reading reads behind the prompts

    @property
    def name(self) -> str:
        return self._name

    @property
    def hash(self) -> str:
        if self._hash is None:
            self._hash = hash_files(self._weights) if self._weights else hash_parameters(self._network.model)
        return self._hash

    @property
    def tokenizer(self) -> base.Tokenizer:
        return self._tokenizer

    @property
    def device(self) -> torch.device:
        return self._network.device

    @property
    def numerics(self) -> str:
        return self._network.numerics

    @property
    def runner(self) -> str:
        return "transformers"

    @property
    def cache_kind(self) -> CacheKind:
        """How it decodes: "dynamic" feeds one token a row and step, "reread" (slow) every row from its start."""
        return self._cache_kind

    def admit(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> base.Gang:
        return self._admissions.admit(prompts, max_new_tokens)

    def prefill(self, gangs: Sequence[base.Gang]) -> Float32[Tensor, "rows vocab"]:
        self._admissions.check_prefill(gangs)
        if not gangs:
            return self._no_logits()
        if self._cache_kind == "reread":
            logits = self._network.next_logits([prompt for gang in gangs for prompt in gang.prompts])
            self._texts |= {gang: [] for gang in gangs}
        else:
            batch, logits = Batch.prefill(self._network, gangs)
            self._parked |= batch.split()
        self._admissions.record_prefill(gangs)
        return logits

    def step(self, gangs: Sequence[base.Gang], tokens: Int[Tensor, " gangs"]) -> Float32[Tensor, "rows vocab"]:
        self._admissions.check_step(gangs, tokens)
        if not gangs:
            return self._no_logits()
        if self._cache_kind == "reread":
            texts = [[*self._texts[gang], token] for gang, token in zip(gangs, tokens.tolist(), strict=True)]
            pairs = zip(gangs, texts, strict=True)
            logits = self._network.next_logits([[*prompt, *text] for gang, text in pairs for prompt in gang.prompts])
            self._texts |= dict(zip(gangs, texts, strict=True))
        else:
            logits = self._assemble(gangs).step(tokens)
        for gang in gangs:
            gang.num_tokens += 1
        return logits

    def rollback(self, gang: base.Gang, num_tokens: int) -> None:
        self._admissions.check_rollback(gang, num_tokens)
        if num_tokens == 0:
            return
        if self._cache_kind == "reread":
            del self._texts[gang][-num_tokens:]
        else:
            self._dissolve()
            self._parked[gang] = self._parked[gang].without_last(num_tokens)
        gang.num_tokens -= num_tokens

    def score(
        self, prefixes: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]]
    ) -> list[list[Float32[Tensor, " tokens"]]]:
        """As `base.LanguageModel.score`; reads every prefix once per candidate, in passes of bounded size."""
        self._admissions.check_score(prefixes, candidates)
        pairs = [(prefix, candidate) for prefix in prefixes for candidate in candidates]
        scores = iter(self._network.score(pairs))
        return [[next(scores) for _ in candidates] for _ in prefixes]

    def release(self, gang: base.Gang) -> None:
        if self._batch is not None and gang in self._batch.gangs:
            self._dissolve()
        self._admissions.release(gang)
        self._parked.pop(gang, None)
        self._texts.pop(gang, None)

    def _assemble(self, gangs: Sequence[base.Gang]) -> Batch:
        """The batch of exactly these gangs; a new one only if the last step had others."""
        if self._batch is None or self._batch.gangs != tuple(gangs):
            self._dissolve()
            self._batch = Batch.join(self._network, {gang: self._parked[gang] for gang in gangs})
            # A parked view would keep the whole of an old batch in memory.
            self._parked = {gang: rows.compact() for gang, rows in self._parked.items() if gang not in gangs}
        return self._batch

    def _dissolve(self) -> None:
        if self._batch is not None:
            self._parked |= self._batch.split()
            self._batch = None

    def _no_logits(self) -> Float32[Tensor, "rows vocab"]:
        return torch.empty(0, self.vocab_size, device=self.device)


def _probe(network: CausalNetwork, name: str) -> CacheKind:
    """How a network can be decoded, found by trying: ragged rows with the cache against rows read one by one."""
    ids = [(7 * i + 3) % network.vocab_size for i in range(6)]
    alone = network.next_logits([ids[:3]])
    if _differ(network, network.next_logits([ids[:3], ids])[:1], alone):
        raise base.ModelNotLoadable(
            f"{name} is not causal: what it predicts depends on later tokens; name a causal language model"
        )
    if not network.takes_cache or not _is_plain(network.empty_cache()):
        return "reread"
    gang = base.Gang((tuple(ids[:2]), tuple(ids[1:5])))
    batch, prefilled = Batch.prefill(network, [gang])
    if any(layer.get_seq_length() != batch.mask.shape[1] for layer in batch.cache.layers):
        return "reread"  # The model takes a cache and does not fill it, or not in every layer.
    stepped = batch.step(network.tensor(ids[5:]))
    rows = [*gang.prompts, *([*prompt, ids[5]] for prompt in gang.prompts)]
    one_by_one = torch.cat([network.next_logits([row]) for row in rows])
    return "reread" if _differ(network, torch.cat([prefilled, stepped]), one_by_one) else "dynamic"


def _differ(
    network: CausalNetwork, logits: Float32[Tensor, "rows vocab"], truth: Float32[Tensor, "rows vocab"]
) -> bool:
    gap = (logits - truth).square().mean().sqrt() / truth.std()
    return not gap.item() <= _TOLERANCES[network.numerics]  # NaN differs too.


def _is_plain(cache: Any) -> bool:
    """Whether every layer keeps all of its keys and values, in order, and nothing else."""
    from transformers.cache_utils import DynamicLayer

    return len(cache.layers) > 0 and all(type(layer) is DynamicLayer for layer in cache.layers)
