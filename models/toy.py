"""A toy world in which everything can be computed: every agent is a bigram model over a handful of characters.

The prompt alone says which agent a row is: an agent's table is a hash of the world's seed and of all the prompt's ids,
so equal prompts are one agent and any other prompt is another. All of it is exact up to float64; there is no generator.
In a table, row s is ln p(next token | previous token s). The end of a text stands in as the previous token of a text
that is about to begin: column `end` ends one, row `end` begins one. It must not know how distributions are aggregated.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from tokenauction.models import base
from tokenauction.models.admissions import Admissions, Admitting
from tokenauction.models.tokenizer import TextStream


class ToyTokenizer:
    """One token a character of `symbols`, and one that ends a text."""

    def __init__(self, symbols: str) -> None:
        if len(set(symbols)) != len(symbols) or len(symbols) < 2:
            raise ValueError(f"symbols are {symbols!r}; at least two characters are needed, each of them once")
        self._symbols = symbols

    @property
    def vocab_size(self) -> int:
        return len(self._symbols) + 1

    @property
    def end_ids(self) -> frozenset[int]:
        return frozenset({len(self._symbols)})

    @property
    def hash(self) -> str:
        return hashlib.sha256(f"toy tokenizer\n{self._symbols}".encode()).hexdigest()

    @property
    def has_chat_template(self) -> bool:
        return True

    def encode(self, text: str) -> list[int]:
        """One id a character; one that is no symbol takes the place of a symbol, by its code point."""
        places = {symbol: place for place, symbol in enumerate(self._symbols)}
        return [places.get(character, ord(character) % len(places)) for character in text]

    def encode_prompt(self, text: str) -> list[int]:
        """64 bits of the text's hash, written in symbols: a prompt need not be spelled, only told from others."""
        digest = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        num_digits = math.ceil(64 / math.log2(len(self._symbols)))
        return [digest // len(self._symbols) ** place % len(self._symbols) for place in range(num_digits)]

    def encode_chat(self, system: str, user: str) -> list[int]:
        return self.encode_prompt(f"{system}\0{user}")

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self._symbols[token] for token in ids if token < len(self._symbols))

    def text_stream(self) -> TextStream:
        return TextStream(self.decode, range(len(self._symbols)))


@dataclass(frozen=True)
class ToyWorld:
    """The agents of one seed; `sharpness` 1 spreads their distributions evenly over the simplex, more decides them."""

    seed: int = 0
    symbols: str = "abcdefgh"
    sharpness: float = 1.0

    @cached_property
    def tokenizer(self) -> ToyTokenizer:
        return ToyTokenizer(self.symbols)

    @property
    def end(self) -> int:
        return len(self.symbols)

    @property
    def hash(self) -> str:
        return hashlib.sha256(f"toy world\n{self.seed}\n{self.symbols}\n{self.sharpness!r}".encode()).hexdigest()

    def table(self, prompt: Sequence[int]) -> Float64[Tensor, "states tokens"]:
        """The agent that `prompt` names; p(. | s) ∝ E^sharpness with E ~ Exp(1) by hash, so never zero nor uniform."""
        size = self.end + 1
        key = f"{self.hash}\n{','.join(map(str, prompt))}".encode()
        words = np.frombuffer(hashlib.shake_256(key).digest(8 * size * size), dtype="<u8")
        uniforms = ((words >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
        logits = self.sharpness * np.log(-np.log(uniforms))
        return torch.from_numpy(logits.reshape(size, size)).log_softmax(-1)


class ToyModel(Admitting):
    """`base.LanguageModel` over a toy world: the double that tests of the engine run on."""

    runner = "toy"

    def __init__(self, world: ToyWorld, *, max_rows: int = 64, max_length: int = 512) -> None:
        self.world = world
        self._admissions = Admissions(max_rows, max_length, world.end + 1)
        self._tables: dict[base.Gang, Float64[Tensor, "rows states tokens"]] = {}
        self._texts: dict[base.Gang, list[int]] = {}

    @property
    def name(self) -> str:
        return f"toy-{self.world.seed}"

    @property
    def hash(self) -> str:
        return self.world.hash

    @property
    def tokenizer(self) -> ToyTokenizer:
        return self.world.tokenizer

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def numerics(self) -> str:
        return "float64"

    def admit(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> base.Gang:
        gang = self._admissions.admit(prompts, max_new_tokens)
        self._tables[gang] = torch.stack([self.world.table(prompt) for prompt in gang.prompts])
        self._texts[gang] = []
        return gang

    def prefill(self, gangs: Sequence[base.Gang]) -> Float64[Tensor, "rows vocab"]:
        self._admissions.check_prefill(gangs)
        self._admissions.record_prefill(gangs)
        return self._logits(gangs)

    def step(self, gangs: Sequence[base.Gang], tokens: Int[Tensor, " gangs"]) -> Float64[Tensor, "rows vocab"]:
        self._admissions.check_step(gangs, tokens)
        for gang, token in zip(gangs, tokens.tolist(), strict=True):
            self._texts[gang].append(token)
            gang.num_tokens += 1
        return self._logits(gangs)

    def rollback(self, gang: base.Gang, num_tokens: int) -> None:
        self._admissions.check_rollback(gang, num_tokens)
        del self._texts[gang][gang.num_tokens - num_tokens :]
        gang.num_tokens -= num_tokens

    def score(
        self, prefixes: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]]
    ) -> list[list[Float64[Tensor, " tokens"]]]:
        self._admissions.check_score(prefixes, candidates)
        return [
            [table[[self.world.end, *candidate[:-1]][: len(candidate)], list(candidate)] for candidate in candidates]
            for table in map(self.world.table, prefixes)
        ]

    def release(self, gang: base.Gang) -> None:
        self._admissions.release(gang)
        self._tables.pop(gang, None)
        self._texts.pop(gang, None)

    def _logits(self, gangs: Sequence[base.Gang]) -> Float64[Tensor, "rows vocab"]:
        rows = [self._tables[gang][:, ([self.world.end] + self._texts[gang])[-1]] for gang in gangs]
        return torch.cat([torch.empty(0, self.vocab_size, dtype=torch.float64), *rows])
