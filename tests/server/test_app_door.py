"""Who gets in, and how far: origins, tokens, tickets, scopes, and what each may see."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.server.toy_server import ToyServer, collect, in_stream, spec_of
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from tokenauction.clients.client import ServerError
from tokenauction.server.app import AppSettings
from tokenauction.server.auth import SCOPES, Identity
from tokenauction.server.wire import BidUpdate, encode

Start = Callable[..., Any]


def stream_of(server: ToyServer) -> str:
    return f"ws{server.url.removeprefix('http')}/v1/stream"


async def refused(url: str, **options: Any) -> tuple[int, str]:
    """Status and code of a handshake that must fail."""
    with pytest.raises(InvalidStatus) as caught:
        async with connect(url, **options):
            pass
    response = caught.value.response
    return response.status_code, json.loads(response.body or b"{}")["error"]["code"]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1.evil.example"]
)
async def test_page_of_another_origin_is_refused_with_403(server: ToyServer, origin: str) -> None:
    assert await refused(stream_of(server), origin=Origin(origin)) == (403, "foreign_origin")


async def test_own_pages_and_allowed_origins_are_let_in(start: Start) -> None:
    async with start(settings=AppSettings(origins=("https://front.example",))) as server:
        for origin in ("https://front.example", server.url):
            async with connect(stream_of(server), origin=Origin(origin)) as socket:
                assert json.loads(await socket.recv())["type"] == "session.created"


async def test_post_of_another_origin_is_refused_with_403(server: ToyServer) -> None:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        answer = await http.post("/v1/tickets", headers={"Origin": "https://evil.example"})
        assert answer.status_code == 403 and answer.json()["error"]["code"] == "foreign_origin"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[", ""])
async def test_open_server_is_not_called_by_a_foreign_name(server: ToyServer, host: str) -> None:
    """A name that is made to lead here would make a foreign page an own one, which may read every answer."""
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        answer = await http.get("/v1/auctions", headers={"Host": host})
        assert answer.status_code == 403 and answer.json()["error"]["code"] == "foreign_origin"
        for own in ("localhost:9000", "127.0.0.1", "[::1]:1"):
            assert (await http.get("/v1/auctions", headers={"Host": own})).status_code == 200


async def test_own_page_may_come_through_a_tunnel(server: ToyServer) -> None:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        through = {"Host": "localhost:9000", "Origin": "http://localhost:9000"}
        assert (await http.post("/v1/tickets", headers=through)).status_code == 201
        foreign = {"Host": "localhost:9000", "Origin": "http://localhost:9001"}
        assert (await http.post("/v1/tickets", headers=foreign)).status_code == 403


async def test_pages_of_allowed_origins_may_read_answers_and_no_others(start: Start) -> None:
    friend = "https://front.example"
    async with (
        start(is_open=False, settings=AppSettings(origins=(friend,))) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False) as http,
    ):
        asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        allowed = await http.options("/v1/tickets", headers={"Origin": friend, **asks})
        assert allowed.status_code == 200 and allowed.headers["access-control-allow-origin"] == friend
        refused = await http.options("/v1/tickets", headers={"Origin": "https://evil.example", **asks})
        assert "access-control-allow-origin" not in refused.headers
        bearer = {"Authorization": f"Bearer {(await server.ledger.create_token(['watch']))[1]}", "Origin": friend}
        ticket = await http.post("/v1/tickets", headers=bearer)
        assert (ticket.status_code, ticket.headers["access-control-allow-origin"]) == (201, friend)
        module = await http.get("/client/tokenauction.js", headers={"Origin": friend})
        assert module.headers["access-control-allow-origin"] == friend
        assert "access-control-allow-credentials" not in module.headers
        other = await http.get("/client/tokenauction.js", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


async def test_closed_server_may_have_any_name(start: Start) -> None:
    async with start(is_open=False) as server, httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        assert (await http.get("/healthz", headers={"Host": "ads.example"})).status_code == 200


async def test_unknown_path_and_too_many_connections_are_refused(start: Start) -> None:
    async with start(settings=AppSettings(max_connections=1)) as server:
        assert await refused(f"ws{server.url.removeprefix('http')}/elsewhere") == (404, "not_found")
        async with connect(stream_of(server)) as socket:
            await socket.recv()
            assert await refused(stream_of(server)) == (503, "capacity")


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer wrong", "Basic dXNlcjpwYXNz", "Bearer " + "x" * 300])
async def test_closed_server_wants_a_token(start: Start, header: str | None) -> None:
    async with start(is_open=False) as server:
        headers = {} if header is None else {"Authorization": header}
        assert await refused(stream_of(server), additional_headers=headers) == (401, "unauthorized")
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
            assert (await http.get("/v1/auctions", headers=headers)).status_code == 401
            assert (await http.get("/healthz")).status_code == 200


async def test_ticket_opens_one_connection_and_is_nowhere_in_a_url(start: Start) -> None:
    async with start(is_open=False) as server:
        _, secret = await server.ledger.create_token(["watch"])
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
            ticket = (await http.post("/v1/tickets", headers={"Authorization": f"Bearer {secret}"})).json()
        offers = [Subprotocol(name) for name in ticket["subprotocols"]]
        async with connect(stream_of(server), subprotocols=offers) as socket:
            assert socket.subprotocol == "tokenauction.v1"
            assert json.loads(await socket.recv())["scopes"] == ["watch"]
        assert await refused(stream_of(server), subprotocols=offers) == (401, "unauthorized")


async def test_ticket_is_good_for_a_minute(start: Start) -> None:
    now = [1_000.0]
    async with start(is_open=False, clock=lambda: now[0]) as server:
        _, secret = await server.ledger.create_token(["watch"])
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
            ticket = (await http.post("/v1/tickets", headers={"Authorization": f"Bearer {secret}"})).json()
        now[0] += 61
        offers = [Subprotocol(name) for name in ticket["subprotocols"]]
        assert await refused(stream_of(server), subprotocols=offers) == (401, "unauthorized")


async def test_revoked_token_opens_nothing(start: Start) -> None:
    async with start(is_open=False) as server:
        token_id, secret = await server.ledger.create_token(["watch"])
        await server.ledger.revoke_token(token_id)
        headers = {"Authorization": f"Bearer {secret}"}
        assert await refused(stream_of(server), additional_headers=headers) == (401, "unauthorized")


async def test_connection_ends_when_its_token_expires(start: Start) -> None:
    now = [1_000.0]
    async with start(is_open=False, clock=lambda: now[0]) as server:
        _, secret = await server.ledger.create_token(["watch"], expires=2e9)
        async with server.client(secret).connection() as socket:
            await socket.recv()
            now[0] = 2.1e9
            await socket.send('{"type": "ping"}')
            with pytest.raises(ConnectionClosed):
                while True:
                    await socket.recv()
            assert socket.close_code == 4001


async def test_bidder_sees_its_own_numbers_and_nobody_elses(start: Start) -> None:
    async with start(is_open=False) as server:
        admin = (await server.ledger.create_token(["admin"]))[1]
        bidder = (await server.ledger.create_token(["bid"], "agent1"))[1]
        viewer = (await server.ledger.create_token(["watch"]))[1]
        everything = await collect(server.client(admin).create(spec_of("0.002", "0.001", max_tokens=20)))
        auction_id = everything[0]["auction_id"]
        own = await collect(server.client(bidder).watch(auction_id))
        public = await collect(server.client(viewer).watch(auction_id))
    for events in (own, public):
        assert [event["seq"] for event in in_stream(events)] == list(range(22))
        assert events[-1]["text"] == everything[-1]["text"] and "seed" not in events[-1]
    assert {agent["id"] for event in own if "agents" in event for agent in event["agents"]} == {"agent1"}
    assert not any(agent for event in public if "agents" in event for agent in event["agents"])
    posted = [event for event in own if event["type"] == "payment.posted"]
    assert [event["agent_id"] for event in posted] == ["agent1"]
    assert not any(event["type"] == "payment.posted" for event in public)


@pytest.mark.parametrize(("scope", "may"), [("watch", "watch"), ("bid", "watch bid"), ("admin", " ".join(SCOPES))])
def test_scope_includes_what_the_protocol_says(scope: str, may: str) -> None:
    identity = Identity("somebody", frozenset({scope}))
    assert {other for other in SCOPES if identity.may(other)} == set(may.split())


async def test_token_of_one_agent_does_not_act_for_another(start: Start) -> None:
    async with start(is_open=False, is_paced=True) as server:
        admin = (await server.ledger.create_token(["admin"]))[1]
        bidder = (await server.ledger.create_token(["bid"], "agent1"))[1]
        auction_id = (await server.client(admin).begin(spec_of("0.002", "0.001")))["auction_id"]
        async with server.client(bidder).connection() as socket:
            await socket.recv()
            update = BidUpdate(auction_id=auction_id, agent_id="agent0", bid_micros=9)
            await socket.send(encode(update).decode())
            assert json.loads(await socket.recv())["code"] == "not_your_agent"
        with pytest.raises(ServerError) as caught:
            await server.client(bidder).begin(spec_of("0.002"))
        assert caught.value.code == "forbidden"
        assert not await server.ledger.bids(auction_id)


async def test_seed_is_the_servers_where_tokens_are_asked_for(server: ToyServer) -> None:
    server.house.takes_seeds = False
    with pytest.raises(ServerError) as caught:
        await server.client().begin(spec_of("0.002", seed=1))
    assert caught.value.code == "seed_given"
    assert (await server.client().begin(spec_of("0.002", seed=None)))["state"] == "running"


async def test_connection_that_never_sends_a_request_is_cut_off(
    server: ToyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenauction.server.listener.REQUEST_SECONDS", 0.05)
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: webs")
    async with asyncio.timeout(5):
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
    writer.close()
