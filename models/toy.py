"""A toy world in which everything can be computed: every agent is a bigram model over a handful of characters.

The prompt alone says which agent a row is: an agent's table is a hash of the world's seed and of all the prompt's ids,
so equal prompts are one agent and any other prompt is another. All of it is exact up to float64; there is no generator.
In a table, row s is ln p(next token | previous token s). The end of a text stands in as the previous token of a text
that is about to begin: column `end` ends one, row `end` begins one. It must not know how distributions are aggregated.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from tokenauction.models import base
from tokenauction.models.admissions import Admissions, Admitting
from tokenauction.models.tokenizer import TextStream

NextToken = Callable[[Sequence[int]], Float64[Tensor, " tokens"]]  # tokens so far -> ln p(next token | tokens so far)


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


@dataclass(frozen=True, eq=False)
class Chain:
    """A law of texts of at most `steps` tokens whose next token depends on the step and on the previous token alone."""

    log_probs: Float64[Tensor, "steps states tokens"]

    @classmethod
    def of_table(cls, table: Float64[Tensor, "states tokens"], num_steps: int) -> Chain:
        """The law of texts of a bigram model, cut after `num_steps` tokens."""
        return cls(table.expand(num_steps, *table.shape))

    @property
    def end(self) -> int:
        return self.log_probs.shape[-1] - 1

    def next_token(self, ids: Sequence[int]) -> Float64[Tensor, " tokens"]:
        """ln p of the token behind `ids`: a NextToken."""
        return self.log_probs[len(ids), ids[-1] if ids else self.end]

    def expectation(self, values: Float64[Tensor, "*steps states tokens"]) -> float:
        """E Σ_k values[k, s_k, t_k] over the steps k of a text, exactly, by passing the mass of each state forward."""
        mass = torch.eye(self.end + 1, dtype=torch.float64)[self.end]
        total = 0.0
        for log_probs, step_values in zip(self.log_probs, values.expand(self.log_probs.shape), strict=True):
            joint = mass[:, None] * log_probs.exp()
            total += torch.where(joint > 0, joint * step_values, 0.0).sum().item()
            mass = joint.sum(0)
            mass[self.end] = 0.0  # A text that has ended takes no further step.
        return total

    def sample(self, uniforms: Sequence[float]) -> list[int]:
        """The text that these uniforms in [0, 1) draw, one a step, each by the inverse of the step's CDF."""
        ids: list[int] = []
        for uniform in uniforms[: len(self.log_probs)]:
            if not 0 <= uniform < 1:
                raise ValueError(f"a uniform is {uniform}; it must be at least 0 and less than 1")
            cdf = self.next_token(ids).exp().cumsum(0)
            ids.append(int((cdf <= uniform * cdf[-1]).sum().clamp(max=self.end)))
            if ids[-1] == self.end:
                break
        return ids


@dataclass(frozen=True, eq=False)
class Objective:
    """J(π) = E_π Σ_i r_i - τ·KL(π ‖ π_ref) over laws π of whole texts, r_i = τ_i·ln(π_i/π_ref) of bigram models."""

    agents: Sequence[Float64[Tensor, "states tokens"]]
    strengths: Sequence[float]  # τ_i, in nats' worth of reward
    reference: Float64[Tensor, "states tokens"]
    tau: float

    def __post_init__(self) -> None:
        if self.tau <= 0:
            raise ValueError(f"tau is {self.tau}; without a positive one the objective has no unique optimum")

    @property
    def rewards(self) -> Float64[Tensor, "states tokens"]:
        """Σ_i r_i of a single step; a text's reward is the sum over its steps."""
        pairs = zip(self.agents, self.strengths, strict=True)
        return sum((tau * (agent - self.reference) for agent, tau in pairs), torch.zeros_like(self.reference))

    def value(self, chain: Chain) -> float:
        """J of the texts of `chain`, exactly."""
        return chain.expectation(self.rewards - self.tau * (chain.log_probs - self.reference))

    def optimum(self, num_steps: int) -> tuple[Chain, float]:
        """The law of texts of at most `num_steps` tokens that maximises J, and its log-partition ln Z = max J / τ.

        π*(y) = π_ref(y)·exp(Σ_i r_i(y)/τ)/Z is again a Markov chain, though it changes with the steps that are left:
        π*_k(t | s) = exp(w(s, t) + β_{k+1}(t) - β_k(s)) with w = ln π_ref + Σ_i r_i/τ of one step and β_k(s) the log of
        the weight of all that can follow, 0 behind an end and at the cut. Derived.
        """
        weights = self.reference + self.rewards / self.tau
        end = len(weights) - 1
        following = torch.zeros(end + 1, dtype=torch.float64)
        steps = []
        for _ in range(num_steps):
            joint = weights + following
            totals = joint.logsumexp(-1)
            steps.append(joint - totals[:, None])
            log_partition = totals[end].item()
            following = totals.clone()
            following[end] = 0.0
        return Chain(torch.stack(steps[::-1])), log_partition


def text_log_prob(next_token: NextToken, ids: Sequence[int]) -> float:
    """ln p of a whole text, its end included where `ids` holds it, under any per-step distribution function."""
    return math.fsum(next_token(ids[:step])[token].item() for step, token in enumerate(ids))


def text_law(next_token: NextToken, end: int, num_steps: int) -> dict[tuple[int, ...], float]:
    """The probability of every text of at most `num_steps` tokens under any per-step distribution function.

    A text holds its end, unless it was cut; texts of probability 0 are left out. About vocab^num_steps remain.
    """
    law: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(num_steps):
        grown: dict[tuple[int, ...], float] = {}
        for ids, probability in law.items():
            if ids[-1:] == (end,):
                grown[ids] = probability
                continue
            shares = enumerate(next_token(ids).exp().tolist())
            grown |= {(*ids, token): probability * share for token, share in shares if share > 0}
        law = grown
    return law
