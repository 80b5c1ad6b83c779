"""The database under the ledger, whichever it is: one writer at a time, many readers, each in a transaction of its own.

What a write returned is durable; durability is checked when a database opens, never assumed. It must not know what the
tables mean.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from tokenauction.server.ledger_error import LedgerError

MAX_READERS = 4  # transactions that read at a time; others wait
MIGRATIONS = Path(__file__).parent / "migrations"

T = TypeVar("T")


def nothing() -> None:
    """There is nothing to forget."""


class Database(ABC):
    """An open database; every method is called on the event loop that it was opened on."""

    writer: Engine  # of the transactions that write

    @abstractmethod
    async def read(self, query: Callable[[Connection], T]) -> T:
        """What `query` finds in one snapshot of what is durable; it may be called again."""

    @abstractmethod
    async def write(self, change: Callable[[Connection], T], forget: Callable[[], None] = nothing) -> T:
        """What `change` returns, in a transaction that is durable by then; an error undoes it all.

        Where the database asks for it, `change` is called again in a new transaction. Then `forget` is called first:
        what is remembered of the tables may not be what they hold.
        """

    @abstractmethod
    async def find_owner(self) -> str | None:
        """Who has the right to write as a server, in words; None where nobody has."""

    @abstractmethod
    async def close(self) -> None:
        """Give everything back when what was begun has ended; the right to write last."""


def check_version(connection: Connection) -> None:
    """Raises LedgerError (no_ledger, unusable_database) unless the tables are those of this version."""
    head = ScriptDirectory(str(MIGRATIONS)).get_current_head()
    found = MigrationContext.configure(connection).get_current_revision()
    if found is None:
        raise LedgerError("no_ledger", "there is no ledger in this database: start the server once")
    if found != head:
        said = f"version {found}; this program has {head}"
        raise LedgerError("unusable_database", f"the ledger has {said}: start the server once, or use its own program")


def migrate(connection: Connection) -> None:
    """Bring the tables up to date, all in this transaction; LedgerError (unusable_database) for those of a later
    version."""
    scripts = ScriptDirectory(str(MIGRATIONS))
    found = MigrationContext.configure(connection).get_current_revision()
    if found == scripts.get_current_head():
        return
    if found is not None and found not in {script.revision for script in scripts.walk_revisions()}:
        raise LedgerError("unusable_database", f"the ledger has version {found}, which a later program wrote: use that")
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    command.upgrade(config, "head")
