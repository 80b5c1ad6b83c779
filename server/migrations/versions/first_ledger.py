"""The first ledger: double entry, auctions and their events, access tokens; and what the database itself refuses.

A migration is history: it spells out its tables and never imports those of today.
"""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

from tokenauction.server.migrations.refusals import only_add, refuse, refuse_to_empty

revision = "0001"
down_revision = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SECONDS: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")  # in the order of its code points, as SQLite's
ADDED_ONLY = ("accounts", "transfers", "entries", "holds", "bids", "idempotency_keys", "events")


def upgrade() -> None:
    """Make the tables, the ledger's own accounts, and the triggers."""
    _auctions()
    _money()
    _bids_and_holds()
    _access_tokens()
    _refusals()
    if op.get_bind().dialect.name == "postgresql":
        _writer()
    now = time.time()
    own = sa.table("accounts", sa.column("account_id", TEXT), sa.column("created_at", SECONDS))
    op.bulk_insert(own, [{"account_id": name, "created_at": now} for name in ("@outside", "@house", "@held")])


def _auction_id(*, is_key: bool = False, may_miss: bool = False) -> sa.Column[str]:
    reference = sa.ForeignKey("auctions.auction_id")
    return sa.Column("auction_id", TEXT, reference, primary_key=is_key, nullable=may_miss)


def _auctions() -> None:
    op.create_table(
        "auctions",
        sa.Column("number", WHOLE, primary_key=True),
        sa.Column("auction_id", TEXT, nullable=False, unique=True),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("document", TEXT, nullable=False),
        sa.Column("commitment", TEXT, nullable=False),
        sa.Column("created_at", SECONDS, nullable=False),
        sa.Column("ended_at", SECONDS),
        sa.Column("head", TEXT),
        sa.Column("chain", TEXT),
        sa.Column("reason", TEXT),
        sa.CheckConstraint("state IN ('open', 'settled', 'void')", "auctions_state"),
        sqlite_strict=True,
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("idempotency_key", TEXT, primary_key=True),
        sa.Column("request_hash", TEXT, nullable=False),
        _auction_id(),
        sqlite_strict=True,
    )
    op.create_table(
        "events",
        _auction_id(is_key=True),
        sa.Column("seq", WHOLE, primary_key=True),
        sa.Column("epoch", WHOLE, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("body", TEXT, nullable=False),
        sa.Column("charges", TEXT, nullable=False),
        sa.Column("chain", TEXT, nullable=False),
        sqlite_strict=True,
    )


def _money() -> None:
    op.create_table(
        "accounts",
        sa.Column("account_id", TEXT, primary_key=True),
        sa.Column("created_at", SECONDS, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "transfers",
        sa.Column("transfer_id", WHOLE, primary_key=True),
        sa.Column("kind", TEXT, nullable=False),
        _auction_id(may_miss=True),
        sa.Column("agent_id", TEXT),
        sa.Column("reference", TEXT, unique=True),
        sa.Column("created_at", SECONDS, nullable=False),
        sqlite_strict=True,
    )
    transfer = sa.ForeignKey("transfers.transfer_id", deferrable=True, initially="DEFERRED")
    op.create_table(
        "entries",
        sa.Column("entry_id", WHOLE, primary_key=True),
        sa.Column("transfer_id", WHOLE, transfer, nullable=False),
        sa.Column("account_id", TEXT, sa.ForeignKey("accounts.account_id"), nullable=False),
        sa.Column("micros", WHOLE, nullable=False),
        sa.Column("balance_micros", WHOLE, nullable=False),
        sa.CheckConstraint("micros <> 0", "entries_micros"),
        sa.CheckConstraint("balance_micros >= 0 OR account_id = '@outside'", "entries_balance"),
        sqlite_strict=True,
    )
    op.create_index("ix_entries_transfer_id", "entries", ["transfer_id"])
    op.create_index("ix_entries_account", "entries", ["account_id", "entry_id"])


def _bids_and_holds() -> None:
    op.create_table(
        "holds",
        sa.Column("hold_id", WHOLE, primary_key=True),
        _auction_id(),
        sa.Column("agent_id", TEXT, nullable=False),
        sa.Column("micros", WHOLE, nullable=False),
        sa.CheckConstraint("micros >= 0", "holds_micros"),
        sqlite_strict=True,
    )
    op.create_index("ix_holds_auction", "holds", ["auction_id", "agent_id"])
    op.create_index("ix_holds_agent", "holds", ["agent_id"])
    op.create_table(
        "bids",
        sa.Column("bid_number", WHOLE, primary_key=True),
        _auction_id(),
        sa.Column("agent_id", TEXT, nullable=False),
        sa.Column("bid_id", TEXT),
        sa.Column("bid_micros", WHOLE, nullable=False),
        sa.Column("created_at", SECONDS, nullable=False),
        sa.CheckConstraint("bid_micros >= 0", "bids_micros"),
        sa.UniqueConstraint("auction_id", "agent_id", "bid_id", name="bids_id"),
        sqlite_strict=True,
    )


def _access_tokens() -> None:
    op.create_table(
        "access_tokens",
        sa.Column("token_id", TEXT, primary_key=True),
        sa.Column("secret_hash", TEXT, nullable=False, unique=True),
        sa.Column("scopes", TEXT, nullable=False),
        sa.Column("agent_id", TEXT),
        sa.Column("created_at", SECONDS, nullable=False),
        sa.Column("expires_at", SECONDS),
        sa.Column("revoked_at", SECONDS),
        sqlite_strict=True,
    )


def _writer() -> None:
    """Who may write; SQLite has a lock file."""
    op.create_table(
        "writer",
        sa.Column("the_one", sa.Boolean, sa.CheckConstraint("the_one"), primary_key=True),
        sa.Column("session", TEXT, nullable=False),
        sa.Column("num_commits", WHOLE, nullable=False),
    )


def _refusals() -> None:
    for table in ADDED_ONLY:
        only_add(table)
    refuse_to_empty("auctions")
    refuse("auctions_no_delete", "DELETE ON auctions", "TRUE", "auctions are not deleted")
    fixed = ("number", "auction_id", "document", "commitment", "created_at")
    changed = " OR ".join(["OLD.state <> 'open'", *(f"NEW.{name} IS NOT OLD.{name}" for name in fixed)])
    refuse("auctions_end_once", "UPDATE ON auctions", changed, "an auction ends once and keeps what it was")
    total = "(SELECT sum(micros) FROM entries WHERE transfer_id = NEW.transfer_id)"
    refuse("transfers_sum", "INSERT ON transfers", f"{total} IS NOT 0", "a transfer sums to zero")
    posted = "EXISTS (SELECT 1 FROM transfers WHERE transfer_id = NEW.transfer_id)"
    refuse("entries_closed", "INSERT ON entries", posted, "the transfer is complete")
    last = "(SELECT balance_micros FROM entries WHERE account_id = NEW.account_id ORDER BY entry_id DESC LIMIT 1)"
    wrong = f"NEW.balance_micros <> NEW.micros + coalesce({last}, 0)"
    refuse("entries_running", "INSERT ON entries", wrong, "a balance follows from the one before it")
    next_seq = "(SELECT coalesce(max(seq), -1) + 1 FROM events WHERE auction_id = NEW.auction_id)"
    refuse("events_dense", "INSERT ON events", f"NEW.seq <> {next_seq}", "events are dense")
    ended = "(SELECT state FROM auctions WHERE auction_id = NEW.auction_id) IS NOT 'open'"
    for table in ("events", "holds", "bids"):
        refuse(f"{table}_open", f"INSERT ON {table}", ended, "the auction has ended")
