"""What the ledger refuses, with a stable code; it knows nothing of how an error is shown.

insufficient_funds      an account has less than what is to be held
idempotency_conflict    a key, reference or bid id came before with other content
auction_exists          the id is taken
no_auction, not_open    there is no such auction; it has ended
no_hold, hold_exceeded  nothing is held of this agent; it would owe more than is held
out_of_order            an event does not follow the last one
totals_differ           a settlement is not the sum of what its events charged
settlement_conflict     the auction was settled otherwise
invalid_amount          not a whole number of micros from 0 to the largest amount
invalid_id              empty, too long, or not text that every database takes
no_token                there is no such access token
capacity                too much waits to be written
locked, visiting        another server has this database; this one was opened beside a server
no_ledger               there is none yet, and a visit makes none
unusable_database       it cannot be opened, is none, is not durable, or is of another version
failed, closed          writing failed, and the ledger with it; it was closed
"""

from __future__ import annotations

from tokenauction.engine.errors import TokenAuctionError


class LedgerError(TokenAuctionError):
    """Nothing was written. The message is one line, with the limit and the remedy."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
