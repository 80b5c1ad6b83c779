"""`tokenauction create`, `watch` and `agent`: what one does to a server from a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

from tokenauction.clients.agent import Agent
from tokenauction.clients.cli.broker import address_of
from tokenauction.clients.cli.output import one_line, print_json, visible
from tokenauction.clients.cli.spec_file import load_spec
from tokenauction.clients.client import Client, Event, ServerError, Unreachable
from tokenauction.clients.openrtb import BidderFailed, OpenRtbBidder
from tokenauction.clients.strategies import BudgetPaced, Decreasing, Fixed, NameContest, NameFirst, Strategy
from tokenauction.engine.errors import InvalidInput, TokenAuctionError
from tokenauction.engine.money import from_micros, to_micros

if TYPE_CHECKING:
    from tokenauction.clients.mqtt_agent import MqttAgent

TOKEN_VARIABLE = "TOKENAUCTION_TOKEN"
MAX_RECEIPT = 2**28  # bytes


class RemoteError(TokenAuctionError):
    """The server refused, or was not there; code and message are its own."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def client_for(url: str) -> Client:
    """A client with the token of the environment: on a command line, others could read it."""
    if not url.startswith(("http://", "https://")):
        raise InvalidInput(f"--url is {url!r}; it begins with http:// or https://")
    return Client(url, os.environ.get(TOKEN_VARIABLE) or None, give_up=15.0)


def create(url: str, spec: Path, request: Mapping[str, Any], *, is_quiet: bool, as_json: bool) -> None:
    """Begin an auction from a spec file and what a server is asked beside it; then show it, or only say its id."""
    source = {**load_spec(spec, {}).to_mapping(), **request}
    asyncio.run(_guard(_create(client_for(url), source, is_quiet=is_quiet, as_json=as_json)))


def watch(url: str, auction_id: str, after_seq: int, *, as_json: bool) -> None:
    """Show an auction as it is written."""
    asyncio.run(_guard(_show(client_for(url).watch(auction_id, after_seq), as_json=as_json)))


def bid(
    url: str,
    auction_id: str,
    agent_id: str,
    strategy: Strategy,
    budget: str | None,
    brief: tuple[str, str] | None,
    broker: tuple[str, Path | None] | None = None,
) -> None:
    """Run one agent to the end of an auction and say what came of it; `broker` is its URL and who vouches for it."""
    name, offer = brief or (None, None)
    own: dict[str, Any] = {"name": name, "offer": offer}
    own["budget_micros"] = None if budget is None else to_micros(budget, "--budget")
    if broker is None:
        agent: Agent | MqttAgent = Agent(client_for(url), agent_id, strategy, **own)
    else:
        agent = _agent_at(broker, agent_id, strategy, own)
    asyncio.run(_guard(_bid(agent, auction_id)))


def _agent_at(broker: tuple[str, Path | None], agent_id: str, strategy: Strategy, own: Mapping[str, Any]) -> MqttAgent:
    """Imported here alone, since the package that it takes need not be there."""
    address = address_of(broker[0], os.environ.get("TOKENAUCTION_MQTT_PASSWORD") or None, ca=broker[1])
    from tokenauction.clients.mqtt_agent import MqttAgent

    return MqttAgent(address, agent_id, strategy, token=os.environ.get(TOKEN_VARIABLE) or None, give_up=15.0, **own)


def represent(
    url: str, auction_id: str, agent_id: str, endpoint: str, notice_hosts: list[str], *, is_test: bool
) -> None:
    """Ask an OpenRTB bidder, take part for it, and say what came of it."""
    try:
        bidder = OpenRtbBidder(client_for(url), agent_id, endpoint, notice_hosts=notice_hosts, is_test=is_test)
    except ValueError as error:
        raise InvalidInput(str(error)) from None
    asyncio.run(_guard(_represent(bidder, auction_id)))


