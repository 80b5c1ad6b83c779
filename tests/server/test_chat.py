"""The OpenAI-compatible door through a real socket: streams, bills, who may, and what happens to who goes away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from tests.server.toy_server import LONGEST_SECONDS, ToyServer, collect, spec_of, step_until

from tokenauction.server.app import AppSettings
from tokenauction.server.presets import Presets

Start = Callable[..., Any]
PRESETS = {"hawaii": spec_of("0.002", "0.001", seed=None), "joined": spec_of("0.002", seed=None, tmax_join_ms=60_000)}
SETTINGS = AppSettings(presets=Presets.of(PRESETS))
MESSAGES = [{"role": "user", "content": "Where to go?"}]
ASK = {"model": "auction/hawaii", "messages": MESSAGES}
URL = "/v1/chat/completions"


@pytest.fixture
async def server(start: Start) -> AsyncIterator[ToyServer]:
    """An open server with presets."""
    async with start(settings=SETTINGS) as running:
        yield running


@pytest.fixture
async def http(server: ToyServer) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(server) as client:
        yield client


def client_of(server: ToyServer, token: str | None = None) -> httpx.AsyncClient:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.AsyncClient(base_url=server.url, trust_env=False, headers=headers, timeout=LONGEST_SECONDS)


async def stream(http: httpx.AsyncClient, **fields: Any) -> list[Any]:
    """The chunks of a completion, `[DONE]` among them."""
    async with http.stream("POST", URL, json={**ASK, "stream": True, **fields}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") async for line in answer.aiter_lines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


async def settled_of(server: ToyServer, auction_id: str) -> dict[str, Any]:
    return (await collect(server.client().watch(auction_id)))[-1]


async def the_live_one(server: ToyServer) -> str:
    """The id of the auction that runs, once there is one."""
    async with asyncio.timeout(LONGEST_SECONDS):
        while not server.house.live:
            await asyncio.sleep(0.005)
    return next(iter(server.house.live))


async def test_stream_is_the_auctions_text_and_its_bill_is_the_ledgers(
    server: ToyServer, http: httpx.AsyncClient
) -> None:
    *chunks, done = await stream(http)
    auction = chunks[-1]["auction"]
    end = await settled_of(server, auction["id"])
    assert done == "[DONE]"
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == end["text"] != ""
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert {line["agent_id"]: line["total_micros"] for line in auction["bill"]} == {
        agent["id"]: agent["total_micros"] for agent in end["agents"]
    }
    assert auction["disclosure"]["by"] == [{"id": "agent0", "name": "Name0"}, {"id": "agent1", "name": "Name1"}]
    assert (await server.ledger.balances())["@house"] == auction["total_micros"] > 0
    assert (await http.get(auction["receipt"])).status_code == 200


async def test_answer_that_is_not_streamed_is_the_same(server: ToyServer, http: httpx.AsyncClient) -> None:
    whole = (await http.post(URL, json={**ASK, "seed": 5})).json()
    *chunks, _ = await stream(http, seed=5, stream_options={"include_usage": True})
    text = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
    assert whole["choices"][0]["message"]["content"] == text
    assert whole["usage"] == chunks[-1]["usage"] == {"prompt_tokens": 0, "completion_tokens": 12, "total_tokens": 12}
    assert whole["auction"]["bill"] == chunks[-1]["auction"]["bill"]


async def test_models_are_the_presets(http: httpx.AsyncClient) -> None:
    models = (await http.get("/v1/models")).json()["data"]
    assert [model["id"] for model in models] == ["auction/hawaii", "auction/joined"]
    assert (await http.get("/v1/models/auction/hawaii")).json()["id"] == "auction/hawaii"
    assert (await http.get("/v1/models/gpt-9")).json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid_request"),
        ({**ASK, "model": "auction/none"}, 404, "model_not_found"),
        ({**ASK, "tools": [{}]}, 400, "unsupported"),
        ({**ASK, "messages": [{"role": "user", "content": ""}]}, 400, "invalid_field"),
        ({**ASK, "auction": {"rule": "majority"}}, 400, "invalid_spec"),
        ({**ASK, "auction": {"agents": [{"name": "x", "offer": "y", "bid": "-1"}]}}, 400, "invalid_bid"),
        ({**ASK, "auction": {"agents": [{"name": "x", "offer": "y", "bid": "1"}]}}, 402, "insufficient_funds"),
        ({**ASK, "messages": [{"role": "user", "content": "x" * 5_000}]}, 400, "invalid_spec"),
        ({**ASK, "messages": [{"role": "user", "content": "x" * 1_100_000}]}, 413, "too_large"),
    ],
)
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_request_that_cannot_be_is_an_error_of_openais_shape(
    server: ToyServer, http: httpx.AsyncClient, body: dict[str, Any], status: int, code: str, is_streamed: bool
) -> None:
    answer = await http.post(URL, json={**body, "stream": is_streamed})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "param", "code"} and "\n" not in error["message"]
    assert not await server.ledger.auctions() and not server.house.live


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"model": 1e999}', b"null"])
async def test_body_that_is_no_request_is_refused(http: httpx.AsyncClient, body: bytes) -> None:
    answer = await http.post(URL, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]["type"] == "invalid_request_error"


async def test_scopes_say_who_may_have_a_text_written(start: Start) -> None:
    own = {**ASK, "auction": {"agents": [{"id": "agent0", "name": "x", "offer": "y", "bid": "0.001"}]}}
    async with start(settings=SETTINGS, is_open=False) as server:
        answers = {}
        for scope in ("watch", "bid", "chat", "admin"):
            async with client_of(server, (await server.ledger.create_token([scope]))[1]) as http:
                codes = [(await http.post(URL, json=body)).status_code for body in (ASK, own)]
                answers[scope] = (*codes, (await http.get("/v1/models")).status_code)
                if scope == "chat":
                    assert (await http.post("/v1/auctions", json={"spec": spec_of("0.002")})).status_code == 403
                    assert (await http.get("/v1/accounts")).status_code == 403
        assert answers == {
            "watch": (403, 403, 200),
            "bid": (403, 403, 200),
            "chat": (200, 403, 200),
            "admin": (200, 200, 200),
        }
        async with client_of(server, "ta_wrong") as http:
            refused = await http.post(URL, json=ASK)
            assert refused.status_code == 401 and refused.json()["error"]["type"] == "authentication_error"


async def test_open_server_takes_whatever_key_a_front_end_sends(server: ToyServer) -> None:
    async with client_of(server, "sk-anything") as http:
        assert (await http.post(URL, json=ASK)).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("key", [None, "k"])
async def test_client_that_goes_away_cancels_its_auction_unless_it_gave_a_key(
    start: Start, is_streamed: bool, key: str | None
) -> None:
    headers = {} if key is None else {"Idempotency-Key": key}
    async with start(settings=SETTINGS, is_paced=True) as server, client_of(server) as http:
        asking = asyncio.create_task(http.post(URL, json={**ASK, "stream": is_streamed}, headers=headers))
        auction_id = await the_live_one(server)
        server.model.allow(3)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        end = await step_until(server.model, settled_of(server, auction_id))
        assert end["posted"] and end["finish_reason"] == ("cancelled" if key is None else "max_tokens")
        assert (await server.ledger.balances())["@house"] == sum(agent["total_micros"] for agent in end["agents"])
        if key is not None:
            again = (await http.post(URL, json=ASK, headers=headers)).json()
            assert again["auction"]["id"] == auction_id
            assert again["choices"][0]["message"]["content"] == end["text"]


async def test_client_that_goes_away_while_agents_join_pays_nothing(start: Start) -> None:
    async with start(settings=SETTINGS) as server, client_of(server) as http:
        asking = asyncio.create_task(http.post(URL, json={**ASK, "model": "auction/joined", "stream": True}))
        auction_id = await the_live_one(server)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        end = await settled_of(server, auction_id)
        assert (end["finish_reason"], end["posted"]) == ("cancelled", False)


async def test_streams_beyond_the_limit_are_refused(server: ToyServer, http: httpx.AsyncClient) -> None:
    server.app.context.streams.limit = 0
    refused = await http.post(URL, json={**ASK, "stream": True})
    assert refused.status_code == 503 and int(refused.headers["retry-after"]) > 0
    assert not await server.ledger.auctions()


async def test_draining_server_says_so(server: ToyServer, http: httpx.AsyncClient) -> None:
    server.house.is_draining = True
    refused = await http.post(URL, json=ASK)
    assert refused.status_code == 503 and refused.json()["error"]["type"] == "server_error"
