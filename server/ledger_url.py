"""Where a ledger is: a file of SQLite or a database of PostgreSQL, by URL or path. A password in it is never shown."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from tokenauction.server.database import Database
from tokenauction.server.ledger_error import LedgerError
from tokenauction.server.sqlite_database import SqliteDatabase

FORMS = "give a path, sqlite:///PATH or postgresql://USER@HOST/DATABASE"


async def open_database(url: str, *, is_visit: bool, synchronous: str) -> Database:
    """Open, check and migrate; a visit takes no lock, makes no database and migrates none.

    `url` may be a path, of a file of SQLite. Raises LedgerError (locked, no_ledger, unusable_database).
    """
    if (path := file_of(url)) is not None:
        return await SqliteDatabase.open(path, is_visit=is_visit, synchronous=synchronous)
    try:  # whoever has no PostgreSQL needs no asyncpg
        from tokenauction.server.postgres_database import PostgresDatabase
    except ImportError:
        said = "PostgreSQL needs more packages: pip install 'tokenauction[postgres]'"
        raise LedgerError("unusable_database", said) from None
    return await PostgresDatabase.open(read_url(url), is_visit=is_visit, synchronous=synchronous)


def read_url(url: str) -> URL:
    """The parts of a URL of SQLite or PostgreSQL, with whatever driver; LedgerError (unusable_database).

    What cannot be read is not shown: it may have a password anywhere.
    """
    try:
        parts = make_url(url)
        name = parts.drivername.partition("+")[0]
        name = "postgresql" if name == "postgres" else name
        if name == "postgresql" and "@" in (parts.database or ""):
            raise ValueError("a / in a password ends the name of the host")
    except (ArgumentError, ValueError):
        said = "that is no URL (in names and passwords, write @ as %40, / as %2F, : as %3A)"
        raise LedgerError("unusable_database", f"{said}; {FORMS}") from None
    if name not in ("sqlite", "postgresql"):
        raise LedgerError("unusable_database", f"{name:.40} is not supported; {FORMS}")
    return parts.set(drivername=name)


def file_of(url: str) -> Path | None:
    """The file of a ledger in SQLite, by URL or path; None for another database; LedgerError (unusable_database)."""
    if "://" not in url:
        return Path(url)
    parts = read_url(url)
    if parts.drivername != "sqlite":
        return None
    if not parts.database or parts.database == ":memory:" or parts.query:
        raise LedgerError("unusable_database", "a ledger is a file: give sqlite:///PATH and no options")
    return Path(parts.database)
