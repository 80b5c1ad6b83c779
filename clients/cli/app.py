"""The commands and their options; each hands over to the file of its name.

A command imports that file when it is called: torch takes seconds, and neither --help nor a mistyped option needs it.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from tokenauction import __version__
from tokenauction.clients.cli.options import (
    CacheGib,
    Model,
    Numerics,
    ReceiptFile,
    Runner,
    SpecFile,
    StoreDistributions,
)
from tokenauction.clients.cli.output import abandon_stdout, one_line, prepare_streams, show_log
from tokenauction.clients.cli.server_commands import add_commands
from tokenauction.clients.cli.study_commands import add_study_commands
from tokenauction.engine.errors import InvalidInput, TokenAuctionError

if TYPE_CHECKING:
    from tokenauction.models.base import ModelError

DEMO_SEED = 12  # its text names both brands, as most seeds do
EXIT_BAD_INPUT = 2
EXIT_CLOSED_PIPE = 1  # as typer exits where the pipe closes inside a command

# ClickException, from which every complaint about options and arguments descends; some versions of typer bring their
# own copy of click, and its name is all that these have in common.
_USAGE_ERROR: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

app = typer.Typer(
    name="tokenauction",
    help="Several advertisers' language models write one text, token by token, and pay for it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="Look at checkpoints.", no_args_is_help=True)
app.add_typer(models_app, name="models")


class RunFormat(StrEnum):
    """How `run` shows an auction."""

    rich = "rich"
    text = "text"
    jsonl = "jsonl"


def run_app() -> None:
    """Run the command line; expected errors become one line on stderr and exit code 2."""
    prepare_streams()
    show_log()
    try:
        try:
            exit_code = app(prog_name="tokenauction", standalone_mode=False)
        finally:
            sys.stdout.flush()  # a full disk or a closed pipe shows itself here, while it can be answered
        sys.exit(exit_code)
    except SystemExit:
        raise  # so that the last clause, which imports torch to know the models' errors, is not looked at
    except _USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the whole help
            print(error.format_message())
            sys.exit(EXIT_BAD_INPUT)
        _refuse(error.format_message(), "usage")
    except OSError as error:
        abandon_stdout()
        if isinstance(error, BrokenPipeError):  # the reader of a pipe, such as `head`, has seen enough
            sys.exit(EXIT_CLOSED_PIPE)
        _refuse(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", "os_error")
    except _expected_errors() as error:
        _refuse(str(error), error.code)


def _expected_errors() -> tuple[type[TokenAuctionError], type[ModelError]]:
    from tokenauction.models.base import ModelError

    return TokenAuctionError, ModelError


def _refuse(message: str, code: str) -> NoReturn:
    print(f"error ({code}): {one_line(message)}", file=sys.stderr)
    sys.exit(EXIT_BAD_INPUT)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    """Several advertisers' language models write one text, token by token, and pay for it."""
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def demo(
    seed: Annotated[int, typer.Option(help="Another seed, another ad.")] = DEMO_SEED,
    receipt: ReceiptFile = None,
    pace: Annotated[
        float, typer.Option(help="Seconds per token, so that one can watch; 0 for full speed.", min=0, max=60)
    ] = 0.12,
    runner: Runner = "auto",
    numerics: Numerics = "auto",
    web: Annotated[bool, typer.Option("--web", help="On a page in the browser, to steer it and look into it.")] = False,
    softmax: Annotated[bool, typer.Option("--softmax", help="Whole texts compete: the softmax auction.")] = False,
) -> None:
    """Watch Alpha Airlines and Beta Resort write one ad about Hawaii together."""
    from tokenauction.clients.cli.compose import ModelChoice
    from tokenauction.clients.cli.run import demo as run_demo

    if web:
        from tokenauction.clients.cli.serve import demo_on_a_page

        if receipt is not None:
            raise InvalidInput("--receipt is for the terminal; with --web the page has receipts to download")
        demo_on_a_page(ModelChoice(None, runner, numerics))
        return
    run_demo(seed, receipt, pace, ModelChoice(None, runner, numerics), softmax=softmax)


