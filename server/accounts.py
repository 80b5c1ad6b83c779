"""Double entry: accounts, and transfers between them that sum to zero; it must not know what an auction is for.

Amounts are integer micros. Money comes from and goes to `@outside`, which alone may be below zero, so that the sum of
all accounts is zero at any time. Each function works in the transaction of its caller, the only writer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select

from tokenauction.engine.money import MAX_MICROS, from_micros
from tokenauction.server.ledger_error import LedgerError
from tokenauction.server.tables import OPEN, OUTSIDE, accounts, auctions, entries, holds, total, transfers

MAX_ID = 256  # characters
MAX_BALANCE = 2**62  # micros; beyond it a sum could leave 64 bits


@dataclass(frozen=True)
class Account:
    """What an account has; `held_micros` is what open auctions hold of it, and no longer part of its balance."""

    account_id: str
    balance_micros: int
    held_micros: int


@dataclass(frozen=True)
class Entry:
    """One leg of a transfer."""

    entry_id: int
    transfer_id: int
    kind: str  # deposit, hold, post, release
    account_id: str
    micros: int
    balance_micros: int  # behind it
    auction_id: str | None
    agent_id: str | None
    reference: str | None
    created_at: float


def check_amount(micros: int, name: str) -> None:
    """Raises LedgerError (invalid_amount) for what is not a whole number from 0 to MAX_MICROS."""
    if type(micros) is not int or not 0 <= micros <= MAX_MICROS:  # it is not shown: it may have 5,000 digits
        raise LedgerError("invalid_amount", f"{name} must be a whole number of micros from 0 to {MAX_MICROS}")


def is_id(text: str) -> bool:
    """Whether this can name anything: 1 to MAX_ID characters of text that every database takes."""
    return isinstance(text, str) and 0 < len(text) <= MAX_ID and not re.search("[\0\ud800-\udfff]", text)


def check_id(text: str, name: str) -> None:
    """Raises LedgerError (invalid_id) for what cannot be an id, or begins with @ as the ledger's own do."""
    if not is_id(text) or text.startswith("@"):
        raise LedgerError("invalid_id", f"{name} must be 1 to {MAX_ID} characters of text and not begin with @")


def balance(connection: Connection, account_id: str) -> int:
    """What an account has, in micros; 0 for one that nobody knows."""
    query = select(entries.c.balance_micros).where(entries.c.account_id == account_id)
    return connection.scalar(query.order_by(entries.c.entry_id.desc()).limit(1)) or 0


def transfer(
    connection: Connection,
    kind: str,
    legs: Mapping[str, int],
    now: float,
    *,
    auction_id: str | None = None,
    agent_id: str | None = None,
    reference: str | None = None,
) -> None:
    """Move money between accounts, which are made where they are new; legs of 0 are left out.

    Raises LedgerError (insufficient_funds, invalid_amount), having written nothing.
    """
    assert sum(legs.values()) == 0, "a transfer sums to zero"
    legs = {account: micros for account, micros in legs.items() if micros}
    if not legs:
        return
    after = {account: balance(connection, account) + micros for account, micros in legs.items()}
    for account, micros in after.items():
        if micros < 0 and account != OUTSIDE:
            has, needs = from_micros(micros - legs[account]), from_micros(-legs[account])
            raise LedgerError("insufficient_funds", f"account {account!r} has {has}; {needs} is needed: deposit more")
        if abs(micros) > MAX_BALANCE:
            raise LedgerError("invalid_amount", f"account {account!r} would pass the largest balance, {MAX_BALANCE}")
    known = set(connection.scalars(select(accounts.c.account_id).where(accounts.c.account_id.in_(legs))))
    new = [{"account_id": account, "created_at": now} for account in legs if account not in known]
    if new:
        connection.execute(insert(accounts), new)
    transfer_id = (connection.scalar(select(func.max(transfers.c.transfer_id))) or 0) + 1
    rows = [
        {"transfer_id": transfer_id, "account_id": account, "micros": micros, "balance_micros": after[account]}
        for account, micros in legs.items()
    ]
    connection.execute(insert(entries), rows)
    row = {"transfer_id": transfer_id, "kind": kind, "auction_id": auction_id, "agent_id": agent_id}
    connection.execute(insert(transfers), {**row, "reference": reference, "created_at": now})


def deposit(connection: Connection, account_id: str, micros: int, reference: str, now: float) -> bool:
    """Bring money in, once per reference; False where it had come before.

    Raises LedgerError (invalid_id, invalid_amount, idempotency_conflict).
    """
    check_id(account_id, "account_id")
    check_id(reference, "reference")
    check_amount(micros, "micros")
    if not micros:
        raise LedgerError("invalid_amount", "a deposit is more than 0")
    query = select(entries.c.account_id, entries.c.micros).join(transfers)
    done = connection.execute(query.where(transfers.c.reference == reference, entries.c.account_id != OUTSIDE)).first()
    if done is None:
        transfer(connection, "deposit", {OUTSIDE: -micros, account_id: micros}, now, reference=reference)
        return True
    if tuple(done) != (account_id, micros):
        raise LedgerError("idempotency_conflict", f"reference {reference!r} came before with another account or amount")
    return False


def read_account(connection: Connection, account_id: str) -> Account | None:
    """An account and what is held of it; None for one that nobody knows."""
    if connection.scalar(select(accounts.c.account_id).where(accounts.c.account_id == account_id)) is None:
        return None
    held = select(total(holds.c.micros)).join(auctions).where(holds.c.agent_id == account_id)
    held_micros = connection.scalar(held.where(auctions.c.state == OPEN)) or 0
    return Account(account_id, balance(connection, account_id), held_micros)


def read_balances(connection: Connection, after: str, limit: int) -> dict[str, int]:
    """Accounts behind `after` in the order of their ids, with what each has."""
    query = select(accounts.c.account_id).where(accounts.c.account_id > after).order_by(accounts.c.account_id)
    names = list(connection.scalars(query.limit(limit)))
    return {name: balance(connection, name) for name in names}


def read_entries(connection: Connection, account_id: str | None, after: int, limit: int) -> list[Entry]:
    """Entries behind `after` in the order they were made, of one account or of all."""
    about = (transfers.c.auction_id, transfers.c.agent_id, transfers.c.reference, transfers.c.created_at)
    leg = (entries.c.account_id, entries.c.micros, entries.c.balance_micros)
    query = select(entries.c.entry_id, transfers.c.transfer_id, transfers.c.kind, *leg, *about).join(transfers)
    query = query.where(entries.c.entry_id > after).order_by(entries.c.entry_id).limit(limit)
    if account_id is not None:
        query = query.where(entries.c.account_id == account_id)
    return [Entry(**row) for row in connection.execute(query).mappings()]
