"""How many event streams a server is sending over HTTP, and how many it may."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tokenauction.server.refusal import Refused

MAX_STREAMS = 2_000  # at a time


@dataclass(eq=False)
class OpenStreams:
    """How many such responses a server is sending."""

    limit: int = MAX_STREAMS
    num_open: int = 0

    def check(self) -> None:
        """Refused (capacity) where no more may be sent."""
        if self.num_open >= self.limit:
            raise Refused("capacity", f"{self.limit} event streams are open, which is the limit; try again later")

    @contextmanager
    def one(self) -> Iterator[None]:
        """One more, for as long as this lasts."""
        self.num_open += 1
        try:
            yield
        finally:
            self.num_open -= 1
