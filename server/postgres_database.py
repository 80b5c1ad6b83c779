"""PostgreSQL under the ledger: one connection that writes, serialisable, and a few that read.

    another writer was in the way    the transaction is done again; from the second time on, others wait for it
    the connection is lost           it is sought for RECONNECT_SECONDS, while writes wait; what was being committed is
                                     there, by the lease's count, or is done again
    it is not found, or another      the ledger fails: nothing more is acknowledged, and the server that starts next
    server has taken over            goes on from what is durable

A visit, beside a server, takes no lease: for it a lost connection is an error.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from tokenauction.server.database import MAX_READERS, Database, check_version, migrate, nothing
from tokenauction.server.ledger_error import LedgerError
from tokenauction.server.loop_thread import LoopThread
from tokenauction.server.postgres_connection import (
    COMMAND_SECONDS,
    STARTING,
    Address,
    check_durable,
    is_conflict,
    is_lost,
    reason_of,
    remedy_of,
    sqlstate,
)
from tokenauction.server.postgres_lease import Lease, owner_of

RECONNECT_SECONDS = 30.0
RETRY_SECONDS = 0.1
MAX_ATTEMPTS = 16  # of one transaction that others are in the way of, or that breaks its connection
ALONE = "LOCK TABLE transfers IN SHARE ROW EXCLUSIVE MODE"  # first, so that the snapshot is of behind it

T = TypeVar("T")

log = logging.getLogger("tokenauction.server")


class PostgresDatabase(Database):
    """An open database of PostgreSQL, on an event loop of its own.

    A transaction is several statements, and each is an answer to wait for: on the server's loop, each would wait for
    whoever writes to watchers, too.
    """

    def __init__(self, address: Address, lease: Lease | None, synchronous: str) -> None:
        """Use `open`."""
        self._address = address
        self._lease = lease
        self._is_fenced = False
        self.reconnect_seconds = RECONNECT_SECONDS
        self._synchronous = synchronous
        self._writers = self._engine(COMMAND_SECONDS, isolation_level="SERIALIZABLE", poolclass=NullPool)
        reads = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._readers = self._engine(
            None, execution_options=reads, pool_size=MAX_READERS, max_overflow=0, pool_timeout=None
        )
        self.writer = self._writers.sync_engine
        self._connection: AsyncConnection | None = None
        self._thread = LoopThread("tokenauction-ledger")

    @classmethod
    async def open(cls, parts: URL, *, is_visit: bool, synchronous: str) -> PostgresDatabase:
        """Connect, check and migrate; a visit takes no lease and migrates nothing.

        Raises LedgerError (locked, no_ledger, unusable_database).
        """
        address = Address.of(parts)
        database = cls(address, None if is_visit else Lease(uuid.uuid4().hex), synchronous)
        try:
            await database._thread.run(database._begin())
        except Exception as error:
            await database.close()
            if isinstance(error, LedgerError):
                raise
            if not isinstance(error, (DBAPIError, OSError)) and not sqlstate(error):
                raise
            said = "; ".join(filter(None, (reason_of(error), remedy_of(error))))
            raise LedgerError("unusable_database", f"{address.name} cannot be used: {said}") from None
        return database

    async def _begin(self) -> None:
        async with asyncio.timeout(RECONNECT_SECONDS):
            while self._connection is None:
                try:
                    self._connection = await self._connect()
                except Exception as error:
                    if sqlstate(error) != STARTING:
                        raise
                    await asyncio.sleep(RETRY_SECONDS)
        if self._lease is None:
            return await self._write(check_version, nothing)
        await self._lease.take_lock(self._connection, self._address.name)
        await self._write(migrate, nothing)
        await self._write(self._lease.begin, nothing)
        self._is_fenced = True

    async def read(self, query: Callable[[Connection], T]) -> T:
        return await self._thread.run(self._read(query))

    async def write(self, change: Callable[[Connection], T], forget: Callable[[], None] = nothing) -> T:
        return await self._thread.run(self._write(change, forget))

    async def find_owner(self) -> str | None:
        return await self.read(owner_of)

    async def close(self) -> None:
        try:
            await self._thread.run(self._close())
        finally:
            self._thread.stop()

    async def _read(self, query: Callable[[Connection], T]) -> T:
        deadline = asyncio.get_running_loop().time() + self.reconnect_seconds
        while True:
            try:
                async with self._readers.begin() as connection:
                    return await connection.run_sync(query)
            except Exception as error:
                if not is_lost(error):
                    raise
                if asyncio.get_running_loop().time() > deadline or self._lease is None:
                    raise self._failed(error) from error
            await asyncio.sleep(RETRY_SECONDS)

    async def _write(self, change: Callable[[Connection], T], forget: Callable[[], None]) -> T:
        num_conflicts = num_losses = 0
        while True:
            values: list[T] = []  # what `change` returned, where it did
            try:
                await self._transact(change, values, is_alone=num_conflicts > 0)
                return values[0]
            except Exception as error:
                forget()
                if is_conflict(error) and num_conflicts + 1 < MAX_ATTEMPTS:
                    num_conflicts += 1
                elif not is_lost(error):
                    raise
                elif not self._is_fenced or (num_losses := num_losses + 1) == MAX_ATTEMPTS:
                    raise self._failed(error) from error
                elif await self._reconnect(error):
                    change = partial(_known, values[0])  # a commit behind it says that a standby has it, too

    async def _close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
        await self._readers.dispose()
        await self._writers.dispose()

    async def _transact(self, change: Callable[[Connection], T], values: list[T], *, is_alone: bool) -> None:
        assert self._connection is not None, "it is there from `open` on"
        async with self._connection.begin():
            if is_alone:
                await self._connection.exec_driver_sql(ALONE)
            values.append(await self._connection.run_sync(change))
            if self._is_fenced and self._lease is not None:
                await self._connection.run_sync(self._lease.count)
        if self._is_fenced and self._lease is not None:
            self._lease.num_commits += 1

    async def _reconnect(self, cause: Exception) -> bool:
        """Find the database again; whether the commit that was in doubt was made. LedgerError (failed)."""
        assert self._connection is not None and self._lease is not None, "only a server goes on"
        log.warning("the ledger's connection is lost (%s); writes wait for it", reason_of(cause))
        try:
            async with asyncio.timeout(self.reconnect_seconds):
                while True:
                    await self._let_go()
                    try:
                        self._connection = await self._connect()
                        is_made = await self._lease.resume(self._connection)
                    except Exception as error:
                        is_other = isinstance(error, LedgerError) and error.code == "unusable_database"  # yet a standby
                        if not is_lost(error) and not is_other:
                            raise
                        cause = error
                        await asyncio.sleep(RETRY_SECONDS)
                    else:
                        log.warning("the ledger's connection is back; nothing is lost")
                        return is_made
        except TimeoutError:
            raise self._failed(cause) from cause

    async def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.invalidate()
            await connection.close()

    async def _connect(self) -> AsyncConnection:
        connection = await self._writers.connect()
        try:
            if self._synchronous == "FULL":
                await connection.run_sync(check_durable)
            else:
                await connection.exec_driver_sql("SET synchronous_commit = off")
            await connection.commit()
        except BaseException:
            await connection.close()
            raise
        return connection

    def _engine(self, command_seconds: float | None, **options: Any) -> AsyncEngine:
        connect = partial(self._address.connect, command_seconds=command_seconds)
        return create_async_engine("postgresql+asyncpg://", async_creator=connect, **options)

    def _failed(self, error: Exception) -> LedgerError:
        return LedgerError("failed", f"{self._address.name} is lost: {reason_of(error)}")


def _known(value: T, _: Connection) -> T:
    return value
