"""Where a test's ledger is: a file of SQLite, or a database of PostgreSQL; and how to get at it behind its back."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from contextlib import closing
from pathlib import Path

import pytest
from tests.server.postgres import PostgresServer, find_programs

needs_postgres = pytest.mark.skipif(find_programs() is None, reason="no PostgreSQL here; Debian's is `postgresql`")
ON_POSTGRES = [needs_postgres, pytest.mark.slow]
EVERYWHERE = ("sqlite", pytest.param("postgresql", marks=ON_POSTGRES))


class Place(ABC):
    """One place, with no ledger in it yet."""

    kind: str
    url: str

    @abstractmethod
    async def tamper(self, *statements: str) -> None:
        """Change the tables as nobody may, with their triggers out of the way."""

    @abstractmethod
    async def execute(self, *statements: str) -> None:
        """Change the tables beside the ledger."""


class SqlitePlace(Place):
    """A file."""

    kind = "sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"

    async def tamper(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            triggers = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        await self.execute(*(f"DROP TRIGGER {name}" for (name,) in triggers), *statements)

    async def execute(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()


class PostgresPlace(Place):
    """A database of a server."""

    kind = "postgresql"

    def __init__(self, server: PostgresServer, name: str) -> None:
        self.server = server
        self.name = name
        self.url = server.url(name)

    async def tamper(self, *statements: str) -> None:
        await self.execute("SET session_replication_role = replica", *statements)

    async def execute(self, *statements: str) -> None:
        await self.server.execute(*statements, database=self.name)
