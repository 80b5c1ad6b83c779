"""How far each mirror of the events is, so that a broker that is away loses nothing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables; they say how far something is, and are changed."""
    op.create_table(
        "mirrors",
        sa.Column("mirror", TEXT, primary_key=True),
        sa.Column("auctions_done", WHOLE, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "mirror_places",
        sa.Column("mirror", TEXT, sa.ForeignKey("mirrors.mirror"), primary_key=True),
        sa.Column("auction_id", TEXT, sa.ForeignKey("auctions.auction_id"), primary_key=True),
        sa.Column("seq", WHOLE, nullable=False),
        sqlite_strict=True,
    )
