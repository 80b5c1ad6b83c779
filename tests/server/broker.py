"""A real mosquitto for one test, on a free port of 127.0.0.1, and mosquitto_sub as a witness that is not ours."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

LONGEST_SECONDS = 60
MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
needs_mosquitto = pytest.mark.skipif(
    MOSQUITTO is None or shutil.which("mosquitto_sub") is None or shutil.which("stdbuf") is None,
    reason="no mosquitto and mosquitto_sub are installed (Debian: mosquitto, mosquitto-clients)",
)


@dataclass
class Broker:
    """One broker, which can be killed and started again."""

    folder: Path
    port: int
    lines: tuple[str, ...] = ()  # of its configuration, besides where it listens
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start, and return when it listens."""
        assert MOSQUITTO is not None
        configuration = self.folder / "mosquitto.conf"
        own = [
            f"listener {self.port} 127.0.0.1",
            f"user {_user()}",
            "persistence true",
            f"persistence_location {self.folder}/",
        ]
        own += ["autosave_on_changes true", "autosave_interval 1", "set_tcp_nodelay true"]
        configuration.write_text("\n".join([*own, *(self.lines or ("allow_anonymous true",))]) + "\n")
        log = (self.folder / "mosquitto.log").open("ab")
        self.process = await asyncio.create_subprocess_exec(MOSQUITTO, "-c", str(configuration), stdout=log, stderr=log)
        log.close()
        async with asyncio.timeout(LONGEST_SECONDS):
            while not await _listens(self.port):
                assert self.process.returncode is None, (self.folder / "mosquitto.log").read_text()
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """As a crash does it."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@dataclass
class Witness:
    """mosquitto_sub, and what it has printed: topic and payload, in order."""

    process: asyncio.subprocess.Process
    seen: list[tuple[str, Any]] = field(default_factory=list)
    num_subscribed: int = 1  # times, as it comes back to a broker that was away
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self) -> None:
        """Take in every line to the end."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            topic, _, payload = line.decode().rstrip("\n").partition(" ")
            if not topic.startswith("tokenauction/"):  # what it says of itself
                self.num_subscribed += b"received SUBACK" in line
                self._news.set()
                continue
            self.seen.append((topic, json.loads(payload)))
            self._news.set()

    async def until(self, is_there: Callable[[Witness], bool]) -> list[tuple[str, Any]]:
        """What it has seen, once that is true of it."""
        async with asyncio.timeout(LONGEST_SECONDS):
            while not is_there(self):
                self._news.clear()
                await self._news.wait()
        return self.seen


@asynccontextmanager
async def broker_in(folder: Path, *lines: str) -> AsyncIterator[Broker]:
    """A running broker; `lines` are put into its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    broker = Broker(folder, free_port(), lines)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.kill()


@asynccontextmanager
async def witness_of(broker: Broker, topic: str, *options: str) -> AsyncIterator[Witness]:
    """mosquitto_sub, subscribed."""
    command = ["stdbuf", "-oL", "mosquitto_sub", "-h", "127.0.0.1", "-p", str(broker.port), "-V", "mqttv5", "-q", "1"]
    command += ["-t", topic, "-F", "%t %p", "-d", *options]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, limit=2**20
    )
    assert process.stdout is not None
    async with asyncio.timeout(LONGEST_SECONDS):
        while b"received SUBACK" not in await process.stdout.readline():
            assert process.returncode is None
    witness = Witness(process)
    reading = asyncio.create_task(witness.read())
    try:
        yield witness
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


def free_port() -> int:
    """A port that nobody listens on now; a broker that is started again needs the same."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def _user() -> str:
    return "root" if os.geteuid() == 0 else "mosquitto"