def strategy_of(kind: str, bid_amount: str, name: str | None, rivals: list[str]) -> Strategy:
    """The strategy of this name; InvalidInput where there is none, or it needs a name."""
    micros = to_micros(bid_amount, "--bid")
    if kind in ("name-first", "name-contest") and not name:
        raise InvalidInput(f"--strategy {kind} watches for a name: give --name")
    made: dict[str, Strategy] = {
        "fixed": Fixed(micros),
        "decreasing": Decreasing(micros),
        "budget-paced": BudgetPaced(micros),
        "name-first": NameFirst(name or "", micros),
        "name-contest": NameContest(name or "", tuple(rivals), micros),
    }
    if kind not in made:
        raise InvalidInput(f"--strategy is {kind!r}; choose one of {', '.join(made)}")
    return made[kind]


def fetch_receipt(url: str, auction_id: str) -> str:
    """The receipt of an auction as its server has it: JSON lines. Raises RemoteError."""
    client = client_for(url)
    headers = {} if client.token is None else {"Authorization": f"Bearer {client.token}"}
    address = f"{client.url}/v1/auctions/{quote(auction_id, safe='')}/receipt"
    try:
        with urlopen(Request(address, headers=headers), timeout=30) as answer:
            text: str = answer.read(MAX_RECEIPT).decode("utf-8")
            return text
    except HTTPError as error:
        try:
            fault = json.loads(error.read(10_000))["error"]
            code, message = str(fault["code"]), str(fault["message"])
        except (ValueError, KeyError, TypeError):
            code, message = "http", f"the server answered with {error.code}"
        raise RemoteError(code, message) from None
    except OSError as error:
        raise RemoteError("unreachable", f"{client.url} cannot be reached: {error}") from None


async def _create(client: Client, source: Mapping[str, Any], *, is_quiet: bool, as_json: bool) -> None:
    if is_quiet:
        print((await client.begin(source))["auction_id"])
        return
    await _show(client.create(source), as_json=as_json)


async def _show(events: AsyncIterator[Event], *, as_json: bool) -> None:
    """Every event as a line of JSON, or the text as it grows and the bill on stderr."""
    num_shown = 0
    async for event in events:
        if as_json:
            print_json(event)
            continue
        if event["type"] == "auction.accepted":
            print(event["auction_id"], file=sys.stderr)
        elif event["type"] == "auction.token":
            print(visible(event["text"]), end="", flush=True)
            num_shown += len(event["text"])
        elif event["type"] == "stream.reset":
            print("\n[the server was restarted; the text goes on from its last durable token]", file=sys.stderr)
        elif event["type"] == "error":
            print(f"error ({event['code']})", file=sys.stderr)
        elif event["type"] == "payment.posted":
            print(one_line(f"{event['agent_id']}: {event['total']} {event['currency']}"), file=sys.stderr)
        elif event["type"] == "auction.settled":
            print(visible(event["text"][num_shown:]))


async def _bid(agent: Agent | MqttAgent, auction_id: str) -> None:
    outcome = await agent.run(auction_id)
    print(visible(outcome.text))
    fared = outcome.outcome + (f" ({outcome.loss_reason})" if outcome.loss_reason else "")
    line = f"{agent.agent_id}: {fared}; paid {from_micros(outcome.paid_micros)}; "
    line += f"{len(outcome.bids)} bids changed it; {outcome.finish_reason}"
    print(one_line(line), file=sys.stderr)


async def _represent(bidder: OpenRtbBidder, auction_id: str) -> None:
    came = await bidder.run(auction_id)
    if came.offer is None or came.outcome is None:
        reason = "" if came.no_bid_reason is None else f" (no-bid reason {came.no_bid_reason})"
        print(f"the bidder takes no part{reason}", file=sys.stderr)
        return
    print(visible(came.outcome.text))
    line = f"{bidder.agent_id}: bid {from_micros(came.offer.bid_micros)} per token for {came.offer.name!r}, "
    line += f"paid {from_micros(came.outcome.paid_micros)}; {came.outcome.finish_reason}; {len(came.called)} notices"
    print(one_line(line), file=sys.stderr)


async def _guard(work: Any) -> None:
    """What goes wrong at the server becomes one line."""
    try:
        await work
    except ServerError as error:
        raise RemoteError(error.code, str(error)) from None
    except Unreachable as error:
        raise RemoteError("unreachable", str(error)) from None
    except BidderFailed as error:
        raise RemoteError("bidder_failed", str(error)) from None