@app.command()
def run(
    spec: SpecFile,
    format: Annotated[
        RunFormat, typer.Option(help="Live view, plain text, or one JSON event a line.")
    ] = RunFormat.rich,
    receipt: ReceiptFile = None,
    store_distributions: StoreDistributions = False,
    model: Model = None,
    runner: Runner = "auto",
    numerics: Numerics = "auto",
    cache_gib: CacheGib = 2.0,
    seed: Annotated[str | None, typer.Option(help="Whole number from 0 to 2^256 - 1; drawn if left out.")] = None,
    rule: Annotated[str | None, typer.Option(help="linear or log_linear.")] = None,
    sampler: Annotated[str | None, typer.Option(help="coupled or race.")] = None,
    pricing: Annotated[str | None, typer.Option(help="critical_bid, expected, kl_clarke, first_price or free.")] = None,
    bid: Annotated[list[str] | None, typer.Option(help="AGENT=AMOUNT per token; may be repeated.")] = None,
    reference_weight: Annotated[str | None, typer.Option(help="Weight of the house model; 0 for none.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of every agent's own distribution.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Each agent's k likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Each agent's likeliest tokens up to this mass.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest text.")] = None,
    max_sentences: Annotated[int | None, typer.Option(help="Stop after so many sentences.")] = None,
    top_tokens: Annotated[int | None, typer.Option(help="Likeliest tokens of every distribution, per event.")] = None,
    allow_unsafe: Annotated[bool, typer.Option(help="Allow what carries no guarantee; recorded.")] = False,
    mechanism: Annotated[str | None, typer.Option(help="token, or softmax: whole texts compete.")] = None,
    num_candidates: Annotated[int | None, typer.Option(help="Texts that compete, under softmax.")] = None,
    proposal: Annotated[
        str | None, typer.Option(help="reference, context_aware or token_auction: who writes them.")
    ] = None,
    tau: Annotated[str | None, typer.Option(help="What moving the text a nat must be worth, under softmax.")] = None,
    show_candidates: Annotated[bool, typer.Option(help="Show the texts that compete.")] = False,
) -> None:
    """Run one auction."""
    given = {
        "seed": None if seed is None else _whole_number("--seed", seed),
        "rule": rule,
        "sampler": sampler,
        "pricing": pricing,
        "reference_weight": reference_weight,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "max_tokens": max_tokens,
        "max_sentences": max_sentences,
        "top_tokens": top_tokens,
        "allow_unsafe": allow_unsafe or None,
        "mechanism": mechanism,
        "num_candidates": num_candidates,
        "proposal": proposal,
        "tau": tau,
        "show_candidates": show_candidates or None,
    }
    overrides = {name: value for name, value in given.items() if value is not None}
    from tokenauction.clients.cli.compose import ModelChoice
    from tokenauction.clients.cli.run import run as run_auction
    from tokenauction.clients.cli.spec_file import load_spec

    loaded = load_spec(spec, overrides, _bids(bid or []))
    choice = ModelChoice(model, runner, numerics, cache_gib)
    run_auction(loaded, format.value, receipt, choice, store_distributions=store_distributions)


@app.command()
def verify(
    receipt: Annotated[
        str,
        typer.Argument(
            help="A receipt, as `run --receipt` writes it; an auction's id with --url or --db.", show_default=False
        ),
    ],
    head: Annotated[str | None, typer.Option(help="The published head that the receipt must have.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Run this model again and compare: a folder, a name, or 'default'.")
    ] = None,
    runner: Runner = "auto",
    numerics: Numerics = "auto",
    cache_gib: CacheGib = 2.0,
    url: Annotated[str | None, typer.Option(help="Ask this server for the receipt.")] = None,
    db: Annotated[str | None, typer.Option(help="Read it from this ledger, and pin the head that was settled.")] = None,
) -> None:
    """Check a receipt: chain, seed, draws, critical bids, payments, totals. Exit code 1 if it does not hold."""
    from tokenauction.clients.cli.compose import ModelChoice
    from tokenauction.clients.cli.verify import Source, verify_receipt

    choice = None if model is None else ModelChoice(_source(model), runner, numerics, cache_gib)
    verify_receipt(Source(receipt, url, db), head, choice)


@models_app.command("list")
def models_list() -> None:
    """The checkpoints that are here."""
    from tokenauction.clients.cli.models import list_models

    list_models()


@models_app.command("check")
def models_check(
    model: Annotated[str, typer.Argument(help="A folder or hub name.")] = "default",
    runner: Runner = "auto",
    numerics: Numerics = "auto",
) -> None:
    """Load a checkpoint, say what it is, and write one sentence with it."""
    from tokenauction.clients.cli.compose import ModelChoice
    from tokenauction.clients.cli.models import check_model

    check_model(ModelChoice(_source(model), runner, numerics))


add_study_commands(app)
add_commands(app)


def _source(model: str) -> str | None:
    return None if model == "default" else model


def _whole_number(option: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidInput(f"{option} is {text!r}; it must be a whole number") from None


def _bids(options: list[str]) -> dict[str, Any]:
    bids = {}
    for option in options:
        agent, separator, amount = option.rpartition("=")
        if not separator or not agent:
            raise InvalidInput(f"--bid is {option!r}; write AGENT=AMOUNT, as in --bid alpha=0.002")
        bids[agent] = amount
    return bids
