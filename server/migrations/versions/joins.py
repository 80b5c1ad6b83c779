"""Joinings are kept, so that a server that stops while agents join goes on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SECONDS: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")


def upgrade() -> None:
    """Make the table and its triggers."""
    op.create_table(
        "joins",
        sa.Column("join_number", WHOLE, primary_key=True),
        sa.Column("auction_id", sa.Text, sa.ForeignKey("auctions.auction_id"), nullable=False),
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("document", sa.Text),
        sa.Column("created_at", SECONDS, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("ix_joins_auction", "joins", ["auction_id", "join_number"])
    for action in ("UPDATE", "DELETE"):
        op.execute(_refusal(f"joins_no_{action.lower()}", f"{action} ON joins", "1", "joins are only ever added"))
    ended = "(SELECT state FROM auctions WHERE auction_id = NEW.auction_id) IS NOT 'open'"
    op.execute(_refusal("joins_open", "INSERT ON joins", ended, "the auction has ended"))


def _refusal(name: str, event: str, condition: str, message: str) -> str:
    """SQLite's; another database gets its own in the same place."""
    return f"CREATE TRIGGER {name} BEFORE {event} WHEN {condition} BEGIN SELECT RAISE(ABORT, '{message}'); END"
