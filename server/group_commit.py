"""Group commit: many writers' jobs in one transaction, so that they share the wait for the disk.

A transaction begins as soon as an urgent job waits, or 32 jobs do, or one has waited for 50 ms; it takes whatever waits
by then. A job learns how it went when the transaction is durable. One that raises LedgerError has written nothing and
spoils nothing; any other error, and one of the commit, fails all jobs, now and later: what was acknowledged is on the
disk, and whoever opens the database again finds it. It must not know what a job does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection

from tokenauction.server.database import Database
from tokenauction.server.ledger_error import LedgerError

MAX_WAIT_SECONDS = 0.05
ENOUGH_JOBS = 32  # that are worth a transaction of their own
MAX_BATCH = 4_096  # jobs in one transaction
MAX_WAITING = 65_536  # jobs

T = TypeVar("T")
Job = Callable[[Connection], T]


@dataclass(eq=False)
class _Waiting:
    job: Job[Any]
    answer: asyncio.Future[Any]
    since: float  # loop time


class GroupCommit:
    """Writes to one database; every method is called on the event loop it was made on.

    A job runs wherever the database does, and may run again: what it changes, it changes by its connection alone.
    """

    def __init__(
        self, database: Database, before_commit: Callable[[Connection], None], forget: Callable[[], None]
    ) -> None:
        """`before_commit` is called at the end of every transaction, with its connection; `forget` where the database
        does one again, before its jobs are."""
        self._database = database
        self._before_commit = before_commit
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        self.watchers: list[Callable[[float, int], None]] = []  # told of every transaction: its seconds, its writes
        self._performed_at = 0.0  # when the last transaction's jobs were done: what is left is its commit
        self._waiting: deque[_Waiting] = deque()
        self._has_some = asyncio.Event()
        self._is_due = asyncio.Event()
        self._is_closing = False
        self.failure: asyncio.Future[None] = self._loop.create_future()  # has the error that ended all writing
        self._failure: LedgerError | None = None
        self._task = self._loop.create_task(self._run())

    def submit(self, job: Job[T], *, is_urgent: bool) -> asyncio.Future[T]:
        """Queue a job behind all others; the future has its result when that is durable.

        It raises LedgerError: the job's own, or capacity, closed or failed.
        """
        answer: asyncio.Future[T] = self._loop.create_future()
        if refusal := self._refusal():
            answer.set_exception(refusal)
            return answer
        self._waiting.append(_Waiting(job, answer, self._loop.time()))
        self._has_some.set()
        if is_urgent or len(self._waiting) >= ENOUGH_JOBS:
            self._is_due.set()
        return answer

    @property
    def num_waiting(self) -> int:
        """Jobs that wait for a transaction."""
        return len(self._waiting)

    async def close(self) -> None:
        """Write what waits, and end; nothing is taken any more."""
        self._is_closing = True
        self._has_some.set()
        self._is_due.set()
        await self._task

    def _refusal(self) -> LedgerError | None:
        if self._failure is not None:
            return self._failure
        if self._is_closing:
            return LedgerError("closed", "the ledger is closed")
        if len(self._waiting) >= MAX_WAITING:
            return LedgerError("capacity", f"{MAX_WAITING} writes wait for the disk, which is the limit")
        return None

    async def _run(self) -> None:
        while self._failure is None:
            await self._has_some.wait()
            if not self._waiting:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._waiting[0].since + MAX_WAIT_SECONDS):
                    await self._is_due.wait()
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
            if not self._waiting:
                self._is_due.clear()
                if not self._is_closing:
                    self._has_some.clear()
            await self._write(batch)

    async def _write(self, batch: Sequence[_Waiting]) -> None:
        try:
            outcomes = await self._database.write(partial(self._perform, batch=batch), self._forget)
        except Exception as error:  # noqa: BLE001  # whatever it is, those who wait must hear of it
            reason = str(error).partition("\n")[0]
            self._failure = LedgerError("failed", f"the ledger cannot be written any more: {reason}")
            self._failure.__cause__ = error
            self.failure.set_exception(self._failure)
            self.failure.exception()  # whoever waits for nothing but his own write need not look
            outcomes = [(waiting, None, self._failure) for waiting in (*batch, *self._waiting)]
            self._waiting.clear()
        else:
            for told in self.watchers:
                told(self._loop.time() - self._performed_at, len(batch))
        for waiting, value, refusal in outcomes:
            if waiting.answer.done():
                continue  # nobody waits for it any more
            if refusal is None:
                waiting.answer.set_result(value)
            else:
                waiting.answer.set_exception(refusal)

    def _perform(
        self, connection: Connection, batch: Sequence[_Waiting]
    ) -> list[tuple[_Waiting, Any, LedgerError | None]]:
        outcomes: list[tuple[_Waiting, Any, LedgerError | None]] = []
        for waiting in batch:
            try:
                outcomes.append((waiting, waiting.job(connection), None))
            except LedgerError as refusal:
                outcomes.append((waiting, None, refusal))
        self._before_commit(connection)
        self._performed_at = self._loop.time()
        return outcomes
