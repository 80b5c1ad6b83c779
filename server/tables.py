"""The ledger's tables; what each row is. They must not know how rows come about.

Whatever says what happened is only ever added: accounts, transfers, entries, holds, joins, bids, keys and events.
Triggers (migrations/) refuse to change or delete them, and refuse a transfer that does not sum to zero. Only an
auction's state and an access token's revocation are set later, once, and how far a mirror is, again and again.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    Column,
    ColumnElement,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    cast,
    func,
)
from sqlalchemy.types import TypeEngine

OUTSIDE, HOUSE, HELD = "@outside", "@house", "@held"  # the world, the house's revenue, what is held for auctions
OPEN, SETTLED, VOID = "open", "settled", "void"  # states of an auction

METADATA = MetaData()
whole = BigInteger().with_variant(Integer(), "sqlite")  # SQLite's strict tables know INTEGER, of 64 bits
text = Text().with_variant(Text(collation="C"), "postgresql")  # in the order of its code points, as SQLite's
seconds: TypeEngine[float] = Double().with_variant(REAL(), "sqlite")  # since 1970-01-01 UTC


def total(column: Column[int]) -> ColumnElement[int | None]:
    """The sum of whole numbers as one; NULL of none. PostgreSQL's own is a decimal."""
    return cast(func.sum(column), whole)


def _table(name: str, *content: Any) -> Table:
    return Table(name, METADATA, *content, sqlite_strict=True)


def _auction_id(*, is_key: bool = False, may_miss: bool = False) -> Column[str]:
    return Column("auction_id", text, ForeignKey("auctions.auction_id"), primary_key=is_key, nullable=may_miss)


auctions = _table(
    "auctions",
    Column("number", whole, primary_key=True),  # in the order of creation
    Column("auction_id", text, nullable=False, unique=True),
    Column("state", text, nullable=False),
    Column("document", text, nullable=False),  # private JSON: what it takes to go on after a crash
    Column("commitment", text, nullable=False),  # to the seed, which `auction.settled` reveals
    Column("created_at", seconds, nullable=False),
    Column("ended_at", seconds),
    Column("head", text),  # of the receipt, when settled
    Column("chain", text),  # of the last event, when it ended
    Column("reason", text),  # when void
    CheckConstraint("state IN ('open', 'settled', 'void')", "auctions_state"),
)
idempotency_keys = _table(
    "idempotency_keys",
    Column("idempotency_key", text, primary_key=True),
    Column("request_hash", text, nullable=False),
    _auction_id(),
)
accounts = _table(
    "accounts", Column("account_id", text, primary_key=True), Column("created_at", seconds, nullable=False)
)
transfers = _table(
    "transfers",
    Column("transfer_id", whole, primary_key=True),
    Column("kind", text, nullable=False),  # deposit, hold, post, release
    _auction_id(may_miss=True),
    Column("agent_id", text),  # whose hold it is about
    Column("reference", text, unique=True),  # of a deposit
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
    Column("account_id", text, ForeignKey("accounts.account_id"), nullable=False),
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
    Column("agent_id", text, nullable=False),
    Column("micros", whole, nullable=False),
    CheckConstraint("micros >= 0", "holds_micros"),
    Index("ix_holds_auction", "auction_id", "agent_id"),
    Index("ix_holds_agent", "agent_id"),
)
joins = _table(  # before the text begins, in order
    "joins",
    Column("join_number", whole, primary_key=True),
    _auction_id(),
    Column("agent_id", text, nullable=False),
    Column("document", text),  # private JSON: the agent as it takes part; null where it has left again
    Column("created_at", seconds, nullable=False),
    Index("ix_joins_auction", "auction_id", "join_number"),
)
bids = _table(
    "bids",
    Column("bid_number", whole, primary_key=True),
    _auction_id(),
    Column("agent_id", text, nullable=False),
    Column("bid_id", text),
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
    Column("kind", text, nullable=False),
    Column("body", text, nullable=False),  # canonical JSON
    Column("charges", text, nullable=False),  # canonical JSON: agent to micros
    Column("chain", text, nullable=False),  # hash over this event and the chain of the one before it
)
mirrors = _table(  # what tells the events to somebody else: an MQTT broker
    "mirrors",
    Column("mirror", text, primary_key=True),
    Column("auctions_done", whole, nullable=False),  # the number up to which all of every auction was told
)
mirror_places = _table(  # of the auctions behind it, how far each is
    "mirror_places",
    Column("mirror", text, ForeignKey("mirrors.mirror"), primary_key=True),
    _auction_id(is_key=True),
    Column("seq", whole, nullable=False),
)
access_tokens = _table(
    "access_tokens",
    Column("token_id", text, primary_key=True),
    Column("secret_hash", text, nullable=False, unique=True),  # SHA-256; the secret itself is nowhere
    Column("scopes", text, nullable=False),  # words between spaces
    Column("agent_id", text),
    Column("created_at", seconds, nullable=False),
    Column("expires_at", seconds),
    Column("revoked_at", seconds),
)
