"""REST: what it answers, by hand and by schemathesis from its own OpenAPI document."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.server.toy_server import FUNDS, ToyServer, collect, spec_of

from tokenauction.engine.receipt import parse_receipt
from tokenauction.engine.verification import verify

Start = Callable[..., Any]


@pytest.fixture
async def http(server: ToyServer) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the open server."""
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        yield client


async def test_auction_by_rest_from_creation_to_receipt(server: ToyServer, http: httpx.AsyncClient) -> None:
    body = {"spec": spec_of("0.002", "0.001")}
    created = await http.post("/v1/auctions", json=body, headers={"Idempotency-Key": "k"})
    assert created.status_code == 201 and not created.json()["replayed"]
    again = await http.post("/v1/auctions", json=body, headers={"Idempotency-Key": "k"})
    assert again.json() == {**created.json(), "replayed": True}
    where = created.headers["location"]
    events = await collect(server.client().watch(created.json()["auction_id"]))
    summary = (await http.get(where)).json()
    assert (summary["state"], summary["text"], summary["last_seq"]) == ("settled", events[-1]["text"], 13)
    lines = parse_receipt((await http.get(f"{where}/receipt")).text.splitlines())
    assert verify(lines, head=events[-1]["receipt_head"]).holds
    listed = (await http.get("/v1/auctions", params={"limit": 5})).json()["auctions"]
    assert [auction["auction_id"] for auction in listed] == [summary["auction_id"]]
    cancelled = await http.post(f"{where}/cancel")
    assert cancelled.status_code == 409 and cancelled.json()["error"]["code"] == "not_live"


async def test_accounts_by_rest(http: httpx.AsyncClient) -> None:
    deposit = {"micros": 5, "reference": "r"}
    assert (await http.post("/v1/accounts/new/deposits", json=deposit)).json()["balance_micros"] == 5
    assert (await http.post("/v1/accounts/new/deposits", json=deposit)).json()["balance_micros"] == 5
    other = await http.post("/v1/accounts/new/deposits", json={**deposit, "micros": 6})
    assert other.status_code == 409 and other.json()["error"]["code"] == "idempotency_conflict"
    assert (await http.get("/v1/accounts/agent0")).json()["balance_micros"] == FUNDS
    assert sum((await http.get("/v1/accounts")).json()["balances"].values()) == 0
    assert (await http.get("/v1/accounts/nobody")).status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "invalid_request"),
        ({"spec": {}}, 422, "invalid_spec"),
        ({"spec": spec_of("0.0000001")}, 422, "invalid_bid"),
        ({"spec": spec_of("0.002", max_tokens=10**9)}, 422, "invalid_spec"),
        ({"spec": spec_of("0.002", tmax_join_ms=-1)}, 422, "invalid_spec"),
        ({"spec": spec_of("0.002"), "other": 1}, 422, "invalid_request"),
        ({"spec": {"query": "x" * 70_000}}, 413, "too_large"),
        ({"spec": spec_of("999999999", max_tokens=2_000)}, 402, "insufficient_funds"),
    ],
)
async def test_creation_that_cannot_be_is_a_typed_error(
    http: httpx.AsyncClient, body: dict[str, Any], status: int, code: str
) -> None:
    answer = await http.post("/v1/auctions", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


async def test_draining_server_answers_503_with_retry_after(server: ToyServer, http: httpx.AsyncClient) -> None:
    assert (await http.get("/readyz")).status_code == 200
    server.house.is_draining = True
    answer = await http.post("/v1/auctions", json={"spec": spec_of("0.002")})
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
    assert answer.json()["error"]["code"] == "draining"
    assert (await http.get("/readyz")).status_code == 503 and (await http.get("/healthz")).status_code == 200


async def test_scopes_hold_for_rest(start: Start) -> None:
    async with start(is_open=False) as server, httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        admin = (await server.ledger.create_token(["admin"]))[1]
        headers = {"Authorization": f"Bearer {admin}"}
        made = await http.post("/v1/tokens", json={"scopes": ["bid"], "agent_id": "agent0"}, headers=headers)
        assert made.status_code == 201
        bidder = {"Authorization": f"Bearer {made.json()['secret']}"}
        assert (await http.post("/v1/auctions", json={"spec": spec_of("1")}, headers=bidder)).status_code == 403
        assert (await http.get("/v1/accounts/agent0", headers=bidder)).status_code == 200
        assert (await http.get("/v1/accounts/agent1", headers=bidder)).status_code == 403
        assert (await http.get("/v1/accounts", headers=bidder)).status_code == 403
        assert (await http.get("/v1/auctions", headers=bidder)).status_code == 200  # who may bid may watch
        revoked = await http.delete(f"/v1/tokens/{made.json()['token_id']}", headers=headers)
        assert revoked.status_code == 204
        assert (await http.get("/v1/accounts/agent0", headers=bidder)).status_code == 401


@pytest.mark.slow
async def test_schemathesis_finds_nothing(server: ToyServer, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{server.url}/openapi.json"]
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    options = ["--max-examples", "15", "--checks", checks, "--seed", "7", "--workers", "1"]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    run = await asyncio.to_thread(
        subprocess.run, [*command, *options], capture_output=True, cwd=tmp_path, env=environment, timeout=240
    )
    assert run.returncode == 0, run.stdout.decode()[-4_000:] + run.stderr.decode()[-2_000:]


async def test_openapi_document_is_served(http: httpx.AsyncClient) -> None:
    document = json.loads((await http.get("/openapi.json")).text)
    assert {"/v1/auctions", "/v1/auctions/{auction_id}/receipt", "/healthz"} <= set(document["paths"])
