"""What a mirror of the events has still to tell: how far it is is on the ledger, so that no crash loses an event.

    events of auctions behind `auctions_done`, each behind its own place, are unsent; those up to it are all told

Of an auction its events are told in order, and its `auction.settled` when the money is posted. A mirror that is new
begins with the auctions that have not ended. It must not know what is told to whom.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, and_, delete, func, insert, or_, select, update

from tokenauction.server.tables import OPEN, auctions, events, mirror_places, mirrors

LAST = "auction.settled"  # of every auction's events

T = TypeVar("T")
Job = Callable[[Connection], T]


@dataclass(frozen=True)
class Unsent:
    """One event that was not told yet."""

    auction_id: str
    seq: int
    event: Mapping[str, Any]


class Outbox:
    """One mirror's place on an open ledger."""

    def __init__(
        self, mirror: str, look: Callable[[Job[Any]], Awaitable[Any]], write: Callable[[Job[Any]], Awaitable[Any]]
    ) -> None:
        """Use `Ledger.outbox`."""
        self.mirror = mirror
        self._look = look
        self._write = write

    async def begin(self) -> None:
        """From now on it is kept how far this mirror is; one that is new begins with the auctions that are open."""
        await self._write(partial(_begin, mirror=self.mirror))

    async def unsent(self, limit: int) -> list[Unsent]:
        """The first events that were not told yet, at most so many, in order within each auction."""
        found: list[Unsent] = await self._look(partial(_read, mirror=self.mirror, limit=limit))
        return found

    async def mark(self, told: Mapping[str, int]) -> None:
        """Up to these events, by auction, everything was told."""
        await self._write(partial(_mark, mirror=self.mirror, told=told))


def _begin(connection: Connection, mirror: str) -> None:
    if connection.scalar(select(mirrors.c.mirror).where(mirrors.c.mirror == mirror)) is None:
        first_open = connection.scalar(select(func.min(auctions.c.number)).where(auctions.c.state == OPEN))
        last = connection.scalar(select(func.max(auctions.c.number))) or 0
        done = last if first_open is None else first_open - 1
        connection.execute(insert(mirrors), {"mirror": mirror, "auctions_done": done})


def _read(connection: Connection, mirror: str, limit: int) -> list[Unsent]:
    places = mirror_places.c
    is_place = and_(places.auction_id == auctions.c.auction_id, places.mirror == mirror)
    query = (
        select(auctions.c.auction_id, events.c.seq, events.c.body)
        .select_from(auctions.outerjoin(mirror_places, is_place).join(events))
        .where(auctions.c.number > _done(connection, mirror), events.c.seq > func.coalesce(places.seq, -1))
        .where(or_(events.c.kind != LAST, auctions.c.state != OPEN))
        .order_by(auctions.c.number, events.c.seq)
        .limit(limit)
    )
    return [Unsent(row.auction_id, row.seq, json.loads(row.body)) for row in connection.execute(query)]


def _mark(connection: Connection, mirror: str, told: Mapping[str, int]) -> None:
    places = mirror_places.c
    for auction_id, seq in told.items():
        place = and_(places.mirror == mirror, places.auction_id == auction_id)
        if connection.execute(update(mirror_places).where(place).values(seq=seq)).rowcount == 0:
            connection.execute(insert(mirror_places), {"mirror": mirror, "auction_id": auction_id, "seq": seq})
    before = _done(connection, mirror)
    after = _first_unfinished(connection, mirror, before) - 1
    if after > before:
        connection.execute(update(mirrors).where(mirrors.c.mirror == mirror).values(auctions_done=after))
        finished = select(auctions.c.auction_id).where(auctions.c.number > before, auctions.c.number <= after)
        connection.execute(delete(mirror_places).where(places.mirror == mirror, places.auction_id.in_(finished)))


def _done(connection: Connection, mirror: str) -> int:
    query = select(mirrors.c.auctions_done).where(mirrors.c.mirror == mirror)
    done: int = connection.execute(query).scalar_one()
    return done


def _first_unfinished(connection: Connection, mirror: str, done: int) -> int:
    """The number of the first auction that is open, or has events that were not told."""
    places = mirror_places.c
    is_place = and_(places.auction_id == auctions.c.auction_id, places.mirror == mirror)
    last_seq = select(func.max(events.c.seq)).where(events.c.auction_id == auctions.c.auction_id).scalar_subquery()
    is_unfinished = or_(auctions.c.state == OPEN, func.coalesce(places.seq, -1) < func.coalesce(last_seq, -1))
    query = select(func.min(auctions.c.number)).select_from(auctions.outerjoin(mirror_places, is_place))
    first = connection.scalar(query.where(auctions.c.number > done, is_unfinished))
    return first or (connection.scalar(select(func.max(auctions.c.number))) or 0) + 1
