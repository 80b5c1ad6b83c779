"""Who may write a ledger in PostgreSQL: one session, which has an advisory lock and stands in the table `writer`.

The lock belongs to the connection that writes and ends with it, so that a server that is gone keeps nobody away. The
row has the session that wrote last, and counts its commits: each transaction adds one, and is refused where another
session has taken over. After a lost connection, the count says whether the last commit was made.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sqlalchemy import Boolean, CheckConstraint, Column, Connection, MetaData, Table, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenauction.server import tables
from tokenauction.server.ledger_error import LedgerError

WAIT_SECONDS = 2.0  # for a lock whose server has just ended
POLL_SECONDS = 0.05
TAKEN_OVER = "another server has taken the ledger over"
KEY = "hashtextextended('tokenauction/ledger/' || current_schema(), 0)"  # one ledger a schema
OWNER = f"""
    SELECT concat(activity.application_name, ' (process ', activity.pid, ' of PostgreSQL, connected since ',
                  date_trunc('second', activity.backend_start), ')')
    FROM pg_locks AS locks JOIN pg_stat_activity AS activity USING (pid)
    WHERE locks.locktype = 'advisory' AND locks.granted AND locks.objsubid = 1
      AND locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND ((locks.classid::bigint << 32) | locks.objid::bigint) = {KEY}
"""

LEASES = MetaData()
writer = Table(
    "writer",
    LEASES,
    Column("the_one", Boolean, CheckConstraint("the_one"), primary_key=True),
    Column("session", tables.text, nullable=False),
    Column("num_commits", tables.whole, nullable=False),
)


def owner_of(connection: Connection) -> str | None:
    """Who has the lock of this connection's ledger, in words; None where nobody has."""
    owner: str | None = connection.execute(text(OWNER)).scalar()
    return owner


@dataclass
class Lease:
    """The right of one server to write one ledger."""

    session: str  # nobody else's
    num_commits: int = 0
    backend: tuple[int, str] | None = None  # the process of PostgreSQL that has the lock: id and start

    async def take_lock(self, connection: AsyncConnection, name: str) -> None:
        """Lock the ledger of this name for this connection; LedgerError (locked) says who has it."""
        deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
        while not await self._try_lock(connection):
            if asyncio.get_running_loop().time() > deadline:
                owner = await connection.run_sync(owner_of) or "somebody who has just left"
                await connection.rollback()
                raise LedgerError("locked", f"{name} is in use by {owner}: stop it, or name another ledger")
            await asyncio.sleep(POLL_SECONDS)

    def begin(self, connection: Connection) -> None:
        """From this transaction on, this session writes."""
        row = {"the_one": True, "session": self.session, "num_commits": 0}
        connection.execute(insert(writer).values(row).on_conflict_do_update(index_elements=["the_one"], set_=row))

    def count(self, connection: Connection) -> None:
        """Count the commit that follows; LedgerError (failed) where another session writes by now."""
        mine = (writer.c.session == self.session, writer.c.num_commits == self.num_commits)
        counted = update(writer).where(*mine).values(num_commits=self.num_commits + 1)
        if connection.execute(counted).rowcount != 1:
            raise LedgerError("failed", TAKEN_OVER)

    async def resume(self, connection: AsyncConnection) -> bool:
        """Take the lock again on a new connection; whether the commit that was in doubt was made.

        Waits for the lock as long as the caller does. Raises LedgerError (failed) where another session writes by now,
        or what was committed is not there.
        """
        if self.backend is not None:
            pid, started = self.backend
            mine = "FROM pg_stat_activity WHERE pid = :pid AND backend_start::text = :started"
            end = text(f"SELECT pg_terminate_backend(pid) {mine}")
            await connection.execute(end, {"pid": pid, "started": started})
            await connection.commit()
        while not await self._try_lock(connection):
            await self._read_count(connection)
            await asyncio.sleep(POLL_SECONDS)
        num_commits = await self._read_count(connection)
        if num_commits < self.num_commits:
            lost = self.num_commits - num_commits
            raise LedgerError("failed", f"{lost} commits that were acknowledged are gone: was a standby promoted?")
        is_made = num_commits > self.num_commits
        self.num_commits = num_commits
        return is_made

    async def _read_count(self, connection: AsyncConnection) -> int:
        row = (await connection.execute(select(writer.c.session, writer.c.num_commits))).one()
        await connection.rollback()
        if row.session != self.session:
            raise LedgerError("failed", TAKEN_OVER)
        return int(row.num_commits)

    async def _try_lock(self, connection: AsyncConnection) -> bool:
        is_mine = (await connection.execute(text(f"SELECT pg_try_advisory_lock({KEY})"))).scalar_one()
        own = "SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        if is_mine:
            pid, started = (await connection.execute(text(own))).one()
            self.backend = (pid, started)
        await connection.rollback()  # the lock is the session's: it stays
        return bool(is_mine)
