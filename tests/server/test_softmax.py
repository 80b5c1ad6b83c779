"""Softmax auctions on a server: their stream, their bill, what they refuse, and that a crash changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.server.toy_server import FUNDS, ToyServer, collect, in_stream, spec_of, toy_server

from tokenauction.clients.client import ServerError
from tokenauction.engine.errors import InvalidSpec
from tokenauction.engine.verification import verify
from tokenauction.server.refusal import Refused

Start = Callable[..., Any]


def softmax_spec(num_agents: int = 2, **changes: Any) -> dict[str, Any]:
    """Agents whose models' preferences are worth tenths of a cent; texts of 12 tokens."""
    defaults = {"mechanism": "softmax", "num_candidates": 5, "tau": "0.003"}
    spec = spec_of(*["0"] * num_agents, **{**defaults, **changes})
    for number, agent in enumerate(spec["agents"]):
        del agent["bid"]
        agent |= {"value_per_nat": f"0.00{number + 1}", "budget": "0.5"}
    return spec


def without_times(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in e.items() if k not in ("event_id", "auction_id", "time", "durable_seq")} for e in events]


async def play(server: ToyServer, spec: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """The id and the stream of one auction from its creation to its settlement."""
    events = await collect(server.client().create(spec))
    return events[0]["auction_id"], in_stream(events)


async def test_stream_has_the_candidates_the_choice_and_the_settlement(start: Start) -> None:
    async with start() as server:
        auction_id, events = await play(server, softmax_spec(show_candidates=True))
        kinds = [event["type"] for event in events]
        assert kinds[0] == "auction.created" and kinds[-2:] == ["auction.finalized", "auction.settled"]
        assert kinds.count("candidate.completed") == 5 and "candidates.progress" in kinds
        assert [event["seq"] for event in events] == list(range(len(events)))
        assert (
            events[-1]["text"]
            == events[-2]["text"]
            == next(
                e["text"] for e in events if e["type"] == "candidate.completed" and e["index"] == events[-2]["chosen"]
            )
        )
        described = await server.app.context.catalogue.describe(auction_id)
        assert (described["text"], described["num_tokens"]) == (events[-1]["text"], 12)


async def test_bill_is_what_the_choice_charged_and_the_rest_of_the_hold_comes_back(start: Start) -> None:
    async with start() as server:
        auction_id, events = await play(server, softmax_spec())
        charged = {agent["id"]: agent["payment_micros"] for agent in events[-2]["agents"]}
        assert all(isinstance(micros, int) and 0 < micros <= 500_000 for micros in charged.values())
        for agent in events[-1]["agents"]:
            assert (agent["total_micros"], agent["outcome"]) == (charged[agent["id"]], "won")
            account = await server.ledger.account(agent["id"])
            assert account is not None
            assert (account.balance_micros, account.held_micros) == (FUNDS - charged[agent["id"]], 0)
        assert not await server.ledger.audit()
        assert verify(await server.receipt(auction_id), head=events[-1]["receipt_head"]).holds


async def test_budget_that_is_not_given_is_the_value_of_a_nat_a_token(start: Start) -> None:
    spec = softmax_spec()
    del spec["agents"][0]["budget"]
    async with start() as server:
        _, events = await play(server, spec)
    assert events[0]["spec"]["agents"][0]["budget"] == "0.012"


async def test_hold_that_is_too_small_caps_the_payment(start: Start) -> None:
    spec = softmax_spec()
    spec["agents"][1]["budget"] = "0.000001"
    async with start() as server:
        _, events = await play(server, spec)
        assert events[-1]["voids"] == ["a payment was clipped to a budget"]
        assert events[-1]["agents"][1]["total_micros"] == 1
        assert not await server.ledger.audit()


async def test_auction_beside_it_writes_what_it_writes_alone(start: Start) -> None:
    async with start() as server:
        _, alone = await play(server, spec_of("0.002", "0.001"))
        both = await asyncio.gather(play(server, softmax_spec()), play(server, spec_of("0.002", "0.001")))
        assert both[1][1][-1]["text"] == alone[-1]["text"]
        _, again = await play(server, softmax_spec())
        assert both[0][1][-1]["receipt_head"] == again[-1]["receipt_head"]


async def test_created_by_post_it_can_be_watched_from_its_first_event(start: Start) -> None:
    async with start() as server:
        accepted = await server.client().begin(softmax_spec())
        events = in_stream(await collect(server.client().watch(accepted["auction_id"])))
        assert [events[0]["type"], events[-1]["type"]] == ["auction.created", "auction.settled"]
        again = in_stream(await collect(server.client().watch(accepted["auction_id"])))
        assert without_times(again) == without_times(events)


async def test_nobody_bids_or_leaves_and_who_is_listed_may_look_on(start: Start) -> None:
    async with start(is_paced=True) as server:
        auction_id = (await server.house.create(softmax_spec(), "me")).auction_id
        bidding = server.app.context.bidding
        for refused in (bidding.bid(auction_id, "agent0", 5), bidding.leave(auction_id, "agent0")):
            with pytest.raises(Refused) as error:
                await refused
            assert error.value.code == "no_bids"
        assert await bidding.join(auction_id, "agent0", 5, None, None) == 0
        with pytest.raises(Refused) as error:
            await bidding.join(auction_id, "agent5", 5, None, {"name": "Late", "offer": "x"})
        assert error.value.code == "joining_closed"
        server.model.free()
        events = in_stream(await collect(server.client().watch(auction_id)))
        assert events[-1]["posted"]


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [({"tmax_join_ms": 100}, "tmax_join_ms"), ({"num_candidates": 65}, "64"), ({"tau": 0}, "spec.tau")],
)
async def test_what_cannot_be_is_refused(start: Start, changes: dict[str, Any], fragment: str) -> None:
    async with start() as server:
        with pytest.raises(InvalidSpec, match=fragment):
            await server.house.create({**softmax_spec(), **changes}, "me")
        with pytest.raises(ServerError) as error:
            await server.client().begin({**softmax_spec(), **changes})
        assert error.value.code == "invalid_spec"


