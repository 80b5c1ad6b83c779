"""Which auctions run in the next step. The unit is the auction, a gang of rows: all of them run, or none.

First come, first served: an auction that does not fit yet holds back those behind it, so that none starves. It joins
when its rows are free; what its prompts cost is bounded per step, so that running auctions keep their pace.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

MAX_PREFILL_TOKENS = 8192  # prompt tokens read in one step, unless a single auction has more
MAX_WAITING = 10_000


class Gangable(Protocol):
    """What the scheduler needs to know of an auction."""

    @property
    def num_rows(self) -> int: ...

    @property
    def num_prompt_tokens(self) -> int: ...


T = TypeVar("T", bound=Gangable)


@dataclass
class Scheduler(Generic[T]):
    """The queue of those that wait and the list of those that run."""

    waiting: deque[T] = field(default_factory=deque)
    running: list[T] = field(default_factory=list)

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def next_to_join(self, free_rows: int) -> list[T]:
        """Take from the queue's head whoever fits into `free_rows` and the step's share of prompt tokens."""
        joining: list[T] = []
        num_tokens = 0
        while self.waiting:
            head = self.waiting[0]
            too_many = joining and num_tokens + head.num_prompt_tokens > MAX_PREFILL_TOKENS
            if head.num_rows > free_rows or too_many:
                break
            joining.append(self.waiting.popleft())
            free_rows -= head.num_rows
            num_tokens += head.num_prompt_tokens
        return joining

    def put_back(self, auctions: Sequence[T]) -> None:
        """Let auctions that could not join after all wait again, in front of those that came later."""
        self.waiting.extendleft(reversed(auctions))
