"""A whole run over real sockets: three remote bidders, an owner and the public watching, a ledger, a receipt.

    python examples/three_bidders.py

Starts a server on the shipped model that asks for tokens. Each bidder joins as its own agent; one of them doubles its
bid when it has seen token 5. Then everybody's numbers are compared: what the bids did to the shares of each token, and
who says that how much was paid. Exit code 0 where all of it agrees.
"""

import asyncio
import signal
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tokenauction.clients.agent import Agent
from tokenauction.clients.bidder import Outcome
from tokenauction.clients.client import Client, Event
from tokenauction.clients.strategies import Fixed, Sight, Strategy
from tokenauction.engine.receipt import parse_receipt
from tokenauction.engine.verification import verify
from tokenauction.server.ledger import Ledger

CLI = ("-c", "from tokenauction.clients.cli import main; main()")
BRIEFS = {
    "alpha": ("Alpha Airlines", "flights to Hawaii"),
    "beta": ("Beta Resort", "a quiet beach resort"),
    "gamma": ("Gamma Tours", "guided walks"),
}
BID, FUNDS, DOUBLED_BEHIND = 2_000, 5_000_000, 5  # micros per token, micros in each account, a token
SPEC = {"query": "Vacations in Hawaii", "agents": [], "max_tokens": 48, "tmax_join_ms": 1_500, "token_ms": 60}
MAX_TEXTS = 10  # until one is long enough


class DoubledBehind:
    def bid(self, sight: Sight) -> int:
        return BID if sight.num_tokens <= DOUBLED_BEHIND else 2 * BID


@asynccontextmanager
async def running_server(ledger: Path) -> AsyncIterator[str]:
    command = (*CLI, "serve", "--auth", "--port", "0", "--ledger", str(ledger))
    server = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    assert server.stdout is not None
    try:
        yield (await server.stdout.readline()).decode().split()[2]
    finally:
        server.send_signal(signal.SIGTERM)
        await server.wait()


async def watch(client: Client, auction_id: str) -> list[Event]:
    return [event async for event in client.watch(auction_id) if "seq" in event]


async def run_auction(url: str, secrets: dict[str, str]) -> tuple[dict[str, Outcome], list[Event], list[Event]]:
    """What the bidders, the owner and the public have seen of one auction."""
    owner = Client(url, secrets["owner"])
    auction_id = (await owner.begin(SPEC))["auction_id"]
    strategies: dict[str, Strategy] = {"alpha": DoubledBehind(), "beta": Fixed(BID), "gamma": Fixed(BID)}
    agents = [
        Agent(Client(url, secrets[name]), name, strategies[name], budget_micros=500_000, name=brand, offer=offer)
        for name, (brand, offer) in BRIEFS.items()
    ]
    bidding = asyncio.gather(*(agent.run(auction_id) for agent in agents))
    watching = asyncio.gather(watch(owner, auction_id), watch(Client(url, secrets["public"]), auction_id))
    outcomes, (seen, public) = await bidding, await watching
    return dict(zip(BRIEFS, outcomes, strict=True)), seen, public


def share_with(token: Event, bid_micros: int) -> float:
    """Alpha's share of a token had it bid so much: b p / Σ b p."""
    weights = {agent["id"]: agent["effective_bid_micros"] * (agent["probability"] or 0) for agent in token["agents"]}
    alpha = next(agent for agent in token["agents"] if agent["id"] == "alpha")
    weights["alpha"] = bid_micros * (alpha["probability"] or 0)
    return float(weights["alpha"] / sum(weights.values()))


def check_shares(tokens: list[Event], step: int) -> dict[str, bool]:
    """Shares follow the old bid up to the step that the answer names, and the new one from there on."""
    own = [next(agent for agent in token["agents"] if agent["id"] == "alpha") for token in tokens]
    print(
        f"alpha doubled its bid when it had seen token {DOUBLED_BEHIND}; the answer: it counts from token {step} on\n"
    )
    print("token            bid    share of alpha    with the old bid    text")
    for token, agent in zip(tokens, own, strict=True):
        numbers = f"{agent['bid_micros']:>6}    {agent['influence']:.6f}          {share_with(token, BID):.6f}"
        print(f"{token['step']:>5}         {numbers}            {token['text']!r}")
    before, after = own[:step], own[step:]
    return {
        "earlier tokens are priced by the old bid": all(agent["bid_micros"] == BID for agent in before)
        and all(abs(a["influence"] - share_with(t, BID)) < 1e-9 for a, t in zip(before, tokens, strict=False)),
        "later ones by the new bid, from the next token on": all(agent["bid_micros"] == 2 * BID for agent in after)
        and all(abs(a["influence"] - share_with(t, 2 * BID)) < 1e-9 for a, t in zip(after, tokens[step:], strict=True))
        and any(a["influence"] > share_with(t, BID) for a, t in zip(after, tokens[step:], strict=True)),
    }


