"""Looking back: history, the text without ads, bid landscapes, sweeps; what they cost others, and who may."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from tests.server.toy_server import ToyServer, collect, in_stream, spec_of, step_until

from tokenauction.server.app import AppSettings
from tokenauction.server.presets import Presets
from tokenauction.server.studies import MAX_STUDIES

Start = Callable[..., Any]


@pytest.fixture
async def http(server: ToyServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as client:
        yield client


async def settled(server: ToyServer, **changes: Any) -> tuple[str, list[dict[str, Any]]]:
    """An auction that has run to its end, and its stream."""
    spec = spec_of(*changes.pop("bids", ("0.002", "0.001", "0.0005")), **changes)
    auction_id = (await server.client().begin(spec))["auction_id"]
    return auction_id, await collect(server.client().watch(auction_id))


async def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_history_is_the_stream(server: ToyServer, http: httpx.AsyncClient) -> None:
    auction_id, events = await settled(server)
    answer = (await http.get(f"/v1/auctions/{auction_id}/history")).json()
    assert (answer["last_seq"], answer["is_over"]) == (13, True)
    assert [event["seq"] for event in answer["events"]] == list(range(14))
    drop = ("durable_seq", "seed", "nonce")  # of a live reader the last event came before it was settled
    for mine, theirs in zip(answer["events"], in_stream(events), strict=True):
        assert {k: v for k, v in mine.items() if k not in drop} == {k: v for k, v in theirs.items() if k not in drop}
    page = (await http.get(f"/v1/auctions/{auction_id}/history", params={"after_seq": 9, "limit": 3})).json()
    assert [event["seq"] for event in page["events"]] == [10, 11, 12]
    assert await code_of(await http.get("/v1/auctions/none/history")) == (404, "not_found")


async def test_text_without_ads_is_that_of_bids_of_nothing(server: ToyServer, http: httpx.AsyncClient) -> None:
    auction_id, events = await settled(server, reference_weight="0.001", max_tokens=20)
    answer = await http.post(f"/v1/auctions/{auction_id}/without-ads")
    assert answer.status_code == 200
    _, plain = await settled(server, bids=("0", "0", "0"), reference_weight="0.001", max_tokens=20)
    assert answer.json() == {"text": plain[-1]["text"], "num_tokens": 20, "finish_reason": "max_tokens"}
    assert answer.json()["text"] != events[-1]["text"]
    assert (await http.post(f"/v1/auctions/{auction_id}/without-ads")).json() == answer.json()
    assert not server.house.asides and server.model.free_rows == server.model.max_rows


async def test_text_without_ads_waits_for_the_settlement_and_is_on_no_ledger(start: Start) -> None:
    async with start(is_paced=True) as server, httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        auction_id = (await server.client().begin(spec_of("0.002", "0.001")))["auction_id"]
        early = await http.post(f"/v1/auctions/{auction_id}/without-ads")
        assert await code_of(early) == (409, "not_settled")
        server.model.free()
        await collect(server.client().watch(auction_id))
        balances = await server.ledger.balances()
        assert (await http.post(f"/v1/auctions/{auction_id}/without-ads")).status_code == 200
        assert await server.ledger.balances() == balances
        assert len((await http.get("/v1/auctions")).json()["auctions"]) == 1
        assert await code_of(await http.post("/v1/auctions/none/without-ads")) == (404, "not_found")


async def test_softmax_auction_has_a_text_without_ads_and_a_landscape_of_values(
    server: ToyServer, http: httpx.AsyncClient
) -> None:
    auction_id, events = await settled(server, mechanism="softmax", num_candidates=3, max_tokens=8)
    assert events[-1]["type"] == "auction.settled"
    plain = (await http.post(f"/v1/auctions/{auction_id}/without-ads")).json()
    assert plain["num_tokens"] == 8 and plain["text"]
    for agent in events[-1]["agents"]:
        query = {"agent_id": agent["id"], "points": 4}
        answer = (await http.get(f"/v1/auctions/{auction_id}/landscape", params=query)).json()
        assert (answer["exact"], answer["per"], answer["own_bid_micros"]) == (True, "nat", 1_000_000)
        assert [point["bid_micros"] for point in answer["points"]] == [0, 1_000_000, 2_000_000, 3_000_000]
        assert answer["points"][0]["spend_micros"] == answer["points"][0]["influence"] == 0
        assert answer["points"][1]["spend_micros"] == pytest.approx(agent["exact_total_micros"], rel=1e-9)


async def test_landscape_of_an_auction_that_was_cancelled_says_so(start: Start) -> None:
    async with start(is_paced=True) as server, httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        spec = spec_of("0", "0", mechanism="softmax", num_candidates=2, max_tokens=50)
        auction_id = (await server.client().begin(spec))["auction_id"]
        cancelling = asyncio.create_task(http.post(f"/v1/auctions/{auction_id}/cancel"))
        await step_until(server.model, collect(server.client().watch(auction_id)))
        await cancelling
        answer = (await http.get(f"/v1/auctions/{auction_id}/landscape", params={"agent_id": "agent0"})).json()
        assert (answer["exact"], answer["reason"], answer["points"]) == (False, "no candidate was chosen", [])


async def test_landscape_meets_the_bill_at_the_own_bid(server: ToyServer, http: httpx.AsyncClient) -> None:
    auction_id, events = await settled(server, pricing="expected")
    for agent in events[-1]["agents"]:
        query = {"agent_id": agent["id"], "points": 4}
        answer = (await http.get(f"/v1/auctions/{auction_id}/landscape", params=query)).json()
        assert answer["exact"] and answer["reason"] == "" and answer["currency"] == "USD"
        bids = [point["bid_micros"] for point in answer["points"]]
        assert bids == [0, answer["own_bid_micros"], 2 * answer["own_bid_micros"], 3 * answer["own_bid_micros"]]
        assert answer["points"][0]["spend_micros"] == answer["points"][0]["influence"] == 0
        assert answer["points"][1]["spend_micros"] == pytest.approx(agent["exact_total_micros"])


@pytest.mark.parametrize("changes", [{"rule": "log_linear"}, {"pricing": "kl_clarke"}, {"sampler": "race"}])
async def test_landscape_says_why_it_is_not_there(
    server: ToyServer, http: httpx.AsyncClient, changes: dict[str, Any]
) -> None:
    auction_id, _ = await settled(server, **changes)
    answer = (await http.get(f"/v1/auctions/{auction_id}/landscape", params={"agent_id": "agent0"})).json()
    assert not answer["exact"] and answer["points"] == [] and "not on record" in answer["reason"]


async def test_landscape_of_an_agent_that_did_not_bid_says_so(server: ToyServer, http: httpx.AsyncClient) -> None:
    auction_id, _ = await settled(server, bids=("0", "0.001"))
    where = f"/v1/auctions/{auction_id}/landscape"
    answer = (await http.get(where, params={"agent_id": "agent0"})).json()
    assert not answer["exact"] and "nobody looked at its distribution" in answer["reason"]
    assert await code_of(await http.get(where, params={"agent_id": "other"})) == (404, "not_found")


def rows_of(answer: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_sweep_has_a_row_for_each_rule_and_weight(server: ToyServer, http: httpx.AsyncClient) -> None:
    body = {"spec": spec_of("0.002", "0.001"), "points": 3, "seeds": 5, "rules": ["linear", "log_linear"]}
    answer = await http.post("/v1/sweeps", json={**body, "agent_id": "agent1"})
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("application/x-ndjson")
    *rows, last = rows_of(answer)
    assert last == {"done": True}
    assert [(row["rule"], row["weight"]) for row in rows] == [
        (rule, weight) for rule in ("linear", "log_linear") for weight in (0.0, 0.5, 1.0)
    ]
    for row in rows:
        assert row["num_texts"] == 5 and set(row["mentions"]) == {"agent0", "agent1"} and row["example"]
        assert row["none"] + sum(row["only"].values()) <= 1 + 1e-9
    assert rows_of(await http.post("/v1/sweeps", json={**body, "agent_id": "agent1"}))[:-1] == rows
    assert not server.house.asides and server.model.free_rows == server.model.max_rows


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"points": 1}, "invalid_request"),
        ({"points": 12}, "invalid_request"),
        ({"seeds": 21}, "invalid_request"),
        ({"rules": []}, "invalid_request"),
        ({"rules": ["best"]}, "invalid_request"),
        ({"other": 1}, "invalid_request"),
        ({"agent_id": "nobody"}, "unknown_agent"),
        ({"spec": {}}, "invalid_spec"),
        ({"spec": spec_of("1", max_tokens=65)}, "invalid_spec"),
        ({"spec": {**spec_of("1"), "query": "x" * 5_000}}, "invalid_spec"),
    ],
)
async def test_sweep_that_cannot_be_is_refused(http: httpx.AsyncClient, change: dict[str, Any], code: str) -> None:
    answer = await http.post("/v1/sweeps", json={"spec": spec_of("0.002", "0.001"), **change})
    assert await code_of(answer) == (422, code)


async def test_too_many_studies_are_told_to_come_back_and_draining_servers_study_nothing(start: Start) -> None:
    async with start(is_paced=True) as server, httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        body = {"spec": spec_of("0.002", "0.001", max_tokens=4), "points": 2, "seeds": 1}
        running = [asyncio.create_task(http.post("/v1/sweeps", json=body)) for _ in range(MAX_STUDIES)]
        while server.app.context.studies._num_running < MAX_STUDIES:
            await asyncio.sleep(0.01)
        [refusal] = rows_of(await http.post("/v1/sweeps", json=body))
        assert refusal["error"]["code"] == "capacity"
        server.house.is_draining = True
        [refusal] = rows_of(await http.post("/v1/sweeps", json=body))
        assert refusal["error"]["code"] == "draining"
        server.house.is_draining = False

        async def all_of_them() -> list[httpx.Response]:
            return await asyncio.gather(*running)

        answers = await step_until(server.model, all_of_them())
        assert all(rows_of(answer)[-1] == {"done": True} for answer in answers)


async def test_study_whose_client_goes_away_is_stopped(start: Start) -> None:
    async with start(is_paced=True) as server:
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
            body = {"spec": spec_of("0.002", "0.001", max_tokens=64), "points": 11, "seeds": 20}
            waiting = asyncio.create_task(http.post("/v1/sweeps", json=body))
            while not server.house.asides:
                await asyncio.sleep(0.01)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        num_steps = 0
        while server.app.context.studies._num_running or server.house.asides:
            server.model.allow(1)
            num_steps += 1
            await asyncio.sleep(0.01)
        assert num_steps < 11 * 5 * 64, "it would have taken that many, four texts at a time"
        assert server.model.free_rows == server.model.max_rows


async def test_studies_end_with_a_word_when_the_server_stops(start: Start) -> None:
    async with start(is_paced=True) as server, httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        body = {"spec": spec_of("0.002", "0.001", max_tokens=64), "points": 2, "seeds": 2}
        waiting = asyncio.create_task(http.post("/v1/sweeps", json=body))
        while len(server.house.asides) < 2:
            await asyncio.sleep(0.01)
        server.stopping.set()
        answer = await step_until(server.model, waiting_for(waiting))
        assert rows_of(answer)[-1]["error"]["code"] == "draining"


async def waiting_for(task: asyncio.Task[httpx.Response]) -> httpx.Response:
    return await task


async def test_auctions_go_on_beside_a_sweep(server: ToyServer, http: httpx.AsyncClient) -> None:
    body = {"spec": spec_of("0.002", "0.001", max_tokens=60), "points": 4, "seeds": 10}
    sweeping = asyncio.create_task(http.post("/v1/sweeps", json=body))
    _, events = await settled(server)
    assert [event["seq"] for event in in_stream(events)] == list(range(14))
    assert rows_of(await sweeping)[-1] == {"done": True}


async def test_studies_are_for_owners_and_admins(start: Start) -> None:
    async with start(is_open=False) as server, httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        admin = {"Authorization": f"Bearer {(await server.ledger.create_token(['admin']))[1]}"}
        watcher = {"Authorization": f"Bearer {(await server.ledger.create_token(['watch']))[1]}"}
        bidder = {"Authorization": f"Bearer {(await server.ledger.create_token(['bid'], 'agent0'))[1]}"}
        body = {"spec": spec_of("0.002", "0.001")}
        auction_id = (await http.post("/v1/auctions", json=body, headers=admin)).json()["auction_id"]
        await server.house._idle.wait()
        where = f"/v1/auctions/{auction_id}"
        for headers, status in ((admin, 200), (watcher, 403), (bidder, 403), ({}, 401)):
            assert (await http.post(f"{where}/without-ads", headers=headers)).status_code == status
            query = {"agent_id": "agent0"}
            assert (await http.get(f"{where}/landscape", params=query, headers=headers)).status_code == status
            sweep = {**body, "points": 2, "seeds": 1}
            assert (await http.post("/v1/sweeps", json=sweep, headers=headers)).status_code == status
        for headers, seen in ((admin, {"agent0", "agent1"}), (watcher, set()), (bidder, {"agent0"})):
            events = (await http.get(f"{where}/history", headers=headers)).json()["events"]
            assert {agent["id"] for event in events[1:] for agent in event.get("agents", [])} == seen
            assert len(events) == 14


async def test_presets_are_listed(start: Start) -> None:
    spec = spec_of("0.002", seed=None)
    settings = AppSettings(presets=Presets.of({"one": spec}))
    async with start(settings=settings) as server, httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        assert (await http.get("/v1/presets")).json() == {"presets": [{"name": "one", "title": "query", "spec": spec}]}
