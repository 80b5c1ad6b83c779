"""Which gangs are in a model, and the rules that hold for every model: what fits, and what is legal when.

It must not know how a model computes: it only counts rows and tokens, and words the refusals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from tokenauction.models import base

# The context of a model whose config names none (ALiBi, recurrent); `max_length` replaces it.
DEFAULT_MAX_LENGTH = 2048


def context_length(config: Any, asked: int | None) -> int:
    """The longest row: what the config allows for, under whatever name, or `asked` if that is no longer.

    Raises ValueError for an `asked` that is longer or below 1.
    """
    config = config.get_text_config()
    keys = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "n_ctx", "seq_length")
    named = [length for key in keys if isinstance(length := getattr(config, key, None), int) and length > 0]
    context = named[0] if named else None
    if asked is None:
        return context or DEFAULT_MAX_LENGTH
    if not 1 <= asked <= (context or asked):
        raise ValueError(f"max_length is {asked}; choose between 1 and the model's context ({context or 'any'})")
    return asked


@dataclass
class _Standing:
    """What one admitted gang may still do."""

    max_new_tokens: int
    is_prefilled: bool = False


@dataclass
class Admissions:
    """Which gangs are in a model, and the rules that hold for every model: what fits and what is legal when."""

    max_rows: int
    max_length: int  # tokens of prompt and text together
    vocab_size: int
    _standings: dict[base.Gang, _Standing] = field(default_factory=dict)

    @property
    def free_rows(self) -> int:
        return self.max_rows - sum(gang.num_rows for gang in self._standings)

    def admit(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> base.Gang:
        """Reserve rows as `LanguageModel.admit` says."""
        gang = base.Gang(tuple(tuple(prompt) for prompt in prompts))
        if not gang.prompts:
            raise ValueError("a gang needs at least one prompt")
        if max_new_tokens < 0:
            raise ValueError(f"max_new_tokens is {max_new_tokens}; it cannot be negative")
        if gang.num_rows > self.max_rows:
            raise ValueError(f"{gang.num_rows} prompts never fit into {self.max_rows} rows; raise the model's max_rows")
        for prompt in gang.prompts:
            self.check_text(prompt, max_new_tokens)
        if gang.num_rows > self.free_rows:
            raise base.NoRoom(f"{gang.num_rows} rows are needed and {self.free_rows} of {self.max_rows} are free")
        self._standings[gang] = _Standing(max_new_tokens)
        return gang

    def check_text(self, prompt: Sequence[int], num_following: int) -> None:
        """Raise ValueError or PromptTooLong unless a model can read `prompt` and `num_following` tokens behind it."""
        if not prompt:
            raise ValueError("a prompt has no tokens; a model needs at least one to go on from")
        self.check_ids(prompt)
        if len(prompt) + num_following > self.max_length:
            raise base.PromptTooLong(
                f"a prompt of {len(prompt)} tokens with {num_following} more is longer than the model's context of "
                f"{self.max_length}; shorten the prompt or ask for fewer tokens"
            )

    def check_ids(self, ids: Sequence[int]) -> None:
        """Raise ValueError unless every id is in the vocabulary."""
        for token in ids:
            if not 0 <= token < self.vocab_size:
                raise ValueError(f"token id {token} is outside the vocabulary of {self.vocab_size}")

    def check_score(self, prefixes: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]]) -> None:
        """Raise ValueError or PromptTooLong unless every candidate can be read behind every prefix."""
        for candidate in candidates:
            self.check_ids(candidate)
        for prefix in prefixes:
            self.check_text(prefix, max(map(len, candidates), default=0))

    def check_prefill(self, gangs: Sequence[base.Gang]) -> None:
        """Raise ValueError unless every gang is in and has not read its prompts yet."""
        for standing in self._find(gangs):
            if standing.is_prefilled:
                raise ValueError("a gang is prefilled once, and this one has been already")

    def record_prefill(self, gangs: Sequence[base.Gang]) -> None:
        for gang in gangs:
            self._standings[gang].is_prefilled = True

    def check_step(self, gangs: Sequence[base.Gang], tokens: Int[Tensor, " gangs"]) -> None:
        """Raise ValueError unless every gang can take one more token and there is one token a gang."""
        if tokens.shape != (len(gangs),):
            raise ValueError(f"{len(gangs)} gangs need as many tokens, not a tensor of shape {list(tokens.shape)}")
        for gang, standing in zip(gangs, self._find(gangs), strict=True):
            if not standing.is_prefilled:
                raise ValueError("a gang has not read its prompts; call prefill first")
            if gang.num_tokens >= standing.max_new_tokens:
                raise ValueError(f"a gang admitted for {standing.max_new_tokens} new tokens cannot take another")

    def check_rollback(self, gang: base.Gang, num_tokens: int) -> None:
        """Raise ValueError unless the gang is in and has taken in that many tokens."""
        self._find([gang])
        if not 0 <= num_tokens <= gang.num_tokens:
            raise ValueError(f"cannot forget {num_tokens} of {gang.num_tokens} tokens")

    def release(self, gang: base.Gang) -> None:
        self._standings.pop(gang, None)

    def _find(self, gangs: Sequence[base.Gang]) -> list[_Standing]:
        if len(set(gangs)) != len(gangs):
            raise ValueError("the same gang is named twice")
        missing = [gang for gang in gangs if gang not in self._standings]
        if missing:
            raise ValueError(f"{len(missing)} gangs are not in this model: released, or admitted by another")
        return [self._standings[gang] for gang in gangs]


class Admitting:
    """What every model says of its rows, from the `Admissions` that it keeps."""

    _admissions: Admissions

    @property
    def vocab_size(self) -> int:
        return self._admissions.vocab_size

    @property
    def max_length(self) -> int:
        return self._admissions.max_length

    @property
    def max_rows(self) -> int:
        return self._admissions.max_rows

    @property
    def free_rows(self) -> int:
        return self._admissions.free_rows

    def num_unread(self, gang: base.Gang) -> int:
        """As the protocol says, of a model that reads prompts as a whole; so does `preload`."""
        return sum(map(len, gang.prompts))

    def preload(self, gang: base.Gang, max_tokens: int) -> bool:
        return False

    def launch(
        self, gangs: Sequence[base.Gang], tokens: Int[Tensor, " gangs"]
    ) -> Callable[[], Float[Tensor, "rows vocab"]]:
        """As the protocol says, of a model whose step is in one part."""
        logits = self.step(gangs, tokens)
        return lambda: logits

    def step(self, gangs: Sequence[base.Gang], tokens: Int[Tensor, " gangs"]) -> Float[Tensor, "rows vocab"]:
        """As the protocol says, of a model whose step is in two parts."""
        return self.launch(gangs, tokens)()
