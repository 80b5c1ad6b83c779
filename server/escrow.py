"""What is held for auctions: taken at creation or when an agent joins, posted at settlement, given back.

    hold      agent → @held      its budget for this auction: it can never owe more
    post      @held → @house     what its tokens charged, when the auction settles
    release   @held → agent      the rest; when the auction is void, everything

Each function works in the transaction of its caller, the only writer, and has written nothing when it raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from tokenauction.engine.money import from_micros
from tokenauction.server.accounts import balance, check_amount, check_id, transfer
from tokenauction.server.journal import Journal, read_held, to_json
from tokenauction.server.ledger_error import LedgerError
from tokenauction.server.tables import (
    HELD,
    HOUSE,
    OPEN,
    SETTLED,
    VOID,
    auctions,
    entries,
    holds,
    idempotency_keys,
    transfers,
)


@dataclass(frozen=True)
class Created:
    """The auction is new."""

    auction_id: str


@dataclass(frozen=True)
class Replayed:
    """The same request had come before, and made this auction."""

    auction_id: str


@dataclass(frozen=True)
class NewAuction:
    """What `create` puts on the ledger."""

    auction_id: str
    document: Mapping[str, Any]
    holds: Mapping[str, int]  # agent to micros
    idempotency_key: str | None
    request_hash: str
    commitment: str


def create(connection: Connection, new: NewAuction, now: float) -> Created | Replayed:
    """An open auction and its holds, or the one that this key made before.

    Raises LedgerError (idempotency_conflict, auction_exists, insufficient_funds, invalid_amount, invalid_id).
    """
    _check(new)
    key = new.idempotency_key
    if key is not None:
        known = idempotency_keys.c
        query = select(known.request_hash, known.auction_id).where(known.idempotency_key == key)
        if (before := connection.execute(query).first()) is not None:
            if before.request_hash != new.request_hash:
                raise LedgerError("idempotency_conflict", f"key {key!r} came before with another request")
            return Replayed(before.auction_id)
    if _state(connection, new.auction_id) is not None:
        raise LedgerError("auction_exists", f"there is an auction {new.auction_id!r}; choose another id")
    for agent_id, micros in new.holds.items():
        _check_funds(connection, agent_id, micros)
    document = to_json(new.document)
    row = {"auction_id": new.auction_id, "state": OPEN, "document": document, "commitment": new.commitment}
    connection.execute(insert(auctions), {**row, "created_at": now})
    if key is not None:
        row = {"idempotency_key": key, "request_hash": new.request_hash, "auction_id": new.auction_id}
        connection.execute(insert(idempotency_keys), row)
    for agent_id, micros in new.holds.items():
        _take(connection, new.auction_id, agent_id, micros, now)
    return Created(new.auction_id)


def _check(new: NewAuction) -> None:
    check_id(new.auction_id, "auction_id")
    check_id(new.request_hash, "request_hash")
    check_id(new.commitment, "commitment")
    if new.idempotency_key is not None:
        check_id(new.idempotency_key, "idempotency_key")
    for agent_id, micros in new.holds.items():
        check_id(agent_id, "agent_id")
        check_amount(micros, f"the hold of {agent_id!r}")


def hold(connection: Connection, auction_id: str, agent_id: str, micros: int, now: float) -> None:
    """Hold at least so much of an agent for an open auction; where as much is held, nothing happens.

    Raises LedgerError (no_auction, not_open, insufficient_funds, invalid_amount, invalid_id).
    """
    check_id(auction_id, "auction_id")
    check_id(agent_id, "agent_id")
    check_amount(micros, "micros")
    require_open(connection, auction_id)
    held = read_held(connection, auction_id).get(agent_id)
    more = max(micros - (held or 0), 0)
    if held is None or more:
        _check_funds(connection, agent_id, more)
        _take(connection, auction_id, agent_id, more, now)


def settle(
    connection: Connection, journal: Journal, auction_id: str, totals: Mapping[str, int], head: str, now: float
) -> None:
    """Post what each agent owes, which is what its events charged, and give back the rest; once.

    Raises LedgerError (no_auction, not_open, totals_differ, settlement_conflict, invalid_id).
    """
    check_id(auction_id, "auction_id")
    check_id(head, "head")
    owed = {agent_id: micros for agent_id, micros in totals.items() if micros}
    if _state(connection, auction_id) == SETTLED:
        known = connection.scalar(select(auctions.c.head).where(auctions.c.auction_id == auction_id))
        if (known, read_posted(connection, auction_id)) != (head, owed):
            raise LedgerError("settlement_conflict", f"auction {auction_id!r} was settled with other totals or head")
        return
    charged = {agent_id: micros for agent_id, micros in journal.tail(connection, auction_id).owed.items() if micros}
    if charged != owed:
        raise LedgerError("totals_differ", f"auction {auction_id!r} charged {charged!r:.200}, not {owed!r:.200}")
    held = read_held(connection, auction_id)
    _give_back(connection, auction_id, held, owed, now)
    values = {"state": SETTLED, "head": head, "chain": journal.close(connection, auction_id), "ended_at": now}
    connection.execute(update(auctions).where(auctions.c.auction_id == auction_id).values(values))


def void(connection: Connection, journal: Journal, auction_id: str, reason: str, now: float) -> None:
    """Give back all that is held; nothing is charged. Once: where it is void, nothing happens.

    Raises LedgerError (no_auction, not_open, invalid_id).
    """
    check_id(auction_id, "auction_id")
    check_id(reason, "reason")
    if _state(connection, auction_id) == VOID:
        return
    require_open(connection, auction_id)
    _give_back(connection, auction_id, read_held(connection, auction_id), {}, now)
    values = {"state": VOID, "reason": reason, "chain": journal.close(connection, auction_id), "ended_at": now}
    connection.execute(update(auctions).where(auctions.c.auction_id == auction_id).values(values))


def read_posted(connection: Connection, auction_id: str) -> dict[str, int]:
    """What each agent was charged when the auction settled, in micros; those who paid nothing are left out."""
    query = select(transfers.c.agent_id, entries.c.micros).join(entries)
    query = query.where(transfers.c.auction_id == auction_id, transfers.c.kind == "post")
    return {agent_id: micros for agent_id, micros in connection.execute(query.where(entries.c.account_id == HOUSE))}


def require_open(connection: Connection, auction_id: str) -> None:
    """Raises LedgerError (no_auction, not_open) for one that is not."""
    state = _state(connection, auction_id)
    if state is None:
        raise LedgerError("no_auction", f"there is no auction {auction_id!r:.300}")
    if state != OPEN:
        raise LedgerError("not_open", f"auction {auction_id!r} has ended ({state})")


def _state(connection: Connection, auction_id: str) -> str | None:
    return connection.scalar(select(auctions.c.state).where(auctions.c.auction_id == auction_id))


def _check_funds(connection: Connection, agent_id: str, micros: int) -> None:
    has = balance(connection, agent_id)
    if has < micros:
        lacks = f"account {agent_id!r} has {from_micros(has)}; {from_micros(micros)} is to be held"
        raise LedgerError("insufficient_funds", f"{lacks}: deposit more, or declare a smaller budget")


def _take(connection: Connection, auction_id: str, agent_id: str, micros: int, now: float) -> None:
    legs = {agent_id: -micros, HELD: micros}
    transfer(connection, "hold", legs, now, auction_id=auction_id, agent_id=agent_id)
    connection.execute(insert(holds), {"auction_id": auction_id, "agent_id": agent_id, "micros": micros})


def _give_back(
    connection: Connection, auction_id: str, held: Mapping[str, int], owed: Mapping[str, int], now: float
) -> None:
    for agent_id, micros in owed.items():
        assert micros <= held.get(agent_id, 0), "the journal let nobody owe more than is held"
    for agent_id, micros in held.items():
        about: dict[str, Any] = {"auction_id": auction_id, "agent_id": agent_id}
        due = owed.get(agent_id, 0)
        transfer(connection, "post", {HELD: -due, HOUSE: due}, now, **about)
        transfer(connection, "release", {HELD: due - micros, agent_id: micros - due}, now, **about)
