"""Accepted bids: each agent's bids for an auction in the order they were accepted; the last one counts.

Each function works in the transaction of its caller, the only writer, and has written nothing when it raises.
"""

from __future__ import annotations

from sqlalchemy import Connection, func, insert, select

from tokenauction.server.accounts import check_amount, check_id
from tokenauction.server.escrow import require_open
from tokenauction.server.ledger_error import LedgerError
from tokenauction.server.tables import bids, holds


def accept(
    connection: Connection, auction_id: str, agent_id: str, bid_micros: int, bid_id: str | None, now: float
) -> bool:
    """Keep a bid; False where this `bid_id` came before, and nothing is to change.

    Raises LedgerError (no_auction, not_open, no_hold, idempotency_conflict, invalid_amount, invalid_id).
    """
    check_id(auction_id, "auction_id")
    check_id(agent_id, "agent_id")
    check_amount(bid_micros, "bid_micros")
    own = (bids.c.auction_id == auction_id, bids.c.agent_id == agent_id)
    if bid_id is not None:
        check_id(bid_id, "bid_id")
        before = connection.scalar(select(bids.c.bid_micros).where(*own, bids.c.bid_id == bid_id))
        if before is not None and before != bid_micros:
            raise LedgerError("idempotency_conflict", f"bid {bid_id!r} came before with another amount")
        if before is not None:
            return False
    require_open(connection, auction_id)
    is_held = select(holds.c.hold_id).where(holds.c.auction_id == auction_id, holds.c.agent_id == agent_id).limit(1)
    if connection.scalar(is_held) is None:
        raise LedgerError("no_hold", f"nothing is held of {agent_id!r} for {auction_id!r}: join it first")
    row = {"auction_id": auction_id, "agent_id": agent_id, "bid_id": bid_id, "bid_micros": bid_micros}
    connection.execute(insert(bids), {**row, "created_at": now})
    return True


def read_last(connection: Connection, auction_id: str) -> dict[str, int]:
    """Each agent's last accepted bid, in micros."""
    last = select(func.max(bids.c.bid_number)).where(bids.c.auction_id == auction_id).group_by(bids.c.agent_id)
    query = select(bids.c.agent_id, bids.c.bid_micros).where(bids.c.bid_number.in_(last))
    return {agent_id: micros for agent_id, micros in connection.execute(query)}
