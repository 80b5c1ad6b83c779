"""What the server's tests share: a running server for one test, one that starts others on the same ledger, and places
for ledgers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.server.places import EVERYWHERE, Place, PostgresPlace, SqlitePlace
from tests.server.postgres import shared_postgres
from tests.server.toy_server import ToyServer, toy_server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ToyServer]:
    """An open server."""
    async with toy_server(tmp_path) as running:
        yield running


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Any]:
    """`toy_server` on this test's ledger, with whatever options the test chooses."""
    return partial(toy_server, tmp_path)


@pytest.fixture(params=EVERYWHERE)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where a ledger can be, on every kind of database."""
    if request.param == "sqlite":
        return SqlitePlace(tmp_path / "ledger.db")
    return PostgresPlace(shared_postgres(), await shared_postgres().new_database())
