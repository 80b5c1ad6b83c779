"""Connections to PostgreSQL: made by URL, checked for durability, and told apart by how they fail.

What a URL says goes to asyncpg as it stands, so that it means what PostgreSQL's own programs take it for; a password in
it is in no message.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import DBAPIError

from tokenauction.server.ledger_error import LedgerError

CONNECT_SECONDS = 10.0
COMMAND_SECONDS = 30.0  # for a statement of the writer; behind it the connection counts as lost
OLDEST = 13  # version of PostgreSQL
SESSION = {  # a peer that vanished without a word is noticed, on both sides
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "idle_in_transaction_session_timeout": "30s",
}
CONFLICTS = ("40001", "40P01", "23505")  # serialization failure, deadlock; both wrote a row that was not there
LOST = ("57P01", "57P02", "57P03", "57P05", "25P03")  # shutting down, crashed, starting up, timed out
STARTING = "57P03"
REMEDIES = {
    "3D000": "make it with CREATE DATABASE",
    "28P01": "give the password in PGPASSWORD or a password file",
    "28000": "let pg_hba.conf admit this role from here",
    "42501": "let the role own the database",
    "53300": "raise max_connections, or let somebody go",
}


@dataclass(frozen=True)
class Address:
    """Where a database is, and how it is called where people can read it."""

    dsn: str = field(repr=False)  # with the password, if there is one
    name: str

    @classmethod
    def of(cls, parts: URL) -> Address:
        """The address in a URL of PostgreSQL."""
        host = parts.host or _first(parts.query.get("host")) or "its local socket"
        place = f"{host}:{parts.port}" if parts.port else host
        name = f"the PostgreSQL ledger {parts.database or ''} at {place}".replace("  ", " ")
        return cls(parts.render_as_string(hide_password=False), name)

    async def connect(self, *, command_seconds: float | None) -> asyncpg.Connection[Any]:
        """A connection; raises what asyncpg does, but nothing that shows the URL."""
        name = f"tokenauction {socket.gethostname()}/{os.getpid()}"
        settings = {**SESSION, "application_name": name[:63]}
        try:
            return await asyncpg.connect(
                self.dsn, timeout=CONNECT_SECONDS, command_timeout=command_seconds, server_settings=settings
            )
        except (ValueError, asyncpg.ClientConfigurationError):
            raise LedgerError("unusable_database", f"the URL of {self.name} has an option that cannot be") from None


def _first(value: str | tuple[str, ...] | None) -> str | None:
    return value[0] if isinstance(value, tuple) else value


def check_durable(connection: Connection) -> None:
    """Raises LedgerError (unusable_database) where a commit could be lost, or text be kept otherwise."""
    names = ("synchronous_commit", "fsync", "full_page_writes", "server_encoding", "server_version_num")
    columns = ", ".join(f"current_setting('{name}') AS {name}" for name in names)
    query = f"SELECT {columns}, pg_is_in_recovery() AS is_standby, current_schema() AS schema"
    found = connection.execute(text(query)).mappings().one()
    if found["synchronous_commit"] not in ("on", "remote_apply"):
        has = f"synchronous_commit={found['synchronous_commit']}"
        _refuse(f"the database is not durable: {has}; set it to on, for this role or in postgresql.conf")
    for name in ("fsync", "full_page_writes"):
        if found[name] != "on":
            _refuse(f"the database is not durable: {name}={found[name]}; set it to on in postgresql.conf")
    if found["is_standby"]:
        _refuse("this PostgreSQL is a standby, which takes no writes: name the primary")
    if found["server_encoding"] != "UTF8":
        _refuse(f"the database keeps text as {found['server_encoding']}: make one with ENCODING 'UTF8'")
    if int(found["server_version_num"]) < OLDEST * 10_000:
        _refuse(f"this PostgreSQL is older than {OLDEST}")
    if found["schema"] is None:
        _refuse("there is no schema to make tables in: create the first of this role's search_path")
    # From here on this connection keeps what was found, whatever a reload of the server's settings says.
    connection.execute(text(f"SET synchronous_commit = {found['synchronous_commit']}"))


def _refuse(why: str) -> None:
    raise LedgerError("unusable_database", why)


def sqlstate(error: BaseException) -> str:
    """PostgreSQL's code of an error; empty where there is none."""
    return getattr(getattr(error, "orig", error), "sqlstate", None) or ""


def is_conflict(error: BaseException) -> bool:
    """Whether the same transaction may succeed when it is done again."""
    return sqlstate(error) in CONFLICTS


def is_lost(error: BaseException) -> bool:
    """Whether it was the connection that failed, and not what was asked."""
    state = sqlstate(error)
    if state.startswith("08") or state in LOST:
        return True
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or isinstance(error.orig and error.orig.__cause__, asyncpg.InterfaceError)
    return isinstance(error, (ConnectionError, TimeoutError, socket.gaierror, asyncpg.InterfaceError))


def remedy_of(error: BaseException) -> str:
    """What to do about a database that cannot be opened; empty where nobody knows."""
    return REMEDIES.get(sqlstate(error)) or ("see that it runs there" if is_lost(error) else "")


def reason_of(error: BaseException) -> str:
    """What went wrong, in one line."""
    original = getattr(error, "orig", None)
    cause = getattr(original, "__cause__", None) or original or error
    return str(cause).partition("\n")[0] or type(cause).__name__
