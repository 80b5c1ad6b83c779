"""Auctions that are written slowly, for people who watch and steer: the rest behind each token, and its end.

The engine knows no clock: it lays an auction that is paced to rest behind every token, and here it is woken. It must
not know why somebody wants it slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from tokenauction.server.decoding import DecoderStopped, DecodingThread
from tokenauction.server.live_auction import LiveAuction


async def rest(live: LiveAuction, thread: DecodingThread) -> None:
    """Wait as long as the auction asked for, then let its next token come."""
    await asyncio.sleep(live.request.token_ms / 1000)
    if live.performance is not None:
        with suppress(DecoderStopped):  # then nothing is written any more
            await thread.call(live.performance.wake)


async def hurry(auctions: Iterable[LiveAuction], thread: DecodingThread) -> None:
    """Write these to their end without a rest."""
    for live in auctions:
        if live.performance is not None:
            with suppress(DecoderStopped):
                await thread.call(live.performance.hurry)
