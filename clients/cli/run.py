"""`tokenauction run` and `tokenauction demo`: one auction, shown as it is written."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tokenauction.clients.cli.candidates_view import CandidatesView
from tokenauction.clients.cli.compose import EXAMPLES, AuctionFailed, ModelChoice, new_decoder, prepare, rows_of
from tokenauction.clients.cli.output import check_target, one_line, print_json
from tokenauction.clients.cli.spec_file import load_spec
from tokenauction.clients.cli.view import RichView
from tokenauction.engine.auction import LIVE
from tokenauction.engine.decoder import Decoder
from tokenauction.engine.errors import InvalidInput
from tokenauction.engine.events import Event
from tokenauction.engine.receipt import Line, write_receipt
from tokenauction.engine.spec import AuctionSpec

EXIT_FAILED = 1


class View(Protocol):
    """Whatever shows the events of one auction."""

    def show(self, event: Event) -> None:
        """Show one more event."""

    def close(self) -> None:
        """Nothing more comes."""


class JsonlView:
    """One event a line: what a program reads."""

    def show(self, event: Event) -> None:
        print_json(event.to_mapping())

    def close(self) -> None:
        sys.stdout.flush()


class TextView:
    """The text as it grows, then the bill on stderr."""

    def __init__(self) -> None:
        self.num_printed = 0  # characters

    def show(self, event: Event) -> None:
        fields = event.fields
        if event.type == "auction.token":
            self._print(fields["text"])
        elif event.type == "error":
            print(f"error ({fields['code']}): {one_line(fields['message'])}", file=sys.stderr)
        elif event.type == "auction.settled":
            self._print(fields["text"][self.num_printed :] + "\n")
            for agent in fields["agents"]:
                print(f"{agent['id']}: {agent['total']} {fields['currency']}", file=sys.stderr)

    def close(self) -> None:
        sys.stdout.flush()

    def _print(self, text: str) -> None:
        print(text, end="", flush=True)
        self.num_printed += len(text)


def demo(seed: int, receipt: Path | None, pace: float, model: ModelChoice, *, softmax: bool = False) -> None:
    """The Hawaii example, live; `pace` seconds per token on a terminal, full speed elsewhere.

    With `softmax` whole texts of it compete.
    """
    spec = load_spec(EXAMPLES / ("softmax.yaml" if softmax else "hawaii.yaml"), {"seed": seed})
    run(spec, "rich", receipt, model, pace=pace if sys.stdout.isatty() else 0.0)


def run(
    spec: AuctionSpec,
    view_name: str,
    receipt: Path | None,
    model: ModelChoice,
    *,
    store_distributions: bool = False,
    pace: float = 0.0,
) -> None:
    """Run one auction to its end and show it; exits with 1 if it fails after its first token.

    Whoever stops it (Ctrl-C, a closed pipe) still owes what was written: the auction is cancelled, settled, and its
    receipt written. Raises AuctionFailed where it fails before its first token: then the input was at fault.
    """
    check_target("--receipt", receipt)
    if store_distributions and spec.finalizer is not None:
        raise InvalidInput("--store-distributions is for token auctions; verify --model computes a softmax one again")
    decoder = new_decoder(model.load(max_rows=rows_of(spec)), store_distributions=store_distributions)
    performance = prepare(decoder, spec)
    auction = performance.auction
    decoder.enqueue(performance)
    rich_view = RichView if spec.finalizer is None else CandidatesView
    view: View = {"rich": rich_view, "text": TextView, "jsonl": JsonlView}[view_name]()
    try:
        settled = asyncio.run(_play(decoder, view, pace))
    except (KeyboardInterrupt, BrokenPipeError):
        if auction.state in LIVE:
            decoder.cancel(auction.auction_id)
            decoder.step()
        if receipt is not None:
            _write_receipt(receipt, performance.recorder.receipt)
        raise
    finally:
        view.close()
    if receipt is not None:
        _write_receipt(receipt, performance.recorder.receipt)
        if view_name == "rich":
            print(f"receipt: {receipt} (check it with: tokenauction verify {receipt})")
    if settled.fields["finish_reason"] == "error":
        sys.exit(EXIT_FAILED)


def _write_receipt(path: Path, lines: Sequence[Line]) -> None:
    try:
        write_receipt(path, lines)
    except OSError as error:
        raise InvalidInput(f"--receipt: {path} cannot be written: {error.strerror}") from None


async def _play(decoder: Decoder, view: View, pace: float) -> Event:
    """Show every event; return the last one. Only programs are shown an auction that fails before its first token."""
    held: list[Event] = []
    num_tokens = 0
    async for event in decoder.run():
        num_tokens += event.type in ("auction.token", "candidates.progress")
        if event.type == "error" and num_tokens == 0:
            if isinstance(view, JsonlView):
                for early in [*held, event]:
                    view.show(early)
            raise AuctionFailed(event.fields["message"], event.fields["code"])
        held.append(event)
        if num_tokens or event.type == "auction.settled":
            for shown in held:
                view.show(shown)
            held.clear()
        if pace and event.type == "auction.token":
            await asyncio.sleep(pace)
    return event
