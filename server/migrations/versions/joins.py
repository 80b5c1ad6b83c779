"""Joinings are kept, so that a server that stops while agents join goes on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tokenauction.server.migrations.refusals import only_add, refuse

revision = "0002"
down_revision = "0001"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SECONDS: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the table and its triggers."""
    op.create_table(
        "joins",
        sa.Column("join_number", WHOLE, primary_key=True),
        sa.Column("auction_id", TEXT, sa.ForeignKey("auctions.auction_id"), nullable=False),
        sa.Column("agent_id", TEXT, nullable=False),
        sa.Column("document", TEXT),
        sa.Column("created_at", SECONDS, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("ix_joins_auction", "joins", ["auction_id", "join_number"])
    only_add("joins")
    ended = "(SELECT state FROM auctions WHERE auction_id = NEW.auction_id) IS NOT 'open'"
    refuse("joins_open", "INSERT ON joins", ended, "the auction has ended")
