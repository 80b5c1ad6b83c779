"""The runner for the Llama family (Llama, Mistral, Qwen2, Qwen3): gangs over pages of keys and values.

Rows are ragged: each has its own positions and reads its own pages only, and what prompts have in common is computed
and kept once. `huggingface.py` computes the same logits the slow way and is the oracle in the tests. It must not know
what the logits are for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int
from torch import Tensor

from tokenauction.models import base
from tokenauction.models.admissions import Admissions, Admitting, context_length
from tokenauction.models.causal_network import DTYPES
from tokenauction.models.checkpoint import hash_files, hash_parameters
from tokenauction.models.kv_cache import PAGE_SIZE, PageTable, Row
from tokenauction.models.llama_config import unsupported
from tokenauction.models.llama_networks import NETWORKS
from tokenauction.models.llama_weights import LlamaWeights
from tokenauction.models.score_tree import Pair, Segment, lay_out, passes, waves
from tokenauction.models.token_batch import Keys, TokenBatch

CACHE_BYTES = 2**31  # keys and values of all rows together, unless `cache_bytes` says otherwise
MAX_SCORED_TOKENS = 2048  # tokens of one pass of `score`: their logits are its largest tensor


@dataclass(frozen=True)
class _Batch:
    """The gangs of the last step, as what every step with the same gangs needs again."""

    gangs: tuple[base.Gang, ...]
    rows: list[Row]
    pages: Int[Tensor, "rows columns"]
    gang_of_row: Int[Tensor, " rows"]
    ones: tuple[int, ...]  # one a row


class LlamaModel(Admitting):
    """`base.LanguageModel` over a transformers model of the Llama family; see `unsupported` for which are."""

    _NUM_SPARE = 0  # pages behind the last that are nobody's

    def __init__(
        self,
        model: Any,
        tokenizer: base.Tokenizer,
        *,
        runner: str = "packed",
        numerics: str | None = None,
        name: str = "in-memory",
        max_rows: int = 64,
        max_length: int | None = None,
        cache_bytes: int = CACHE_BYTES,
        weights: Sequence[Path] = (),
    ) -> None:
        """Take over the weights of `model`, on its device, for one of NETWORKS and "float32", "bf16" or "int8".

        Without `numerics` they are what the model's dtype says. At most `cache_bytes` are ever used for keys and
        values: a gang waits until its prompts and a beginning of its text fit, and one that could
        never fit is refused. Raises ValueError if the family does not include the model, and NotCompiled.
        """
        max_length = context_length(model.config, max_length)
        reason = unsupported(model.config, max_length)
        if reason is not None:
            raise ValueError(f"{name} is nothing for the Llama runner: {reason}; use the transformers runner")
        known = [name for name, dtype in DTYPES.items() if dtype == model.dtype]
        if not numerics and not known:
            raise ValueError(f"{name} holds {model.dtype}; say which of {', '.join(DTYPES)} to compute it in")
        self._numerics = numerics or known[0]
        self._network = NETWORKS[runner](LlamaWeights.of(model), self._numerics)
        self._name = name
        self._tokenizer = tokenizer
        self._weights = tuple(weights)
        self._hash = None if weights else hash_parameters(model)  # of files, once somebody asks
        self._admissions = Admissions(max_rows, max_length, self._network.shape.vocab_size)
        bytes_per_page = self._network.shape.cache_entries_per_token * self._network.cache_dtype.itemsize * PAGE_SIZE
        num_pages = min(max_rows * -(-max_length // PAGE_SIZE), cache_bytes // bytes_per_page - self._NUM_SPARE)
        if num_pages < 1:
            raise ValueError(f"cache_bytes is {cache_bytes}; {PAGE_SIZE} tokens of one row take {bytes_per_page} bytes")
        self._pages = PageTable(num_pages)
        self._cache = self._new_cache(num_pages + self._NUM_SPARE)
        self._rows: dict[base.Gang, list[Row]] = {}
        self._batch: _Batch | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def hash(self) -> str:
        if self._hash is None:
            self._hash = hash_files(self._weights)
        return self._hash

    @property
    def tokenizer(self) -> base.Tokenizer:
        return self._tokenizer

    @property
    def device(self) -> torch.device:
        return self._network.device

    @property
    def numerics(self) -> str:
        return self._numerics

    @property
    def runner(self) -> str:
        return self._network.runner

    @property
    def num_free_pages(self) -> int:
        """Pages of PAGE_SIZE tokens that no row holds."""
        return self._pages.num_free

    def admit(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> base.Gang:
        gang = self._admissions.admit(prompts, max_new_tokens)
        try:
            self._rows[gang] = self._pages.take(gang.prompts, max_new_tokens)
        except base.ModelError:
            self._admissions.release(gang)
            raise
        return gang

    def num_unread(self, gang: base.Gang) -> int:
        return sum(self._pages.unread(self._rows[gang]))

    def preload(self, gang: base.Gang, max_tokens: int) -> bool:
        self._admissions.check_prefill([gang])
        for row in self._rows[gang]:
            [unread] = self._pages.unread([row])
            num = min(unread - 1, max_tokens)  # the last token's logits are for prefill to compute
            if num > 0:
                self._read([row], self._pages, self._cache, [0], [num])
                max_tokens -= num
        return True

    def prefill(self, gangs: Sequence[base.Gang]) -> Float32[Tensor, "rows vocab"]:
        self._admissions.check_prefill(gangs)
        rows = [row for gang in gangs for row in self._rows[gang]]
        if not rows:
            return self._no_logits()
        firsts: dict[tuple[int, ...], Row] = {}
        different = [row for row in rows if firsts.setdefault(row.prompt, row) is row]
        logits = dict(
            zip(different, self._read(different, self._pages, self._cache, [1] * len(different)), strict=True)
        )
        copies: list[tuple[int, int]] = []
        for row in rows:  # equal prompts are read once
            if row is not firsts[row.prompt]:
                num_pages = -(-len(row.prompt) // PAGE_SIZE)
                own = slice(row.num_shared, num_pages)
                copies += zip(firsts[row.prompt].pages[own], row.pages[own], strict=True)
                self._pages.record_read(row, len(row.prompt))
        _copy_pages(self._cache, copies, self._pages.num_pages)
        self._admissions.record_prefill(gangs)
        return torch.cat([logits[firsts[row.prompt]] for row in rows])

    def launch(
        self, gangs: Sequence[base.Gang], tokens: Int[Tensor, " gangs"]
    ) -> Callable[[], Float32[Tensor, "rows vocab"]]:
        self._admissions.check_step(gangs, tokens)
        if not gangs:
            return self._no_logits
        lengths = [len(prompt) + gang.num_tokens + 1 for gang in gangs for prompt in gang.prompts]
        batch = self._assemble(gangs, lengths)
        ids = tokens.to(self.device, torch.long)[batch.gang_of_row]
        compute = self._network.launch(TokenBatch(ids, batch.pages, batch.ones, lengths, batch.ones), self._cache)
        for gang in gangs:
            gang.num_tokens += 1
        return compute

    def rollback(self, gang: base.Gang, num_tokens: int) -> None:
        self._admissions.check_rollback(gang, num_tokens)
        gang.num_tokens -= num_tokens  # what lies in the forgotten slots is never looked at, and written over

    def score(
        self, prefixes: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]]
    ) -> list[list[Float32[Tensor, " tokens"]]]:
        """As `base.LanguageModel.score`; what prefixes and candidates share is read once a pass, to the token."""
        self._admissions.check_score(prefixes, candidates)
        pairs = [Pair(tuple(prefix), tuple(candidate)) for prefix in prefixes for candidate in candidates if candidate]
        scores = (score for passed in passes(pairs, MAX_SCORED_TOKENS) for score in self._score(passed))
        nothing = torch.empty(0, device=self.device)
        return [[next(scores) if candidate else nothing for candidate in candidates] for _ in prefixes]

    def _score(self, pairs: Sequence[Pair]) -> list[Float32[Tensor, " tokens"]]:
        """ln p of every token of every pair's text, wave after wave of what they share."""
        tree = waves(pairs)
        num_pages, copies = lay_out(tree)
        cache = self._new_cache(num_pages)
        found: list[list[Tensor]] = [[] for _ in pairs]
        for segments, copied in zip(tree, copies, strict=True):
            _copy_pages(cache, copied, num_pages)
            counts, lengths = [len(s.tokens) for s in segments], [s.end for s in segments]
            num_wanted = [s.num_wanted for s in segments]
            ids = self._tensor([token for s in segments for token in s.tokens])
            batch = TokenBatch(ids, self._page_tensor(segments), counts, lengths, num_wanted)
            log_probs = self._network.launch(batch, cache)().log_softmax(-1)
            for segment, rows in zip(segments, torch.split(log_probs, num_wanted), strict=True):
                first = segment.end - segment.num_wanted
                for member in segment.members:
                    begin = max(first, pairs[member].first_wanted)
                    place, num = begin - pairs[member].first_wanted, max(0, segment.end - begin)
                    told = pairs[member].text[place : place + num]
                    found[member].append(rows[len(rows) - num :].gather(1, self._tensor(told)[:, None])[:, 0])
        return [torch.cat(parts) for parts in found]

    def release(self, gang: base.Gang) -> None:
        self._admissions.release(gang)
        self._pages.release(self._rows.pop(gang, []))
        if self._batch is not None and gang in self._batch.gangs:
            self._batch = None

    def _read(
        self,
        rows: Sequence[Row],
        pages: PageTable,
        cache: Sequence[Keys],
        num_wanted: Sequence[int],
        counts: Sequence[int] | None = None,
    ) -> list[Float32[Tensor, "_ vocab"]]:
        """Read the next `counts` tokens of the rows' prompts in one pass (all that are left, a beginning in common
        once, if left out) and return the logits behind the last `num_wanted` of each."""
        unread = pages.unread(rows)
        counts = unread if counts is None else counts
        starts = [len(row.prompt) - num for row, num in zip(rows, unread, strict=True)]
        lengths = [start + count for start, count in zip(starts, counts, strict=True)]
        ids = [token for row, *span in zip(rows, starts, lengths, strict=True) for token in row.prompt[slice(*span)]]
        batch = TokenBatch(self._tensor(ids), self._page_tensor(rows), counts, lengths, num_wanted)
        logits = self._network.launch(batch, cache)()
        for row, length in zip(rows, lengths, strict=True):
            pages.record_read(row, length)
        return list(torch.split(logits, list(num_wanted)))

    def _assemble(self, gangs: Sequence[base.Gang], lengths: Sequence[int]) -> _Batch:
        """What a step of exactly these gangs needs; made anew only if the last step had others, or a row grows."""
        batch = self._batch
        is_known = batch is not None and batch.gangs == tuple(gangs)
        rows = batch.rows if batch and is_known else [row for gang in gangs for row in self._rows[gang]]
        grows = any(length > len(row.pages) * PAGE_SIZE for row, length in zip(rows, lengths, strict=True))
        if grows and not self._pages.extend(rows, lengths):
            raise base.NoRoom(f"{len(rows)} rows need more than the {self.num_free_pages * PAGE_SIZE} free tokens")
        if batch is None or grows or not is_known:
            gang_of_row = self._tensor([place for place, gang in enumerate(gangs) for _ in gang.prompts])
            batch = _Batch(tuple(gangs), rows, self._page_tensor(rows), gang_of_row, (1,) * len(rows))
        self._batch = batch
        return batch

    def _page_tensor(self, rows: Sequence[Row] | Sequence[Segment]) -> Int[Tensor, "rows columns"]:
        num_columns = max(len(row.pages) for row in rows)
        return self._tensor([[*row.pages, *[0] * (num_columns - len(row.pages))] for row in rows])

    def _new_cache(self, num_pages: int) -> list[Keys]:
        """Room for the keys and values of `num_pages` pages in every layer."""
        shape, dtype = self._network.shape, self._network.cache_dtype
        size = (num_pages * PAGE_SIZE, shape.num_key_value_heads, shape.head_width)
        keys, values = ([_zeros(size, dtype, self.device) for _ in range(shape.num_layers)] for _ in range(2))
        return list(map(Keys, keys, values))

    def _tensor(self, numbers: Sequence[int] | Sequence[Sequence[int]]) -> Int[Tensor, "*shape"]:
        return torch.tensor(numbers, dtype=torch.long, device=self.device)

    def _no_logits(self) -> Float32[Tensor, "rows vocab"]:
        return torch.empty(0, self.vocab_size, device=self.device)


def _zeros(size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of zeros; on a CPU one whose memory is taken when it is first written to, page by page."""
    if device.type != "cpu":
        return torch.zeros(size, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(math.prod(size) * dtype.itemsize, np.uint8)).view(dtype).view(size)


def _copy_pages(cache: Sequence[Keys], copies: Sequence[tuple[int, int]], num_pages: int) -> None:
    """Copy whole pages, (from, to), in every layer."""
    if copies:
        device = cache[0].keys.device
        source, target = (torch.tensor(places, device=device) for places in zip(*copies, strict=True))
        for layer in cache:
            for slots in (layer.keys, layer.values):
                by_page = slots[: num_pages * PAGE_SIZE].view(num_pages, -1)
                by_page[target] = by_page[source]
