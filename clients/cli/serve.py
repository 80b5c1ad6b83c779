"""`tokenauction serve`: model, ledger, house and app put together, and served until somebody says stop."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import sys
import tempfile
import time
import webbrowser
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import tokenauction
from tokenauction.clients.cli.broker import BrokerChoice, broker_of
from tokenauction.clients.cli.compose import ModelChoice, new_decoder, policy_for, prompts_for
from tokenauction.clients.cli.output import one_line
from tokenauction.clients.cli.presets import load_presets
from tokenauction.clients.cli.settings import ServeSettings
from tokenauction.engine.errors import InvalidInput
from tokenauction.engine.money import to_micros
from tokenauction.engine.policy import Policy
from tokenauction.engine.spec import AuctionSpec
from tokenauction.models.base import LanguageModel
from tokenauction.server.app import App, AppSettings
from tokenauction.server.auth import Doorkeeper
from tokenauction.server.house import House
from tokenauction.server.ledger import Ledger
from tokenauction.server.listener import listen
from tokenauction.server.log import write_log
from tokenauction.server.pages import Pages
from tokenauction.server.serving import Limits, serve
from tokenauction.server.telemetry import Telemetry

if TYPE_CHECKING:
    from tokenauction.server.traces import Traces

MAX_ROWS = 64
PLAY_MICROS = 100_000_000  # of every new account on a server that anybody on this machine may use
ROOT = Path(tokenauction.__file__).parent
PAGE_FOLDERS = {"page": ROOT / "server" / "web", "client": ROOT / "clients" / "web"}


@dataclass(frozen=True)
class ServerChoice:
    """What the options say of a server."""

    app: AppSettings
    limits: Limits
    is_open: bool  # no token is asked for
    play_micros: int
    shows_page: bool = False  # in the browser of whoever started it, if there is one
    traces: Traces | None = None
    broker: BrokerChoice | None = None  # that is told everything, and brings bids


def serve_forever(settings: ServeSettings) -> None:
    """Load the model, then serve; returns after a drain. Raises InvalidInput for an open door to the world."""
    write_log(sys.stderr, settings.log_format, settings.log_level)
    is_open = is_loopback(settings.host) if settings.auth is None else not settings.auth
    if is_open and not is_loopback(settings.host):
        how = "make tokens with: tokenauction token create"
        raise InvalidInput(f"--no-auth is for 127.0.0.1, not {settings.host}; {how}")
    app = AppSettings(settings.origin, presets=load_presets(settings.presets))
    play_micros = PLAY_MICROS if is_open else 0
    if settings.play_money is not None:
        play_micros = to_micros(settings.play_money, "--play-money")
    broker = broker_of(settings)
    model = model_of(settings).load(max_rows=MAX_ROWS)
    traces = _traces() if settings.traces else None
    choice = ServerChoice(app, Limits(settings.drain_seconds), is_open, play_micros, traces=traces, broker=broker)
    asyncio.run(_serve(settings.host, settings.port, settings.ledger.get_secret_value(), model, choice))


def model_of(settings: ServeSettings) -> ModelChoice:
    """The model that the settings choose."""
    return ModelChoice(settings.model, settings.runner, settings.numerics, settings.cache_gib)


def demo_on_a_page(choice: ModelChoice, port: int = 0) -> None:
    """Serve the page on 127.0.0.1 until Ctrl-C, with play money and a ledger that is thrown away."""
    logging.getLogger("tokenauction.server").setLevel(logging.WARNING)  # who watches the page needs no lines
    model = choice.load(max_rows=MAX_ROWS)
    app = AppSettings(presets=load_presets(None))
    settings = ServerChoice(app, Limits(drain_seconds=5), True, PLAY_MICROS, shows_page=True)
    with tempfile.TemporaryDirectory(prefix="tokenauction-") as folder:
        ledger = Path(folder) / "ledger.db"
        asyncio.run(_serve("127.0.0.1", port, str(ledger), model, settings))


async def _serve(host: str, port: int, ledger_url: str, model: LanguageModel, choice: ServerChoice) -> None:
    ledger = await Ledger.open(ledger_url)
    try:
        listener = listen(host, port)
    except OSError as error:
        await ledger.close()
        raise InvalidInput(f"{host}:{port} cannot be listened on: {error.strerror or error}") from None

    def prepare(spec: AuctionSpec) -> tuple[list[list[int]], Policy]:
        return prompts_for(spec, model.tokenizer), policy_for(spec, model.tokenizer)

    house = House(
        new_decoder(model),
        prepare,
        ledger,
        play_micros=choice.play_micros,
        takes_seeds=choice.is_open,
        telemetry=Telemetry(choice.traces),
    )
    doorkeeper = Doorkeeper(ledger, is_open=choice.is_open, entropy=os.urandom, clock=time.time)
    app = App(house, doorkeeper, choice.app, Pages.of(PAGE_FOLDERS))
    try:
        companions = [choice.broker.companion(app.context)] if choice.broker else []
        ready = partial(_say_ready, shows_page=choice.shows_page)
        await serve(house, app, listener, limits=choice.limits, on_ready=ready, companions=companions)
    finally:
        if choice.traces is not None:
            choice.traces.close()


def _traces() -> Traces:
    """Spans that go by OTLP; imported here alone, so that nobody else waits for it."""
    try:
        from tokenauction.server.traces import Traces, otlp_provider
    except ImportError:
        raise InvalidInput("--traces needs OpenTelemetry: pip install 'tokenauction[otel]'") from None
    return Traces(otlp_provider())


def _say_ready(url: str, *, shows_page: bool) -> None:
    print(one_line(f"serving on {url} (stop with Ctrl-C: what runs is finished first)"), flush=True)
    has_screen = sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ))
    if shows_page and has_screen:  # without one, a browser would take the terminal over
        webbrowser.open(url)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
