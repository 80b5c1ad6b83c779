"""An audit: everything that must hold of a ledger, computed again from its rows. What does not hold is said, one line
each; a ledger that is in order says nothing. It changes nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from sqlalchemy import Connection, select

from tokenauction.server.escrow import read_posted
from tokenauction.server.journal import broken_links, read_held
from tokenauction.server.tables import HELD, OPEN, OUTSIDE, SETTLED, auctions, entries, events, holds, transfers


def audit(connection: Connection) -> Iterator[str]:
    """Every fault in the money and in the events."""
    yield from _faults_of_transfers(connection)
    yield from _faults_of_accounts(connection)
    for row in connection.execute(select(auctions.c.auction_id, auctions.c.state).order_by(auctions.c.number)):
        yield from _faults_of_events(connection, row.auction_id)
        yield from _faults_of_holds(connection, row.auction_id, row.state)


def _faults_of_transfers(connection: Connection) -> Iterator[str]:
    sums: Counter[int] = Counter()
    for row in connection.execute(select(entries.c.transfer_id, entries.c.micros)):
        sums[row.transfer_id] += row.micros
    known = set(connection.scalars(select(transfers.c.transfer_id)))
    for transfer_id, micros in sums.items():
        if micros:
            yield f"transfer {transfer_id} sums to {micros} micros, not 0"
    for transfer_id in known ^ set(sums):
        yield f"transfer {transfer_id} has no entries, or they have no transfer"


def _faults_of_accounts(connection: Connection) -> Iterator[str]:
    has: Counter[str] = Counter()
    for row in connection.execute(select(entries).order_by(entries.c.entry_id)):
        has[row.account_id] += row.micros
        if has[row.account_id] != row.balance_micros:
            yield f"entry {row.entry_id} says {row.balance_micros} of {row.account_id!r}; it is {has[row.account_id]}"
    for account_id, micros in has.items():
        if micros < 0 and account_id != OUTSIDE:
            yield f"account {account_id!r} has {micros} micros, less than 0"
    if sum(has.values()):
        yield f"all accounts sum to {sum(has.values())} micros, not 0"
    held = select(holds.c.micros).join(auctions).where(auctions.c.state == OPEN)
    expected = sum(connection.scalars(held))
    if has[HELD] != expected:
        yield f"{HELD} has {has[HELD]} micros; open auctions hold {expected}"


def _faults_of_events(connection: Connection, auction_id: str) -> Iterator[str]:
    query = select(auctions.c.commitment, auctions.c.chain, auctions.c.state).where(auctions.c.auction_id == auction_id)
    auction = connection.execute(query).one()
    rows = connection.execute(select(events).where(events.c.auction_id == auction_id).order_by(events.c.seq))
    yield from broken_links(auction_id, auction.commitment, iter(rows))
    last = select(events.c.chain).where(events.c.auction_id == auction_id).order_by(events.c.seq.desc()).limit(1)
    chain = connection.scalar(last)
    if auction.state != OPEN and chain is not None and chain != auction.chain:
        yield f"auction {auction_id}: its last event is not the one it ended with"


def _faults_of_holds(connection: Connection, auction_id: str, state: str) -> Iterator[str]:
    owed: Counter[str] = Counter()
    for charges in connection.scalars(select(events.c.charges).where(events.c.auction_id == auction_id)):
        owed.update(json.loads(charges))
    held = read_held(connection, auction_id)
    for agent_id, micros in owed.items():
        if micros > held.get(agent_id, 0):
            yield f"auction {auction_id}: {agent_id!r} owes {micros} micros; {held.get(agent_id, 0)} were held"
    posted = read_posted(connection, auction_id)
    expected = {agent_id: micros for agent_id, micros in owed.items() if micros} if state == SETTLED else {}
    if posted != expected:
        yield f"auction {auction_id} ({state}): {posted} were posted; its events charged {dict(owed)}"
