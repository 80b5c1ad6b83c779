"""`tokenauction doctor`: what a server with these settings would find here, line by line, with a remedy where it lacks.

It changes nothing: no ledger is made, none is migrated.
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

import tokenauction
from tokenauction.clients.cli.broker import broker_of
from tokenauction.clients.cli.compose import use_threads
from tokenauction.clients.cli.output import one_line
from tokenauction.clients.cli.presets import load_presets
from tokenauction.clients.cli.serve import MAX_ROWS, is_loopback, model_of
from tokenauction.clients.cli.settings import ServeSettings, strangers
from tokenauction.engine.errors import TokenAuctionError
from tokenauction.models.base import ModelError
from tokenauction.models.compiler import find_compiler
from tokenauction.server.ledger import Ledger, LedgerError
from tokenauction.server.ledger_url import file_of
from tokenauction.server.listener import listen

OK, NOTE, BAD = "ok", "note", "bad"
LITTLE_SPACE = 2**30  # bytes; an auction of 200 tokens writes half a megabyte


@dataclass(frozen=True)
class Finding:
    """One line; `bad` keeps a server from starting."""

    level: str
    says: str


Check = Callable[[ServeSettings], Iterator[Finding]]


def examine(settings: ServeSettings) -> bool:
    """Print what is found; whether a server could start."""
    is_good = True
    for name, check in CHECKS.items():
        for finding in _findings(check, settings):
            print(f"{finding.level:<5} {name:<12} {one_line(finding.says)}", flush=True)
            is_good = is_good and finding.level != BAD
    print("a server can start" if is_good else "a server cannot start before what is bad is mended", flush=True)
    return is_good


def _findings(check: Check, settings: ServeSettings) -> Iterator[Finding]:
    try:
        yield from check(settings)
    except (TokenAuctionError, ModelError, OSError) as error:
        yield Finding(BAD, str(error))


def _versions(_: ServeSettings) -> Iterator[Finding]:
    yield Finding(OK, f"tokenauction {tokenauction.__version__}, Python {platform.python_version()}")


def _environment(_: ServeSettings) -> Iterator[Finding]:
    for name in strangers():
        yield Finding(NOTE, f"{name} is no setting: nothing reads it; see tokenauction serve --help")


def _threads(_: ServeSettings) -> Iterator[Finding]:
    use_threads()
    cores, computing = os.cpu_count() or 1, torch.get_num_threads()
    yield Finding(OK, f"torch {torch.__version__}: the model computes on {computing} of {cores} cores")
    if cores == 1:
        yield Finding(NOTE, "one core: model, receipts and streams take turns; a second one makes tokens come earlier")
    if os.environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
        yield Finding(NOTE, "idle threads spin: set OMP_WAIT_POLICY=PASSIVE in the environment")


def _compiler(_: ServeSettings) -> Iterator[Finding]:
    compiler = find_compiler()
    if compiler is None:
        yield Finding(NOTE, "no C++ compiler, so the slower runner packed: install g++ or clang++, or let CXX name one")
    else:
        yield Finding(OK, " ".join(compiler))


def _model(settings: ServeSettings) -> Iterator[Finding]:
    started = time.perf_counter()
    model = model_of(settings).load(max_rows=MAX_ROWS)
    seconds = time.perf_counter() - started
    yield Finding(OK, f"{model.name} loads in {seconds:.1f} s: runner {model.runner}, {model.numerics}, {model.device}")


def _presets(settings: ServeSettings) -> Iterator[Finding]:
    yield Finding(OK, f"{len(load_presets(settings.presets).by_name)} to offer")


def _ledger(settings: ServeSettings) -> Iterator[Finding]:
    url = settings.ledger.get_secret_value()
    try:
        said = asyncio.run(_visit(url))
    except LedgerError as error:
        if error.code != "no_ledger":
            raise
        said = Finding(OK, "none yet: the server makes it")
    yield said
    if (path := file_of(url)) is not None:
        folder = path.absolute().parent
        if not os.access(folder, os.W_OK):
            yield Finding(BAD, f"{folder} cannot be written: make it, or choose another place by --ledger")
        elif (free := shutil.disk_usage(folder).free) < LITTLE_SPACE:
            yield Finding(NOTE, f"{folder} has {free >> 20} MiB left: a server ends when its disk is full")


async def _visit(url: str) -> Finding:
    ledger = await Ledger.open(url, is_visit=True)
    try:
        num_open = len(await ledger.open_auctions())
        if (owner := await ledger.find_owner()) is not None:
            return Finding(NOTE, f"in use by {owner}: stop it before another server starts on it")
        return Finding(OK, f"durable, of this version, nobody's; {num_open} auctions to go on with")
    finally:
        await ledger.close()


def _port(settings: ServeSettings) -> Iterator[Finding]:
    try:
        listen(settings.host, settings.port).close()
    except OSError as error:
        why = error.strerror or error
        yield Finding(BAD, f"{settings.host}:{settings.port} cannot be listened on: {why}; choose another by --port")
        return
    yield Finding(OK, f"{settings.host}:{settings.port} is free")
    if settings.auth is False and not is_loopback(settings.host):
        yield Finding(BAD, f"--no-auth is for 127.0.0.1, not {settings.host}")


def _mqtt(settings: ServeSettings) -> Iterator[Finding]:
    broker = broker_of(settings)
    if broker is not None:
        try:
            asyncio.run(broker.knock())
        except OSError as error:
            why = f"no broker at {broker.address}, without which auctions run all the same"
            yield Finding(NOTE, f"{why}: {error}")
        else:
            yield Finding(OK, f"{broker.address} takes us in")


CHECKS: dict[str, Check] = {
    "versions": _versions,
    "environment": _environment,
    "threads": _threads,
    "compiler": _compiler,
    "presets": _presets,
    "ledger": _ledger,
    "port": _port,
    "mqtt": _mqtt,
    "model": _model,
}