def check_totals(
    outcomes: dict[str, Outcome], seen: list[Event], public: list[Event], change: dict[str, int], lines: list[Any]
) -> dict[str, bool]:
    """Everybody says the same of what was paid, to the micro."""
    last = seen[-1]
    owner = {agent["id"]: agent["total_micros"] for agent in last["agents"]}
    rows = zip(lines[0]["rows"], lines[-1]["totals_micros"], strict=True)
    said = {
        "bidders (payment.posted)": {name: outcome.paid_micros for name, outcome in outcomes.items()},
        "owner (auction.settled)": owner,
        "owner (last token)": {agent["id"]: agent["total_micros"] for agent in seen[-2]["agents"]},
        "ledger (balances)": {name: -change[name] for name in BRIEFS},
        "receipt": dict(rows),
    }
    print("\npaid, in micros" + " " * 15 + "".join(f"{name:>10}" for name in BRIEFS))
    for who, totals in said.items():
        print(f"{who:<30}" + "".join(f"{totals[name]:>10}" for name in BRIEFS))
    verdict = verify(lines, head=last["receipt_head"])
    print(f"\nverify: {verdict}")
    for name, outcome in outcomes.items():
        print(f"{name}: {outcome.outcome} {outcome.num_tokens_won} tokens {outcome.loss_reason or ''}".rstrip())
    seqs = [[event["seq"] for event in events] for events in (seen, public)]
    return {
        "all totals agree": all(totals == owner for totals in said.values())
        and change["@house"] == sum(owner.values()),
        "the ledger's accounts sum to zero": sum(change.values()) == 0 and change["@held"] == 0,
        "the receipt holds": verdict.holds,
        "owner and public see every event": seqs[0] == seqs[1] == list(range(len(seen))),
        "the public sees the same text and no agent's number": public[-1]["text"] == last["text"]
        and not any(event.get("agents") for event in public),
    }


async def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        ledger = await Ledger.open(f"sqlite:///{path}")
        secrets = {name: (await ledger.create_token(["bid"], name))[1] for name in BRIEFS}
        for name, scope in (("owner", "admin"), ("public", "watch")):
            secrets[name] = (await ledger.create_token([scope]))[1]
        for name in BRIEFS:
            await ledger.deposit(name, FUNDS, f"funds of {name}")
        await ledger.close()
        async with running_server(path) as url:
            for _ in range(MAX_TEXTS):
                before = await balances(path)
                outcomes, seen, public = await run_auction(url, secrets)
                doubled = outcomes["alpha"].bids
                if doubled and doubled[0][0] < seen[-1]["num_tokens"]:
                    break
                print(f"a text of {seen[-1]['num_tokens']} tokens is too short for this; another one\n")
            after = await balances(path)
            lines = await asyncio.to_thread(receipt, url, secrets["owner"], seen[0]["auction_id"])
        tokens = [event for event in seen if event["type"] == "auction.token"]
        change = {name: after[name] - before[name] for name in after}
        checks = check_shares(tokens, doubled[0][0]) | check_totals(outcomes, seen, public, change, lines)
    print()
    for what, holds in checks.items():
        print(f"{'yes' if holds else 'NO '}  {what}")
    return 0 if all(checks.values()) else 1


async def balances(path: Path) -> dict[str, int]:
    """As a command beside the server reads them."""
    ledger = await Ledger.open(f"sqlite:///{path}", is_visit=True)
    try:
        return await ledger.balances()
    finally:
        await ledger.close()


def receipt(url: str, secret: str, auction_id: str) -> list[Any]:
    request = urllib.request.Request(
        f"{url}/v1/auctions/{auction_id}/receipt", headers={"Authorization": f"Bearer {secret}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return parse_receipt(answer.read().decode().splitlines())


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
