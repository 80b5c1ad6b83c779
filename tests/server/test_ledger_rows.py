"""What is on the disk, row by row: the same work leaves the same rows in every database."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.server.ledger_workload import Workload
from tests.server.places import needs_postgres
from tests.server.postgres import shared_postgres

from tokenauction.server.ledger import Ledger
from tokenauction.server.tables import METADATA

pytestmark = [needs_postgres, pytest.mark.slow]


async def rows_behind_work(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, as it comes back, behind some auctions one after the other."""
    drawn = count()
    ledger = await Ledger.open(url, clock=lambda: 1_000.25, entropy=lambda size: next(drawn).to_bytes(size))
    for number in range(4):
        await Workload(ledger, number, lambda acknowledgement: None).run([f"auction {number} Haleʻiwa"])
    await ledger.deposit("Zulu", 10**15, "größte \N{HIBISCUS}")
    await ledger.create_token(["bid"], "palm", 2_000.5)
    query = [(table.name, select(table).order_by(*table.primary_key)) for table in METADATA.sorted_tables]
    found = {}
    for name, rows in query:
        found[name] = await ledger._database.read(lambda c, q=rows: [tuple(row) for row in c.execute(q)])
    await ledger.close()
    return found


async def test_both_databases_hold_the_same_rows(tmp_path: Path) -> None:
    of_sqlite = await rows_behind_work(str(tmp_path / "ledger.db"))
    of_postgres = await rows_behind_work(shared_postgres().url(await shared_postgres().new_database()))
    assert of_sqlite.keys() == of_postgres.keys() and len(of_sqlite["events"]) > 90
    for name, rows in of_sqlite.items():
        assert [normal(name, row) for row in rows] == [normal(name, row) for row in of_postgres[name]], name
        assert [[type(cell) for cell in row] for row in rows] == [[type(c) for c in row] for row in of_postgres[name]]


def normal(table: str, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Without the time at which the migration made the ledger's own accounts."""
    return row[:1] if table == "accounts" and row[0].startswith("@") else row
