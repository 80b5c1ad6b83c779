"""Who joined before the text began, in order: each joining with its hold, its bid and its brief, each leaving.

It is what a server that was stopped while agents joined needs to go on. Each function works in the transaction of its
caller, the only writer, and has written nothing when it raises.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert, select

from tokenauction.server import bid_book, escrow
from tokenauction.server.accounts import check_amount, check_id
from tokenauction.server.journal import to_json
from tokenauction.server.tables import joins


def join(
    connection: Connection,
    auction_id: str,
    agent_id: str,
    micros: int,
    bid_micros: int,
    document: Mapping[str, Any],
    now: float,
) -> None:
    """Hold at least so much of an agent, and keep its first bid and its brief.

    Raises LedgerError (no_auction, not_open, insufficient_funds, invalid_amount, invalid_id).
    """
    check_amount(bid_micros, "bid_micros")
    escrow.hold(connection, auction_id, agent_id, micros, now)
    bid_book.accept(connection, auction_id, agent_id, bid_micros, None, now)
    _add(connection, auction_id, agent_id, to_json(document), now)


def leave(connection: Connection, auction_id: str, agent_id: str, now: float) -> None:
    """The agent takes no part after all; LedgerError (no_auction, not_open, invalid_id)."""
    check_id(auction_id, "auction_id")
    check_id(agent_id, "agent_id")
    escrow.require_open(connection, auction_id)
    _add(connection, auction_id, agent_id, None, now)


def read(connection: Connection, auction_id: str) -> list[tuple[str, dict[str, Any] | None]]:
    """Every joining with its brief, every leaving with None, in order."""
    query = select(joins.c.agent_id, joins.c.document).where(joins.c.auction_id == auction_id)
    rows = connection.execute(query.order_by(joins.c.join_number))
    return [(agent_id, None if document is None else json.loads(document)) for agent_id, document in rows]


def _add(connection: Connection, auction_id: str, agent_id: str, document: str | None, now: float) -> None:
    row = {"auction_id": auction_id, "agent_id": agent_id, "document": document, "created_at": now}
    connection.execute(insert(joins), row)
