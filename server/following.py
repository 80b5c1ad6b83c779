"""Following one auction over HTTP: its texts as they come, to the end, for a reader that may be slow or go away.

The reader is a place in a channel (hub.py) and pulls: nothing is kept for it that is not kept anyway, and what it is
late for comes from the ledger. It must not know what is made of the texts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from tokenauction.server.catalogue import Catalogue
from tokenauction.server.hub import Reader, Viewpoint

BATCH = 64  # texts at a time
IDLE_SECONDS = 15.0  # of silence, after which a reader is told that there is nothing new

T = TypeVar("T")
Receive = Callable[[], Awaitable[Mapping[str, Any]]]


class Following:
    """One reader's way through one auction; close it when done."""

    def __init__(self, catalogue: Catalogue, reader: Reader, wake: asyncio.Event) -> None:
        """Use `open`."""
        self._catalogue = catalogue
        self._reader = reader
        self._wake = wake

    @classmethod
    async def open(
        cls, catalogue: Catalogue, auction_id: str, viewpoint: Viewpoint, after_seq: int = -1, epoch: int | None = None
    ) -> Following:
        """Stand behind `after_seq`, which was seen in `epoch`; raises Refused (not_found, after_seq)."""
        wake = asyncio.Event()
        reader = await catalogue.reader(auction_id, viewpoint, after_seq, epoch, wake.set)
        return cls(catalogue, reader, wake)

    @property
    def is_at_end(self) -> bool:
        return self._reader.is_at_end

    async def texts(self) -> AsyncIterator[list[str]]:
        """Some texts at a time until the auction is over; none where nothing came for so long."""
        while not self._reader.is_at_end:
            texts = self._reader.take(BATCH)
            if texts is None:
                texts = await self._catalogue.replay(self._reader, BATCH)
            if texts:
                yield texts
                continue
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                yield []
            self._wake.clear()

    def close(self) -> None:
        """Nobody reads any more."""
        self._reader.channel.readers.discard(self._reader)


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> tuple[T] | None:
    """What the work returns; None where the client went away first, which ends the work."""
    working = asyncio.create_task(work)
    going = asyncio.create_task(until_gone(receive))
    try:
        await asyncio.wait([working, going], return_when=asyncio.FIRST_COMPLETED)
        return (working.result(),) if working.done() else None
    finally:
        for task in (working, going):
            task.cancel()
        await asyncio.gather(working, going, return_exceptions=True)


async def until_gone(receive: Receive) -> None:
    """Return when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        continue
