"""SQLite under the ledger: a file, made durable, and this process's alone.

WAL mode with synchronous=FULL: with NORMAL, a commit is lost when the power is (tests/server/power_loss.py). A lock
file beside the database keeps a second server away; it is the operating system's lock on it that counts, which ends
with the process however that ends.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from tokenauction.server.database import MAX_READERS, Database, check_version, migrate, nothing
from tokenauction.server.ledger_error import LedgerError

BUSY_SECONDS = 30  # a writer beside a server waits for its commit
SYNCHRONOUS = {"NORMAL": 1, "FULL": 2}

T = TypeVar("T")


class SqliteDatabase(Database):
    """An open file: one connection that writes, in a thread of its own, and some that cannot, in others.

    Statements do not go through the event loop one by one: a transaction is one call of a thread. With a driver that
    hands each statement over, a bid took 2.3 times as long, and each handover waits for whoever else computes.
    """

    def __init__(self, path: Path, lock: IO[str] | None, synchronous: str) -> None:
        """Use `open`."""
        self.writer = _engine(path, synchronous, reads=False)
        self.readers = _engine(path, synchronous, reads=True)
        self._path = path
        self._lock = lock
        self._writing = ThreadPoolExecutor(1, "tokenauction-ledger")
        self._reading = ThreadPoolExecutor(MAX_READERS, "tokenauction-reader")

    @classmethod
    async def open(cls, path: Path, *, is_visit: bool, synchronous: str) -> SqliteDatabase:
        """Open, check and migrate; a visit takes no lock, makes no database and migrates none.

        Raises LedgerError (locked, no_ledger, unusable_database).
        """
        if is_visit and not path.is_file():
            raise LedgerError("no_ledger", f"there is no ledger at {path}")
        database = cls(path, None if is_visit else take_lock(path), synchronous)
        try:
            await database.read(partial(check_durable, synchronous=synchronous))
            await database.write(check_version if is_visit else migrate)
            sync_folder(path.parent)
        except (SQLAlchemyError, OSError) as error:
            await database.close()
            reason = getattr(error, "orig", None) or error
            raise LedgerError("unusable_database", f"{path} cannot be used as a ledger: {reason}") from None
        except LedgerError:
            await database.close()
            raise
        return database

    async def read(self, query: Callable[[Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reading, _transact, self.readers, query)

    async def write(self, change: Callable[[Connection], T], forget: Callable[[], None] = nothing) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writing, _transact, self.writer, change)

    async def find_owner(self) -> str | None:
        return await asyncio.get_running_loop().run_in_executor(self._reading, owner_of, self._path)

    async def close(self) -> None:
        self._reading.shutdown()
        self._writing.shutdown()
        self.readers.dispose()
        self.writer.dispose()
        if self._lock is not None:
            self._lock.close()


def _transact(engine: Engine, work: Callable[[Connection], T]) -> T:
    with engine.begin() as connection:
        return work(connection)


def take_lock(path: Path) -> IO[str]:
    """The open lock file beside a database; LedgerError (locked) names the process that has it."""
    try:
        file = path.with_name(path.name + ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise LedgerError("unusable_database", f"{path} cannot be used as a ledger: {error.strerror}") from None
    if (owner := _locked_by(file)) is not None:
        file.close()
        raise LedgerError("locked", f"{path} is in use by {owner}: stop it, or name another file")
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def owner_of(path: Path) -> str | None:
    """The process that has the lock beside a database, in words; None for none."""
    try:
        with path.with_name(path.name + ".lock").open("r", encoding="utf-8") as file:
            return _locked_by(file)
    except FileNotFoundError:
        return None


def _locked_by(file: IO[str]) -> str | None:
    """Who has this lock file; None where it is ours now, for as long as the file stays open."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        return f"process {file.read(20).strip() or 'unknown'}"
    return None


def sync_folder(folder: Path) -> None:
    """Make the names of new files durable too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _engine(path: Path, synchronous: str, *, reads: bool) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        pool_size=MAX_READERS if reads else 1,
        max_overflow=0,
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
    )
    settings = ["journal_mode=WAL", f"synchronous={synchronous}", "fullfsync=ON", "checkpoint_fullfsync=ON"]
    settings += ["foreign_keys=ON", "recursive_triggers=ON", "journal_size_limit=67108864", "trusted_schema=OFF"]
    if reads:
        settings.append("query_only=ON")

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver opens no transactions of its own
        cursor = connection.cursor()
        for setting in settings:
            cursor.execute(f"PRAGMA {setting}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def check_durable(connection: Connection, *, synchronous: str) -> None:
    """Raises LedgerError (unusable_database) where a commit could be lost."""
    mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
    level = connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
    if mode != "wal" or level != SYNCHRONOUS[synchronous]:
        has = f"journal_mode={mode}, synchronous={level}"
        raise LedgerError("unusable_database", f"the database is not durable: {has}; WAL and FULL (2) were asked for")
