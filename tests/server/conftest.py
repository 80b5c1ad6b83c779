"""What the server's tests share: a running server for one test, and one that starts others on the same ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
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
