"""A PostgreSQL of the tests' own: a child process on a free port, with its files in a temporary folder.

It refuses to run as root; there it runs as `nobody`. It ends with the process that started it, whatever ends that. Its
order of words is a language's, so that a query which takes that for an order of code points is found out.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections import deque
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import URL

USER, PASSWORD = "auctioneer", "s3cret/p@ss:word"
READY = "database system is ready to accept connections"
SETTINGS = {"listen_addresses": "127.0.0.1", "lc_messages": "C", "max_connections": "60", "shared_buffers": "16MB"}


def find_programs() -> Path | None:
    """The folder of `postgres` and `initdb`: on the path, or where Debian puts them; None where there is none."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    folders += sorted(debian, key=lambda folder: int(folder.parent.name.partition(".")[0]), reverse=True)
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


class PostgresServer:
    """One cluster of databases; it may be stopped, killed and started again."""

    def __init__(self, **settings: str) -> None:
        programs = find_programs()
        assert programs is not None, "there is no PostgreSQL here; on Debian: apt-get install postgresql"
        self._programs = programs
        self._settings = {**SETTINGS, **settings}
        self._names = count()
        self.folder = Path(tempfile.mkdtemp(prefix="tokenauction-postgres-"))
        self.port = _free_port()
        self.lines: deque[str] = deque(maxlen=200)  # of its log
        password = self.folder / "password"
        password.write_text(PASSWORD)
        if os.geteuid() == 0:
            for path in (self.folder, password):
                shutil.chown(path, "nobody")
        options = [f"--username={USER}", "--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8", "--no-sync"]
        version = self._run("initdb", "--version").split()[2]  # "initdb (PostgreSQL) 15.18 (Debian …)"
        if int(version.partition(".")[0]) >= 15:
            options += ["--locale-provider=icu", "--icu-locale=en"]
        self._run("initdb", "-D", self.folder / "data", *options, "--locale=C")
        self.start()

    def start(self) -> None:
        """Start it, and wait until it takes connections; in the main thread, with whose end it ends."""
        settings = {**self._settings, "port": str(self.port), "unix_socket_directories": str(self.folder)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = self._command("postgres", "-D", self.folder / "data", *options)
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        ready = threading.Event()
        self._reading = threading.Thread(target=self._read_log, args=(self.process.stderr, ready), daemon=True)
        self._reading.start()
        assert ready.wait(60) and self.process.poll() is None, "\n".join(self.lines)

    def stop(self) -> None:
        """At once, without a last checkpoint: what starts next recovers from the log."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait()
        self._reading.join()

    def kill(self) -> None:
        """SIGKILL for all of it."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in (self.process.pid, *map(int, children)):
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._reading.join()

    def remove(self) -> None:
        """Stop it, and leave nothing behind."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str, *, port: int | None = None, **options: str) -> str:
        """Where a client finds a database, password included."""
        url = URL.create("postgresql", USER, PASSWORD, "127.0.0.1", port or self.port, database, options)
        return url.render_as_string(hide_password=False)

    async def new_database(self) -> str:
        """The name of an empty database."""
        name = f"ledger_{next(self._names)}"
        await self.execute(f"CREATE DATABASE {name}")
        return name

    async def execute(self, *statements: str, database: str = "postgres") -> Any:
        """Statements beside whoever else is there; the rows of the last."""
        connection = await asyncpg.connect(self.url(database))
        try:
            rows: Any = None
            for statement in statements:
                rows = await connection.fetch(statement)
            return rows
        finally:
            await connection.close()

    def _run(self, program: str, *arguments: Any) -> str:
        done = subprocess.run(self._command(program, *arguments), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _command(self, program: str, *arguments: Any) -> list[Any]:
        """It ends with us, and is not root."""
        options = ["--pdeathsig=SIGQUIT"]
        if os.geteuid() == 0:
            options += ["--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        return ["setpriv", *options, "--", self._programs / program, *arguments]

    def _read_log(self, lines: Any, ready: threading.Event) -> None:
        with lines:
            for line in lines:
                self.lines.append(line.rstrip())
                if READY in line:
                    ready.set()
        ready.set()  # it has ended, which the caller sees


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@cache
def shared_postgres() -> PostgresServer:
    """One for all tests of a process; started when first asked for, and removed at its end."""
    server = PostgresServer()
    atexit.register(server.remove)
    return server


def new_url() -> str:
    """The URL of an empty database of the shared server."""
    server = shared_postgres()
    return server.url(asyncio.run(server.new_database()))
