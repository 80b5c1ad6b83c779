"""How many event streams a server is sending over HTTP, and how many it may."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tokenauction.server.auth import Identity
from tokenauction.server.refusal import Refused

MAX_STREAMS = 2_000  # at a time


@dataclass(eq=False)
class OpenStreams:
    """How many such responses a server is sending."""

    limit: int = MAX_STREAMS
    num_open: int = 0
    _readers: dict[object, tuple[Identity, Callable[[], None]]] = field(default_factory=dict)

    def check(self) -> None:
        """Refused (capacity) where no more may be sent."""
        if self.num_open >= self.limit:
            raise Refused("capacity", f"{self.limit} event streams are open, which is the limit; try again later")

    @property
    def identities(self) -> set[Identity]:
        """Who reads."""
        return {identity for identity, _ in self._readers.values()}

    def cut_off(self, gone: Collection[Identity]) -> None:
        """End the streams of those whose token is gone."""
        for identity, abort in self._readers.values():
            if identity in gone:
                abort()

    @contextmanager
    def one(self, identity: Identity, abort: Callable[[], None]) -> Iterator[None]:
        """One more, for as long as this lasts; `abort` ends its connection."""
        key = object()
        self._readers[key] = (identity, abort)
        self.num_open += 1
        try:
            yield
        finally:
            self.num_open -= 1
            del self._readers[key]
