"""What the engine asks of a language model: one small protocol that imports nothing of ours.

A *gang* is the rows of one auction (one row an agent, the reference among them): admitted, prefilled, stepped and
released together, so no auction ever misses a row in a step. The text that is being written is the same for every row
of a gang; the prompts in front of it differ.

    gang = model.admit([prompt_of_a, prompt_of_b])     # all rows or none
    logits = model.prefill([gang])                     # [2, vocab]: next-token logits behind each prompt
    logits = model.step([gang], tokens)                # tokens[g] is forced into every row of gang g
    model.release(gang)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


class ModelError(Exception):
    """Root of the errors a model raises for the caller's input; the message is one line for people."""

    code = "model_error"


class ModelNotLoadable(ModelError):
    """The folder or name holds no causal language model that can be loaded; the message says what is missing."""

    code = "model_not_loadable"


class PromptTooLong(ModelError):
    """A prompt (with the tokens that may follow) exceeds the model's context; the message names both numbers."""

    code = "prompt_too_long"


class NoRoom(ModelError):
    """There are not enough free rows now; the same gang may be admitted after another is released."""

    code = "no_room"


@dataclass(eq=False)
class Gang:
    """The rows of one auction inside a model; made by `admit`, opaque to the engine but for its row count."""

    prompts: tuple[tuple[int, ...], ...]  # token ids, one prompt a row
    num_tokens: int = 0  # tokens of the shared text that every row has taken in so far

    @property
    def num_rows(self) -> int:
        return len(self.prompts)


@runtime_checkable
class TextStream(Protocol):
    """Turns the ids of one text into text as they come; the deltas together are exactly what `decode` gives."""

    def push(self, token: int) -> str:
        """Text that is settled now and was not before; never a part of a UTF-8 character, often empty."""

    def finish(self) -> str:
        """What was held back for tokens that no longer come; incomplete UTF-8 shows as U+FFFD."""


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back; `hash` names the vocabulary, so that two models can be compared."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end a text."""

    @property
    def hash(self) -> str:
        """Hex SHA-256 over the vocabulary: equal exactly when ids mean the same text."""

    @property
    def has_chat_template(self) -> bool: ...

    def encode(self, text: str) -> list[int]:
        """Ids of `text` as it stands inside a text: no special token is added, nor read from what it says."""

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a prompt: with whatever special tokens the model expects in front."""

    def encode_chat(self, system: str, user: str) -> list[int]:
        """Ids of a chat prompt by the tokenizer's own template, up to where the assistant begins to write.

        Raises ValueError if `has_chat_template` is false.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids` without special tokens; incomplete UTF-8 shows as U+FFFD."""

    def text_stream(self) -> TextStream:
        """A fresh stream for one text."""


@runtime_checkable
class LanguageModel(Protocol):
    """A causal language model that decodes gangs of rows; every tensor stays on `device`."""

    @property
    def name(self) -> str: ...

    @property
    def hash(self) -> str:
        """Hex SHA-256 of the weights, or of whatever defines this model."""

    @property
    def vocab_size(self) -> int:
        """Width of the logits; may exceed the tokenizer's."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def numerics(self) -> str:
        """ "float32", "bf16", …: how it computes; goes on the receipt."""

    @property
    def runner(self) -> str:
        """Which code computes it; goes on the receipt."""

    @property
    def max_length(self) -> int:
        """Longest prompt plus text a row can hold, in tokens."""

    @property
    def max_rows(self) -> int:
        """Most rows that can be admitted at once."""

    @property
    def free_rows(self) -> int: ...

    def admit(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> Gang:
        """Take one row a prompt, all or none, for at most `max_new_tokens` steps.

        Raises PromptTooLong, NoRoom (try again after a release) or ValueError (empty prompt, unknown id, a gang that
        could never fit).
        """

    def num_unread(self, gang: Gang) -> int:
        """How many tokens of the gang's prompts `prefill` would compute now."""

    def preload(self, gang: Gang, max_tokens: int) -> bool:
        """Compute `max_tokens` of them ahead of `prefill`, of which at least one a row is left to it.

        False, and nothing is done, in a model that reads prompts only as a whole.
        """

    def prefill(self, gangs: Sequence[Gang]) -> Float[Tensor, "rows vocab"]:
        """Read the prompts of `gangs` and return the logits behind each, rows in the gangs' order."""

    def step(self, gangs: Sequence[Gang], tokens: Int[Tensor, " gangs"]) -> Float[Tensor, "rows vocab"]:
        """Append tokens[g] to every row of gangs[g], in one forward pass, and return the next logits.

        Raises NoRoom, and changes nothing, when memory does not reach for all of these gangs: release one and admit it
        again later, its text behind its prompts. A gang alone always has room for what it was admitted for.
        `gangs` may be any of the prefilled gangs in any order; those that are left out stay exactly as they are. Tokens
        are not read back to be checked, since that would make the device wait: draw them from the logits.
        """

    def launch(self, gangs: Sequence[Gang], tokens: Int[Tensor, " gangs"]) -> Callable[[], Float[Tensor, "rows vocab"]]:
        """`step` in two parts: all but the computing now, with its errors; what is returned computes the logits.

        It may be called in another thread, once, before anything else is asked of the model.
        """

    def rollback(self, gang: Gang, num_tokens: int) -> None:
        """Forget the last `num_tokens` tokens of the shared text in every row of `gang`."""

    def score(
        self, prefixes: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]]
    ) -> list[list[Float[Tensor, " tokens"]]]:
        """ln p(token | prefix, tokens before it): result[p][c] has one float a token of candidate c behind prefix p.

        Raises PromptTooLong or ValueError (empty prefix, unknown id); no gang is touched.
        """

    def release(self, gang: Gang) -> None:
        """Free the rows of `gang`; releasing twice does nothing."""


@runtime_checkable
class DeviceModel(LanguageModel, Protocol):
    """A model that also steps from tensors alone: which rows, how long, and on which pages their keys and values lie.

    Then nothing waits for the host, a CUDA graph can hold the step, and the next one can begin before anybody has read
    what this one gave. Gangs are admitted, prefilled and released as ever; for each token of theirs that `decode`
    appends, `grow` is called once, in front of it.
    """

    @property
    def page_size(self) -> int:
        """Tokens of one row that a page holds."""

    @property
    def num_columns(self) -> int:
        """The most pages that a row can hold."""

    @property
    def spare_page(self) -> int:
        """A page of nobody, where rows that are padding write."""

    def pages_of(self, gang: Gang) -> list[list[int]]:
        """The pages of every row, in order, as they are now."""

    def grow(self, gangs: Sequence[Gang]) -> list[int]:
        """Make room for one more token in every row and count it as taken in; the page it goes to, row after row.

        Raises NoRoom, and changes nothing, when memory does not reach for all of these gangs.
        """

    def decode(
        self, ids: Int[Tensor, " rows"], lengths: Int[Tensor, " rows"], pages: Int[Tensor, "rows columns"]
    ) -> Float[Tensor, "rows vocab"]:
        """Append ids[r] to a row that holds lengths[r] tokens on its pages[r]; the next logits, dense, in float32.

        All of these are on the device and stay there: nothing is read back.
        """
