"""How an agent bids: from what it sees of the text and of its own money to its next bid, in micros per token.

Each is a small class to subclass or to replace; anything with a `bid` method is a strategy. They see what a bidder may
see, and nothing of a rival's money. They must not know sockets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Sight:
    """What an agent knows before the next token."""

    text: str = ""
    num_tokens: int = 0
    max_tokens: int = 64
    spent_micros: int = 0
    budget_micros: int | None = None  # None: none was declared
    last_influence: float = 0.0  # its share in the last token
    last_payment_micros: float = 0.0  # exact

    @property
    def num_left(self) -> int:
        return max(1, self.max_tokens - self.num_tokens)


class Strategy(Protocol):
    """Decides one agent's bids."""

    def bid(self, sight: Sight) -> int:
        """The bid for the next token, in micros; called before the first and after every token."""


@dataclass(frozen=True)
class Fixed:
    """The same bid for every token."""

    bid_micros: int

    def bid(self, sight: Sight) -> int:
        return self.bid_micros


@dataclass(frozen=True)
class Decreasing:
    """Early tokens decide what a text is about: begin high, and bid `factor` of it less with every token."""

    bid_micros: int
    factor: float = 0.95
    floor_micros: int = 0

    def bid(self, sight: Sight) -> int:
        return max(self.floor_micros, int(self.bid_micros * self.factor**sight.num_tokens))


@dataclass(frozen=True)
class BudgetPaced:
    """Never more than what is left, shared out evenly over the tokens there may still be."""

    bid_micros: int

    def bid(self, sight: Sight) -> int:
        if sight.budget_micros is None:
            return self.bid_micros
        left = max(0, sight.budget_micros - sight.spent_micros)
        return min(self.bid_micros, left // sight.num_left)


@dataclass(frozen=True)
class NameFirst:
    """High until its name stands in the text, then low: who is named has what it came for."""

    name: str
    high_micros: int
    low_micros: int = 0

    def bid(self, sight: Sight) -> int:
        return self.low_micros if names(sight.text, self.name) else self.high_micros


@dataclass(frozen=True)
class NameContest:
    """Raises its bid while a rival is named and it is not; back to the base bid when its own name stands there."""

    name: str
    rivals: Sequence[str]
    base_micros: int
    factor: float = 2.0
    max_micros: int = 10**9

    def bid(self, sight: Sight) -> int:
        num_named = sum(names(sight.text, rival) for rival in self.rivals)
        if names(sight.text, self.name) or not num_named:
            return self.base_micros
        return min(self.max_micros, int(self.base_micros * self.factor**num_named))


def names(text: str, name: str) -> bool:
    """Whether the text holds the name, in any case."""
    return name.casefold() in text.casefold()
