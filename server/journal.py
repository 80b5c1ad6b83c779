"""The journal: every auction's events in order, each hashed onto the one before it, with what they charged.

    chain = SHA-256 of five lines: the chain of the event before, seq, epoch, charges, event; in hex
    the first event follows SHA-256("tokenauction/ledger/v1" ‖ [auction_id, commitment to the seed])

Of an open auction it keeps where it stands, and of a transaction the rows, which are written together at its end. A
transaction that fails ends the ledger, or is done again after `forget`, so that neither can be wrong. It must not know
what an event says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from tokenauction.server.accounts import check_id
from tokenauction.server.ledger_error import LedgerError
from tokenauction.server.tables import OPEN, auctions, events, holds, total

MAX_EVENT_BYTES = 16 * 2**20  # of its JSON; a step with stored distributions is long


@dataclass(frozen=True)
class Written:
    """An event as it will be kept."""

    auction_id: str
    epoch: int
    seq: int
    kind: str
    body: str
    charges: Mapping[str, int]


@dataclass
class Tail:
    """Where an open auction stands."""

    chain: str
    seq: int = -1
    epoch: int = 0
    owed: dict[str, int] = field(default_factory=dict)  # micros per agent that its events charged
    held: dict[str, int] = field(default_factory=dict)  # micros per agent that it can owe, when last looked


def to_json(value: Any) -> str:
    """Canonical JSON in ASCII, so that every database takes whatever text is in it; ValueError for what is no JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_event(auction_id: str, epoch: int, seq: int, event: Mapping[str, Any], charges: Mapping[str, int]) -> Written:
    """The event as a row; LedgerError (invalid_id, capacity): it is too long."""
    check_id(auction_id, "auction_id")
    body = to_json(event)
    if len(body) > MAX_EVENT_BYTES:
        raise LedgerError("capacity", f"an event has {len(body)} bytes; the limit is {MAX_EVENT_BYTES}")
    charged = {agent_id: micros for agent_id, micros in charges.items() if micros}
    assert all(type(micros) is int and micros > 0 for micros in charged.values()), "charges are whole micros"
    return Written(auction_id, epoch, seq, str(event.get("type", "")), body, charged)


def first_link(auction_id: str, commitment: str) -> str:
    """What the chain of an auction begins with."""
    return hashlib.sha256(f"tokenauction/ledger/v1{to_json([auction_id, commitment])}".encode()).hexdigest()


def next_link(chain: str, seq: int, epoch: int, charges: str, body: str) -> str:
    """The chain behind one more event."""
    return hashlib.sha256("\n".join((chain, str(seq), str(epoch), charges, body)).encode()).hexdigest()


class Journal:
    """The only writer of events."""

    def __init__(self) -> None:
        self._tails: dict[str, Tail] = {}  # of open auctions
        self._rows: list[dict[str, Any]] = []  # of the transaction in progress

    def append(self, connection: Connection, event: Written) -> int:
        """Add an event behind the last one; its seq.

        Raises LedgerError (no_auction, not_open, out_of_order, hold_exceeded).
        """
        tail = self.tail(connection, event.auction_id)
        if event.seq != tail.seq + 1 or event.epoch < tail.epoch:
            at = f"epoch {tail.epoch}, seq {tail.seq}"
            given = f"epoch {event.epoch}, seq {event.seq}"
            raise LedgerError("out_of_order", f"{event.auction_id} stands at {at}; {given} does not follow")
        owed = {agent: tail.owed.get(agent, 0) + micros for agent, micros in event.charges.items()}
        if any(micros > tail.held.get(agent_id, 0) for agent_id, micros in owed.items()):
            tail.held = read_held(connection, event.auction_id)  # more may be held by now
        for agent_id, micros in owed.items():
            if micros > (limit := tail.held.get(agent_id, 0)):
                raise LedgerError("hold_exceeded", f"{agent_id!r} would owe {micros} micros; {limit} are held")
        charges = to_json(event.charges)
        tail.chain = next_link(tail.chain, event.seq, event.epoch, charges, event.body)
        tail.seq, tail.epoch = event.seq, event.epoch
        tail.owed.update(owed)
        row = {"auction_id": event.auction_id, "seq": event.seq, "epoch": event.epoch, "kind": event.kind}
        self._rows.append({**row, "body": event.body, "charges": charges, "chain": tail.chain})
        return event.seq

    def flush(self, connection: Connection) -> None:
        """Write the rows of this transaction; before its end, and before anything that reads events."""
        if self._rows:
            connection.execute(insert(events), self._rows)
            self._rows = []

    def forget(self) -> None:
        """The transaction in progress is undone, or may be; from here on read again where each auction stands."""
        self._tails.clear()
        self._rows = []

    def tail(self, connection: Connection, auction_id: str) -> Tail:
        """Where an open auction stands; LedgerError (no_auction, not_open)."""
        tail = self._tails.get(auction_id)
        if tail is None:
            tail = self._tails[auction_id] = _read_tail(connection, auction_id)
        return tail

    def close(self, connection: Connection, auction_id: str) -> str:
        """No more events of this auction; its chain as it ends."""
        self.flush(connection)
        chain = self.tail(connection, auction_id).chain
        del self._tails[auction_id]
        return chain