async def test_cancelled_auction_charges_nothing(start: Start) -> None:
    async with start(is_paced=True) as server:
        auction_id = (await server.house.create(softmax_spec(), "me")).auction_id
        server.model.allow(2)
        cancelling = asyncio.create_task(server.house.cancel(auction_id))
        server.model.free()
        await cancelling
        events = in_stream(await collect(server.client().watch(auction_id)))
        if events[-1]["finish_reason"] == "cancelled":  # else it was over before
            assert (events[-1]["posted"], events[-1]["total_micros"], events[-1]["text"]) == (True, 0, "")
        assert not await server.ledger.audit()


async def killed_behind(start: Start, kind: str, number: int) -> str:
    """The auction of a server that was killed when so many events of a kind had been seen."""
    with pytest.raises(ConnectionAbortedError):
        async with start(delay=0.003) as server:
            auction_id = (await server.house.create(softmax_spec(max_tokens=30, num_candidates=6), "me")).auction_id
            found = 0
            async with asyncio.timeout(30):
                async for event in server.client().watch(auction_id):
                    found += event["type"] == kind
                    if found == number:
                        break
            server.house.failure.set_exception(ConnectionAbortedError("killed"))
            await asyncio.wait([server.serving])
    return auction_id


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "number"), [("auction.created", 1), ("candidates.progress", 2), ("candidate.completed", 3)]
)
async def test_auction_goes_on_after_a_crash_as_it_would_have(start: Start, kind: str, number: int) -> None:
    auction_id = await killed_behind(start, kind, number)
    async with start() as server:
        events = in_stream(await collect(server.client().watch(auction_id)))
        receipt = await server.receipt(auction_id)
        assert verify(receipt, head=events[-1]["receipt_head"]).holds
        assert not await server.ledger.audit()
        _, whole = await play(server, softmax_spec(max_tokens=30, num_candidates=6))
        assert whole[-1]["receipt_head"] == events[-1]["receipt_head"]
        assert whole[-1]["agents"] == events[-1]["agents"]


@pytest.mark.slow
async def test_auction_on_another_model_is_settled_on_what_is_durable(start: Start) -> None:
    auction_id = await killed_behind(start, "candidates.progress", 2)
    async with start(world=4) as server:
        stream = in_stream(await collect(server.client().watch(auction_id)))
        chosen = any(event["type"] == "auction.finalized" for event in stream)
        assert stream[-1]["finish_reason"] == ("max_tokens" if chosen else "cancelled")
        assert verify(await server.receipt(auction_id)).holds
        assert not await server.ledger.audit()


@pytest.mark.slow
async def test_choice_that_is_durable_is_posted_after_a_crash_and_made_once(tmp_path: Any) -> None:
    """The server died between the choice and its settlement."""
    async with toy_server(tmp_path) as server:
        auction_id, events = await play(server, softmax_spec())
        rows = [event async for event in server.ledger.events(auction_id)]
        head = events[-1]["receipt_head"]
    lines = [row["line"] for row in rows if "line" in row][:-1]
    for world, reason in ((3, ""), (4, "another model")):
        folder = tmp_path / f"again{world}"
        folder.mkdir()
        async with toy_server(folder) as server:
            live_id = await half_of(server, rows)
        async with toy_server(folder, world=world) as server:
            again = in_stream(await collect(server.client().watch(live_id)))
            assert [line["hash"] for line in (await server.receipt(live_id))[:-1]] == [line["hash"] for line in lines]
            assert again[-1]["receipt_head"] == head, reason
            assert not await server.ledger.audit()


async def half_of(server: ToyServer, rows: list[dict[str, Any]]) -> str:
    """Put an open auction on the ledger with all of these events but the last."""
    request = {**softmax_spec(), "tmax_join_ms": 0, "token_ms": 0, "seed": None}
    seed = {"value": rows[-1]["seed"], "nonce": rows[-1]["nonce"], "source": "caller"}
    document = {"owner": "me", "created_at": 0.0, "seed": seed, "request": request}
    holds = {"agent0": 500_000, "agent1": 500_000}
    await server.ledger.create_auction("auc_half", json.loads(json.dumps(document)), holds, None, "h", "c")
    for row in rows[:-1]:
        charges = {agent["id"]: agent["payment_micros"] for agent in row.get("agents", ()) if "payment_micros" in agent}
        await server.ledger.append("auc_half", 1, row["seq"], {**row, "auction_id": "auc_half"}, charges)
    return "auc_half"
