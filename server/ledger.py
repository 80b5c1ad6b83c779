"""The ledger: who has what, what each auction holds, charged and told; durable before it is acknowledged.

    ledger = await Ledger.open("sqlite:///ledger.db")      # or postgresql://user@host/database
    deposit → create_auction (holds) → accept_bid … append … → settle (posts, gives back) or void (gives back)

Whatever an awaited method returned survives kill -9 and the loss of power; what `append` queued is durable when its
future says so, within 50 ms. Writes happen in the order of the calls. What comes twice (a key, a reference, a bid id, a
settlement) happens once. Errors are LedgerError, and have changed nothing. It must not know sockets, nor what an event
says.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection

from tokenauction.server import access_tokens, accounts, bid_book, escrow, join_book, journal
from tokenauction.server.access_tokens import Grant, Token
from tokenauction.server.accounts import Account, Entry, is_id
from tokenauction.server.auction_record import AuctionRecord, read_auction, read_auctions, read_open_auctions
from tokenauction.server.audit import audit
from tokenauction.server.database import Database
from tokenauction.server.escrow import Created, NewAuction, Replayed
from tokenauction.server.group_commit import GroupCommit
from tokenauction.server.journal import Journal
from tokenauction.server.ledger_error import LedgerError
from tokenauction.server.ledger_url import open_database
from tokenauction.server.outbox import Outbox

__all__ = ["Account", "AuctionRecord", "Created", "Entry", "Ledger", "LedgerError", "Replayed", "Token"]

PAGE = 64  # events in one read
MAX_LIMIT = 1_000  # rows in one answer
PATIENT = frozenset({"auction.token", "candidates.progress", "candidate.completed"})  # events that nobody waits for

T = TypeVar("T")


class Ledger:
    """An open ledger; every method is called on the event loop it was opened on."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        is_visit: bool,
    ) -> None:
        """Use `open`."""
        self._database = database
        self._clock = clock
        self._entropy = entropy
        self._is_visit = is_visit
        self._journal = Journal()
        self._commits = GroupCommit(database, self._journal.flush, self._journal.forget)
        self.failure = self._commits.failure  # raises what ended all writing, when it does

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        clock: Callable[[], float] = time.time,
        entropy: Callable[[int], bytes] = os.urandom,
        is_visit: bool = False,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
    ) -> Ledger:
        """The ledger at a URL, or of SQLite at a path; made where it is new, brought up to date where it is old.

        `clock` gives seconds since 1970. A visit is for a command beside a running server: it reads, deposits and deals
        with access tokens, and leaves auctions alone. NORMAL loses what it acknowledged when the power fails, and is
        there to show it. Raises LedgerError (locked, no_ledger for a visit, unusable_database).
        """
        database = await open_database(url, is_visit=is_visit, synchronous=synchronous)
        return cls(database, clock, entropy, is_visit)

    @property
    def num_waiting(self) -> int:
        """Writes that wait for a transaction."""
        return self._commits.num_waiting

    def watch_commits(self, told: Callable[[float, int], None]) -> None:
        """From now on `told` hears of every transaction: the seconds its commit took, and how many writes it had."""
        self._commits.watchers.append(told)

    async def close(self) -> None:
        """Write what waits, then let go of the database."""
        await self._commits.close()
        await self._database.close()

    async def find_owner(self) -> str | None:
        """The server of this ledger, in words; None where nobody serves it."""
        return await self._database.find_owner()

    # --- Money ---------------------------------------------------------------------------------------------------

    async def deposit(self, account_id: str, micros: int, reference: str) -> bool:
        """Bring money in, once per reference: False where it had come before.

        Raises LedgerError (invalid_id, invalid_amount, idempotency_conflict).
        """
        return await self._write(lambda c: accounts.deposit(c, account_id, micros, reference, self._clock()))

    async def account(self, account_id: str) -> Account | None:
        """What an account has and what is held of it; None for one that nobody knows."""
        query = partial(accounts.read_account, account_id=account_id)
        return await self._database.read(query) if is_id(account_id) else None

    async def balances(self, after: str = "", limit: int = MAX_LIMIT) -> dict[str, int]:
        """Micros of every account behind `after`, by id; the ledger's own begin with @. All together are zero."""
        return await self._database.read(partial(accounts.read_balances, after=after, limit=_limit(limit)))

    async def entries(self, account_id: str | None = None, after: int = 0, limit: int = MAX_LIMIT) -> list[Entry]:
        """Entries behind the one with the id `after`, in order, of one account or of all."""
        query = partial(accounts.read_entries, account_id=account_id, after=after, limit=_limit(limit))
        return await self._database.read(query)

    async def audit(self) -> list[str]:
        """What does not hold of this ledger, one line each; empty where everything does. Reads everything."""
        return await self._database.read(lambda c: list(audit(c)))

    # --- Auctions ------------------------------------------------------------------------------------------------

    async def create_auction(
        self,
        auction_id: str,
        spec: Mapping[str, Any],
        holds: Mapping[str, int],
        idempotency_key: str | None,
        request_hash: str,
        commitment: str,
    ) -> Created | Replayed:
        """An open auction, with its holds in micros per agent; or the one that this key made before.

        `spec` is kept as it is, for recovery. Raises LedgerError (idempotency_conflict, auction_exists,
        insufficient_funds, invalid_amount, invalid_id).
        """
        new = NewAuction(auction_id, spec, holds, idempotency_key, request_hash, commitment)
        journal.to_json(spec)  # what is no JSON is the caller's fault, and is said here
        return await self._write(lambda c: escrow.create(c, new, self._clock()), is_of_auctions=True)

    async def join(
        self, auction_id: str, agent_id: str, micros: int, bid_micros: int, document: Mapping[str, Any]
    ) -> None:
        """Hold at least so much of an agent for an open auction, and keep its bid and, for recovery, the `document`.

        Raises LedgerError (no_auction, not_open, insufficient_funds, invalid_amount, invalid_id).
        """
        await self._write(
            lambda c: join_book.join(c, auction_id, agent_id, micros, bid_micros, document, self._clock()),
            is_of_auctions=True,
        )

    async def leave(self, auction_id: str, agent_id: str) -> None:
        """An agent that had joined takes no part after all; LedgerError (no_auction, not_open, invalid_id)."""
        await self._write(lambda c: join_book.leave(c, auction_id, agent_id, self._clock()), is_of_auctions=True)

    async def accept_bid(self, auction_id: str, agent_id: str, bid_micros: int, bid_id: str | None = None) -> bool:
        """Keep a bid; False where this `bid_id` came before with this amount: then nothing is to change.

        Raises LedgerError (no_auction, not_open, no_hold, idempotency_conflict, invalid_amount, invalid_id).
        """
        return await self._write(
            lambda c: bid_book.accept(c, auction_id, agent_id, bid_micros, bid_id, self._clock()), is_of_auctions=True
        )

    def append(
        self, auction_id: str, epoch: int, seq: int, event: Mapping[str, Any], charges: Mapping[str, int] | None = None
    ) -> asyncio.Future[int]:
        """Queue an event behind all other writes; the future has its seq when it, and all before it, are durable.

        `charges` are what it adds to what each agent owes, in micros. Only tokens wait for others to share a commit.
        The future raises LedgerError (no_auction, not_open, out_of_order, hold_exceeded); the call itself ValueError or
        TypeError for what is no JSON.
        """
        row = journal.write_event(auction_id, epoch, seq, event, charges or {})
        job = partial(self._journal.append, event=row)
        return self._submit(job, is_urgent=row.kind not in PATIENT, is_of_auctions=True)

    async def settle(self, auction_id: str, totals: Mapping[str, int], head: str) -> None:
        """Post what each agent owes, in micros, and give back the rest; the same settlement twice posts once.

        `totals` must be what the events charged; `head` is that of the receipt. Raises LedgerError (no_auction,
        not_open, totals_differ, settlement_conflict, invalid_id).
        """
        await self._write(
            lambda c: escrow.settle(c, self._journal, auction_id, totals, head, self._clock()), is_of_auctions=True
        )

    async def void(self, auction_id: str, reason: str) -> None:
        """End an auction that charges nothing: all that is held is given back. Twice is once.

        Raises LedgerError (no_auction, not_open).
        """
        await self._write(
            lambda c: escrow.void(c, self._journal, auction_id, reason, self._clock()), is_of_auctions=True
        )

    async def bids(self, auction_id: str) -> dict[str, int]:
        """Each agent's last accepted bid, in micros."""
        return await self._database.read(partial(bid_book.read_last, auction_id=auction_id))

    async def joins(self, auction_id: str) -> list[tuple[str, dict[str, Any] | None]]:
        """Every joining with its document, every leaving before the text with None, in order."""
        return await self._database.read(partial(join_book.read, auction_id=auction_id))

    async def holds(self, auction_id: str) -> dict[str, int]:
        """What was held of each agent for this auction, in micros: the most that it can owe."""
        return await self._database.read(partial(journal.read_held, auction_id=auction_id))

    async def auction(self, auction_id: str) -> AuctionRecord | None:
        """One auction; None where there is none."""
        query = partial(read_auction, auction_id=auction_id)
        return await self._database.read(query) if is_id(auction_id) else None

    async def auctions(
        self, limit: int = MAX_LIMIT, after: str | None = None, *, newest: bool = False
    ) -> list[AuctionRecord]:
        """Auctions in the order of their creation, or the newest first, behind the one with the id `after`."""
        return await self._database.read(partial(read_auctions, limit=_limit(limit), after=after, newest=newest))

    async def open_auctions(self) -> list[AuctionRecord]:
        """Every auction that has not ended: what recovery takes up."""
        return await self._database.read(read_open_auctions)

    async def events(
        self, auction_id: str, after_seq: int = -1, epoch: int | None = None, kind: str | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """The durable events behind a seq, as they were appended; those of one epoch or one type where it is given."""
        while is_id(auction_id):
            query = partial(
                journal.read_events, auction_id=auction_id, after_seq=after_seq, epoch=epoch, kind=kind, limit=PAGE
            )
            page = await self._database.read(query)
            for after_seq, event in page:  # noqa: B007  # the next page begins behind the last
                yield event
            if len(page) < PAGE:
                return

    async def last_event(self, auction_id: str) -> dict[str, Any] | None:
        """The last durable event; None where there is none."""
        return await self._database.read(partial(journal.read_last_event, auction_id=auction_id))

    def outbox(self, mirror: str) -> Outbox:
        """What somebody who tells the events to others has still to tell."""
        return Outbox(mirror, self._database.read, self._write)

    # --- Access tokens -------------------------------------------------------------------------------------------

    async def create_token(
        self, scopes: Iterable[str], agent_id: str | None = None, expires: float | None = None
    ) -> tuple[str, str]:
        """A new access token's id, and its secret, which is kept nowhere; LedgerError (invalid_id) for no scopes."""
        grant = Grant.of(scopes, agent_id, expires)
        return await self._write(lambda c: access_tokens.create(c, grant, self._entropy, self._clock()))

    async def check_token(self, secret: str) -> Token | None:
        """The token with this secret; None where there is none, or it was revoked or has expired."""
        return await self._database.read(lambda c: access_tokens.check(c, secret, self._clock()))

    async def good_tokens(self, token_ids: Iterable[str]) -> set[str]:
        """Those of some tokens, by id, that were neither revoked nor have expired."""
        return await self._database.read(lambda c: access_tokens.read_good(c, token_ids, self._clock()))

    async def rotate_token(self, token_id: str) -> tuple[str, str]:
        """Replace a token by one that allows the same: its id and secret; LedgerError (no_token)."""
        return await self._write(lambda c: access_tokens.rotate(c, token_id, self._entropy, self._clock()))

    async def revoke_token(self, token_id: str) -> None:
        """From now on the token is nobody's; LedgerError (no_token) where there is none."""
        await self._write(lambda c: access_tokens.revoke(c, token_id, self._clock()))

    async def tokens(self, limit: int = MAX_LIMIT) -> list[Token]:
        """Tokens that there are or were, the newest first."""
        return await self._database.read(partial(access_tokens.read_all, limit=_limit(limit)))

    # --- Writing -------------------------------------------------------------------------------------------------

    async def _write(self, job: Callable[[Connection], T], *, is_of_auctions: bool = False) -> T:
        return await self._submit(job, is_urgent=True, is_of_auctions=is_of_auctions)

    def _submit(
        self, job: Callable[[Connection], T], *, is_urgent: bool, is_of_auctions: bool = False
    ) -> asyncio.Future[T]:
        if is_of_auctions and self._is_visit:
            raise LedgerError("visiting", "auctions are the server's alone: ask it, or stop it")
        return self._commits.submit(job, is_urgent=is_urgent)


def _limit(rows: int) -> int:
    """As many rows as were asked for, and as one answer may have; SQLite takes a negative number for no limit."""
    return max(0, min(rows, MAX_LIMIT))