def read_held(connection: Connection, auction_id: str) -> dict[str, int]:
    """Agents of an auction, each with what was held of it in all, in micros."""
    query = select(holds.c.agent_id, total(holds.c.micros)).where(holds.c.auction_id == auction_id)
    return {agent_id: micros for agent_id, micros in connection.execute(query.group_by(holds.c.agent_id))}


def _read_tail(connection: Connection, auction_id: str) -> Tail:
    query = select(auctions.c.state, auctions.c.commitment).where(auctions.c.auction_id == auction_id)
    auction = connection.execute(query).first()
    if auction is None:
        raise LedgerError("no_auction", f"there is no auction {auction_id!r}")
    if auction.state != OPEN:
        raise LedgerError("not_open", f"auction {auction_id!r} has ended ({auction.state})")
    tail = Tail(first_link(auction_id, auction.commitment))
    kept = (events.c.seq, events.c.epoch, events.c.charges, events.c.chain)
    for row in connection.execute(select(*kept).where(events.c.auction_id == auction_id).order_by(events.c.seq)):
        tail.seq, tail.epoch, tail.chain = row.seq, row.epoch, row.chain
        for agent_id, micros in json.loads(row.charges).items():
            tail.owed[agent_id] = tail.owed.get(agent_id, 0) + micros
    return tail


def read_events(
    connection: Connection, auction_id: str, after_seq: int, epoch: int | None, kind: str | None, limit: int
) -> list[tuple[int, dict[str, Any]]]:
    """Seq and event, in order."""
    query = select(events.c.seq, events.c.body).where(events.c.auction_id == auction_id, events.c.seq > after_seq)
    if epoch is not None:
        query = query.where(events.c.epoch == epoch)
    if kind is not None:
        query = query.where(events.c.kind == kind)
    return [(row.seq, json.loads(row.body)) for row in connection.execute(query.order_by(events.c.seq).limit(limit))]


def read_last_event(connection: Connection, auction_id: str) -> dict[str, Any] | None:
    """The last event that is durable."""
    query = select(events.c.body).where(events.c.auction_id == auction_id).order_by(events.c.seq.desc()).limit(1)
    body = connection.scalar(query)
    return None if body is None else dict(json.loads(body))


def broken_links(auction_id: str, commitment: str, rows: Iterator[Row[Any]]) -> Iterator[str]:
    """Where the events of an auction are not dense, or do not follow from each other."""
    chain, seq, epoch = first_link(auction_id, commitment), 0, 0
    for row in rows:
        if row.seq != seq or row.epoch < epoch:
            yield f"auction {auction_id}: event {row.seq} of epoch {row.epoch} stands where {seq} of {epoch} should"
        chain = next_link(chain, row.seq, row.epoch, row.charges, row.body)
        if chain != row.chain:
            yield f"auction {auction_id}: event {row.seq} is not what was hashed onto the one before it"
            return
        seq, epoch = row.seq + 1, row.epoch
