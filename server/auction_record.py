"""An auction as the ledger knows it: its state, and what it takes to go on with it after a crash."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from tokenauction.server.tables import OPEN, auctions


@dataclass(frozen=True)
class AuctionRecord:
    """One auction; times are seconds since 1970."""

    number: int  # in the order of creation
    auction_id: str
    state: str  # open, settled, void
    spec: dict[str, Any]  # the private document it was created with
    commitment: str  # to the seed, which its `auction.settled` reveals
    created_at: float
    ended_at: float | None
    head: str | None  # of the receipt, when settled
    chain: str | None  # of its events, when it ended
    reason: str | None  # when void


def read_auction(connection: Connection, auction_id: str) -> AuctionRecord | None:
    """One auction; None where there is none."""
    row = connection.execute(select(auctions).where(auctions.c.auction_id == auction_id)).first()
    return None if row is None else _record(row)


def read_auctions(connection: Connection, limit: int, after: str | None, newest: bool) -> list[AuctionRecord]:
    """Auctions in the order of their creation, or the newest first; behind `after` in that order where it is given."""
    query = select(auctions).order_by(auctions.c.number.desc() if newest else auctions.c.number).limit(limit)
    if after is not None:
        number = select(auctions.c.number).where(auctions.c.auction_id == after).scalar_subquery()
        query = query.where(auctions.c.number < number if newest else auctions.c.number > number)
    return [_record(row) for row in connection.execute(query)]


def read_open_auctions(connection: Connection) -> list[AuctionRecord]:
    """Every auction that has not ended, in the order of creation."""
    query = select(auctions).where(auctions.c.state == OPEN).order_by(auctions.c.number)
    return [_record(row) for row in connection.execute(query)]


def _record(row: Row[Any]) -> AuctionRecord:
    fields = dict(row._mapping)
    return AuctionRecord(spec=json.loads(fields.pop("document")), **fields)
