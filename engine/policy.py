"""The policy: which token ids may not come next, because the text would then hold a banned word.

A word is looked for in the text, not in the ids, so every way of spelling it in tokens is caught: as one token, in
pieces, with or without a leading space, in any case. It counts where it starts a word ("art" bans "art" and "article",
not "part"). Words with characters that a tokenizer splits into bytes are caught by their token sequences instead, in
the spellings that the tokenizer itself gives them. The mask applies to every agent alike and in every counterfactual.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool
from torch import Tensor

from tokenauction.engine.errors import InvalidSpec


@dataclass(frozen=True)
class Policy:
    """Banned words, with the text of every token; and banned sequences of ids."""

    words: tuple[str, ...] = ()
    token_texts: tuple[str, ...] = ()  # text of every id as it stands inside a text
    sequences: tuple[tuple[int, ...], ...] = ()
    _starting: dict[str, frozenset[int]] = field(default_factory=dict, repr=False, compare=False)  # a cache

    def __post_init__(self) -> None:
        if self.words and not self.token_texts:
            raise InvalidSpec("banned words need the texts of the tokens to be looked for")
        if any(not word.strip() for word in self.words):
            raise InvalidSpec("a banned word must not be blank")
        for sequence in self.sequences:
            if not sequence or min(sequence) < 0:
                raise InvalidSpec(f"banned sequence {sequence} must hold at least one id, none of them negative")

    @property
    def has_bans(self) -> bool:
        return bool(self.words or self.sequences)

    def forbidden(self, generated: Sequence[int]) -> frozenset[int]:
        """Return the ids that would complete a banned word or sequence behind the ids `generated`."""
        forbidden: set[int] = set()
        for *head, last in self.sequences:
            if len(head) <= len(generated) and list(generated[len(generated) - len(head) :]) == head:
                forbidden.add(last)
        if self.words:
            longest = max(map(len, self.words))
            text = self._tail(generated, longest + 1)
            for word in self.words:
                forbidden |= self._completing(word.casefold(), text)
        return frozenset(forbidden)

    def allowed(
        self, generated: Sequence[int], vocab_size: int, device: torch.device | str = "cpu"
    ) -> Bool[Tensor, " vocab"]:
        """Return the mask of ids that may follow `generated`; ids beyond `vocab_size` cannot occur anyway."""
        forbidden = [token for token in self.forbidden(generated) if token < vocab_size]
        mask = torch.ones(vocab_size, dtype=torch.bool, device=device)
        mask[torch.tensor(forbidden, dtype=torch.int64, device=device)] = False
        return mask

    def _tail(self, generated: Sequence[int], num_characters: int) -> str:
        """The last characters of the text, casefolded; at least `num_characters` where there are as many."""
        tail = ""
        for token in reversed(generated):
            if len(tail) >= num_characters:
                break
            tail = self._text(token) + tail
        return tail

    def _text(self, token: int) -> str:
        return self.token_texts[token].casefold() if token < len(self.token_texts) else ""

    def _completing(self, word: str, text: str) -> set[int]:
        """Ids that finish `word` begun at the end of `text`, or that hold it whole."""
        found = set(self._holding(word, is_after_letter=bool(text) and text[-1].isalnum()))
        for length in range(1, min(len(word), len(text) + 1)):
            before = text[: len(text) - length]
            if text.endswith(word[:length]) and not (before and before[-1].isalnum()):
                found |= self._continuing(word[length:])
        return found

    def _continuing(self, rest: str) -> frozenset[int]:
        """Ids whose text begins with `rest`."""
        key = f"begins {rest}"
        if key not in self._starting:
            texts = enumerate(self.token_texts)
            self._starting[key] = frozenset(i for i, text in texts if text.casefold().startswith(rest))
        return self._starting[key]

    def _holding(self, word: str, *, is_after_letter: bool) -> frozenset[int]:
        """Ids whose text holds `word` at the start of a word; at its own start only if no letter stands before it."""
        key = f"holds {is_after_letter} {word}"
        if key not in self._starting:
            texts = enumerate(self.token_texts)
            self._starting[key] = frozenset(i for i, t in texts if _holds(t.casefold(), word, is_after_letter))
        return self._starting[key]


def _holds(text: str, word: str, is_after_letter: bool) -> bool:
    place = text.find(word)
    while place >= 0:
        before_is_letter = text[place - 1].isalnum() if place else is_after_letter
        if not before_is_letter:
            return True
        place = text.find(word, place + 1)
    return False
