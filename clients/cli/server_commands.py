"""The commands around a server: serve, create, watch, agent, doctor, token, ledger; each hands over to its file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tokenauction.clients.cli.settings import ServeSettings

Url = Annotated[
    str, typer.Option(help="The server. A token is read from TOKENAUCTION_TOKEN.", envvar="TOKENAUCTION_URL")
]
LedgerUrl = Annotated[
    str | None,
    typer.Option(
        help="A file, or postgresql://USER@HOST/DATABASE; the one that `serve` would take, if left out.",
        envvar="TOKENAUCTION_LEDGER",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One event a line.")]
# Options that are settings are read when they are needed: pydantic takes as long to import as all other commands do.
BY_SETTINGS: dict[str, Any] = {
    "add_help_option": False,
    "context_settings": {"ignore_unknown_options": True, "allow_extra_args": True},
}
SERVER = "http://127.0.0.1:8400"

token_app = typer.Typer(help="Access tokens.", no_args_is_help=True)
ledger_app = typer.Typer(help="Look into a ledger, or bring money in.", no_args_is_help=True)


def add_commands(app: typer.Typer) -> None:
    """Put the commands of this file into an app."""
    for command in (create, watch, agent, openrtb):
        app.command()(command)
    for by_settings in (serve, doctor):
        app.command(**BY_SETTINGS)(by_settings)
    app.add_typer(token_app, name="token")
    app.add_typer(ledger_app, name="ledger")


def serve(context: typer.Context) -> None:
    """Serve auctions: a page, live streams, remote bidders, a ledger. Ctrl-C finishes what runs, then stops."""
    from tokenauction.clients.cli.setting_flags import run_by_settings

    run_by_settings(context, _serve, serve.__doc__)


def _serve(settings: ServeSettings) -> None:
    from tokenauction.clients.cli.serve import serve_forever

    serve_forever(settings)


def doctor(context: typer.Context) -> None:
    """Look at what `serve` would need here, with the same options; exit code 1 where something is missing."""
    from tokenauction.clients.cli.setting_flags import run_by_settings

    run_by_settings(context, _examine, doctor.__doc__)


def _examine(settings: ServeSettings) -> None:
    from tokenauction.clients.cli.doctor import examine

    if not examine(settings):
        raise typer.Exit(1)


def create(
    spec: Annotated[Path, typer.Argument(help="The auction, as YAML.", show_default=False)],
    url: Url = SERVER,
    join_ms: Annotated[int, typer.Option(help="How long other agents may join.", min=0, max=60_000)] = 0,
    token_ms: Annotated[int, typer.Option(help="Rest behind every token.", min=0, max=10_000)] = 0,
    own_models: Annotated[bool, typer.Option("--own-models", help="Those who join may bring their models.")] = False,
    tmax_token_ms: Annotated[int, typer.Option(help="How long to wait for their models.", min=1, max=10_000)] = 100,
    commit_reveal: Annotated[
        bool, typer.Option("--commit-reveal", help="Record what they say before each draw.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the id and leave.")] = False,
    json: Json = False,
) -> None:
    """Begin an auction on a server and watch it."""
    from tokenauction.clients.cli.remote import create as create_auction

    request = {"tmax_join_ms": join_ms, "token_ms": token_ms, "tmax_token_ms": tmax_token_ms}
    request |= {"own_models": own_models, "commit_reveal": commit_reveal}
    create_auction(url, spec, request, is_quiet=quiet, as_json=json)


def watch(
    auction_id: Annotated[str, typer.Argument(show_default=False)],
    url: Url = SERVER,
    after_seq: Annotated[int, typer.Option(help="Begin behind this event.", min=-1)] = -1,
    json: Json = False,
) -> None:
    """Watch an auction of a server as it is written, or as it was."""
    from tokenauction.clients.cli.remote import watch as watch_auction

    watch_auction(url, auction_id, after_seq, as_json=json)


def agent(
    auction_id: Annotated[str, typer.Argument(show_default=False)],
    agent_id: Annotated[str, typer.Argument(show_default=False)],
    bid: Annotated[str, typer.Option(help="Per token, in the auction's currency.")],
    url: Url = SERVER,
    strategy: Annotated[
        str, typer.Option(help="fixed, decreasing, budget-paced, name-first or name-contest.")
    ] = "fixed",
    budget: Annotated[str | None, typer.Option(help="For the whole text; it is held.")] = None,
    name: Annotated[str | None, typer.Option(help="The brand; with --offer, the brief of one who joins.")] = None,
    offer: Annotated[str | None, typer.Option(help="What it offers.")] = None,
    rival: Annotated[list[str] | None, typer.Option(help="For name-contest; may be repeated.")] = None,
    mqtt: Annotated[str | None, typer.Option(help="Bid by way of this broker, without the server's URL.")] = None,
    mqtt_ca: Annotated[Path | None, typer.Option(help="Who vouches for the broker, for mqtts.")] = None,
) -> None:
    """Bid for one advertiser in an auction of a server."""
    from tokenauction.clients.cli.remote import bid as bid_in
    from tokenauction.clients.cli.remote import strategy_of

    brief = None if name is None or offer is None else (name, offer)
    chosen = strategy_of(strategy, bid, name, rival or [])
    bid_in(url, auction_id, agent_id, chosen, budget, brief, broker=None if mqtt is None else (mqtt, mqtt_ca))


def openrtb(
    auction_id: Annotated[str, typer.Argument(show_default=False)],
    agent_id: Annotated[str, typer.Argument(show_default=False)],
    bidder: Annotated[str, typer.Option(help="Where an OpenRTB 2.6 bidder takes bid requests by POST.")],
    url: Url = SERVER,
    notice_host: Annotated[
        list[str] | None, typer.Option(help="Whose nurl, burl and lurl are called, besides the bidder's; repeatable.")
    ] = None,
    test: Annotated[bool, typer.Option("--test", help="Tell the bidder that this is a test.")] = False,
) -> None:
    """Let an existing OpenRTB bidder take part in an auction: ask it once, and bid for it."""
    from tokenauction.clients.cli.remote import represent

    represent(url, auction_id, agent_id, bidder, notice_host or [], is_test=test)


def _place(ledger: str | None) -> str:
    """Where the ledger is: as was said, or by the environment and the file that `serve` reads."""
    if ledger is not None:
        return ledger
    from tokenauction.clients.cli.settings import ServeSettings

    return ServeSettings.load({}).ledger.get_secret_value()


@token_app.command("create")
def token_create(
    scope: Annotated[list[str], typer.Option(help="watch, chat, bid, metrics or admin; may be repeated.")],
    agent_id: Annotated[str | None, typer.Option(help="The one agent it may act for.")] = None,
    days: Annotated[float | None, typer.Option(help="Until it expires.", min=0.001, max=3650)] = None,
    ledger: LedgerUrl = None,
) -> None:
    """Make an access token; its secret is shown once."""
    from tokenauction.clients.cli.ledger import create_token

    create_token(_place(ledger), scope, agent_id, days)


@token_app.command("list")
def token_list(ledger: LedgerUrl = None) -> None:
    """Every token, the newest first, a line of JSON each; never a secret."""
    from tokenauction.clients.cli.ledger import list_tokens

    list_tokens(_place(ledger))


@token_app.command("rotate")
def token_rotate(
    token_id: Annotated[str, typer.Argument(help="tok_…", show_default=False)], ledger: LedgerUrl = None
) -> None:
    """Replace a token by one that allows the same; what the old one had opened closes."""
    from tokenauction.clients.cli.ledger import rotate_token

    rotate_token(_place(ledger), token_id)


@token_app.command("revoke")
def token_revoke(
    token_id: Annotated[str, typer.Argument(help="tok_…", show_default=False)], ledger: LedgerUrl = None
) -> None:
    """Revoke a token: it opens nothing any more, and what it had opened closes."""
    from tokenauction.clients.cli.ledger import revoke_token

    revoke_token(_place(ledger), token_id)


@ledger_app.command("balances")
def ledger_balances(ledger: LedgerUrl = None) -> None:
    """What every account has; the sum is zero."""
    from tokenauction.clients.cli.ledger import balances

    balances(_place(ledger))


@ledger_app.command("entries")
def ledger_entries(
    account: Annotated[str | None, typer.Argument(help="All accounts if left out.")] = None, ledger: LedgerUrl = None
) -> None:
    """Every entry, a line of JSON each."""
    from tokenauction.clients.cli.ledger import entries

    entries(_place(ledger), account)


@ledger_app.command("export")
def ledger_export(
    output: Annotated[Path, typer.Argument(help="A file.", show_default=False)], ledger: LedgerUrl = None
) -> None:
    """Write every entry into a file, a line of JSON each."""
    from tokenauction.clients.cli.ledger import export

    export(_place(ledger), output)


@ledger_app.command("audit")
def ledger_audit(ledger: LedgerUrl = None) -> None:
    """Check that every transfer sums to zero and every chain holds; exit code 1 where something does not."""
    from tokenauction.clients.cli.ledger import audit

    if not audit(_place(ledger)):
        raise typer.Exit(1)


@ledger_app.command("deposit")
def ledger_deposit(
    account: Annotated[str, typer.Argument(show_default=False)],
    amount: Annotated[str, typer.Argument(help="In currency.", show_default=False)],
    reference: Annotated[str | None, typer.Option(help="The same reference counts once.")] = None,
    ledger: LedgerUrl = None,
) -> None:
    """Bring money in for an account."""
    from tokenauction.clients.cli.ledger import deposit

    deposit(_place(ledger), account, amount, reference)
