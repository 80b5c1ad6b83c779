"""The ledger's tables; what each row is. They must not know how rows come about.

Whatever says what happened is only ever added: accounts, transfers, entries, holds, joins, bids, keys and events.
Triggers (migrations/) refuse to change or delete them, and refuse a transfer that does not sum to zero. Only an
auction's state and an access token's revocation are set later, once.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeEngine

OUTSIDE, HOUSE, HELD = "@outside", "@house", "@held"  # the world, the house's revenue, what is held for auctions
OPEN, SETTLED, VOID = "open", "settled", "void"  # states of an auction

METADATA = MetaData()
whole = BigInteger().with_variant(Integer(), "sqlite")  # SQLite's strict tables know INTEGER, of 64 bits
seconds: TypeEngine[float] = Double().with_variant(REAL(), "sqlite")  # since 1970-01-01 UTC


def _table(name: str, *content: Any) -> Table:
    return Table(name, METADATA, *content, sqlite_strict=True)


def _auction_id(*, is_key: bool = False, may_miss: bool = False) -> Column[str]:
    return Column("auction_id", Text, ForeignKey("auctions.auction_id"), primary_key=is_key, nullable=may_miss)


auctions = _table(
    "auctions",
    Column("number", whole, primary_key=True),  # in the order of creation
    Column("auction_id", Text, nullable=False, unique=True),
    Column("state", Text, nullable=False),
    Column("document", Text, nullable=False),  # private JSON: what it takes to go on after a crash
    Column("commitment", Text, nullable=False),  # to the seed, which `auction.settled` reveals
    Column("created_at", seconds, nullable=False),
    Column("ended_at", seconds),
    Column("head", Text),  # of the receipt, when settled
    Column("chain", Text),  # of the last event, when it ended
    Column("reason", Text),  # when void
    CheckConstraint("state IN ('open', 'settled', 'void')", "auctions_state"),
)
idempotency_keys = _table(
    "idempotency_keys",
    Column("idempotency_key", Text, primary_key=True),
    Column("request_hash", Text, nullable=False),
    _auction_id(),
)
accounts = _table(
    "accounts", Column("account_id", Text, primary_key=True), Column("created_at", seconds, nullable=False)
)
transfers = _table(
    "transfers",
    Column("transfer_id", whole, primary_key=True),
    Column("kind", Text, nullable=False),  # deposit, hold, post, release
    _auction_id(may_miss=True),
    Column("agent_id", Text),  # whose hold it is about
    Column("reference", Text, unique=True),  # of a deposit
    Column("created_at", seconds, nullable=False),
)
entries = _table(  # written before their transfer, which is refused unless they sum to zero
    "entries",
    Column("entry_id", whole, primary_key=True),
    Column(
        "transfer_id",
        whole,
        ForeignKey("transfers.transfer_id", deferrable=True, initially="DEFERRED"),
        nullable=False,
        index=True,
    ),
    Column("account_id", Text, ForeignKey("accounts.account_id"), nullable=False),
    Column("micros", whole, nullable=False),
    Column("balance_micros", whole, nullable=False),  # of the account, behind this entry
    CheckConstraint("micros <> 0", "entries_micros"),
    CheckConstraint("balance_micros >= 0 OR account_id = '@outside'", "entries_balance"),
    Index("ix_entries_account", "account_id", "entry_id"),
)
holds = _table(  # what is held of an agent is the sum of its rows
    "holds",
    Column("hold_id", whole, primary_key=True),
    _auction_id(),
    Column("agent_id", Text, nullable=False),
    Column("micros", whole, nullable=False),
    CheckConstraint("micros >= 0", "holds_micros"),
    Index("ix_holds_auction", "auction_id", "agent_id"),
    Index("ix_holds_agent", "agent_id"),
)
joins = _table(  # before the text begins, in order
    "joins",
    Column("join_number", whole, primary_key=True),
    _auction_id(),
    Column("agent_id", Text, nullable=False),
    Column("document", Text),  # private JSON: the agent as it takes part; null where it has left again
    Column("created_at", seconds, nullable=False),
    Index("ix_joins_auction", "auction_id", "join_number"),
)
bids = _table(
    "bids",
    Column("bid_number", whole, primary_key=True),
    _auction_id(),
    Column("agent_id", Text, nullable=False),
    Column("bid_id", Text),
    Column("bid_micros", whole, nullable=False),
    Column("created_at", seconds, nullable=False),
    CheckConstraint("bid_micros >= 0", "bids_micros"),
    UniqueConstraint("auction_id", "agent_id", "bid_id", name="bids_id"),
)
events = _table(
    "events",
    _auction_id(is_key=True),
    Column("seq", whole, primary_key=True),
    Column("epoch", whole, nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", Text, nullable=False),  # canonical JSON
    Column("charges", Text, nullable=False),  # canonical JSON: agent to micros
    Column("chain", Text, nullable=False),  # hash over this event and the chain of the one before it
)
access_tokens = _table(
    "access_tokens",
    Column("token_id", Text, primary_key=True),
    Column("secret_hash", Text, nullable=False, unique=True),  # SHA-256; the secret itself is nowhere
    Column("scopes", Text, nullable=False),  # words between spaces
    Column("agent_id", Text),
    Column("created_at", seconds, nullable=False),
    Column("expires_at", seconds),
    Column("revoked_at", seconds),
)
