"""Connections whose token is gone close; there are no more of them than there may be, from anywhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.server.test_app_door import refused, stream_of
from tests.server.toy_server import LONGEST_SECONDS, ToyServer, collect, in_stream, spec_of
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.typing import Subprotocol

from tokenauction.server.app import AppSettings
from tokenauction.server.ledger import Ledger
from tokenauction.server.wire import BidUpdate, Subscribe, encode

Start = Callable[..., Any]


async def closed(socket: ClientConnection) -> int | None:
    """The code with which the server closes."""
    async with asyncio.timeout(LONGEST_SECONDS):
        with pytest.raises(ConnectionClosed):
            while True:
                await socket.recv()
    return socket.close_code


@pytest.mark.slow
async def test_token_revoked_beside_the_server_closes_what_it_opened_and_nothing_else(
    start: Start, tmp_path: Any
) -> None:
    async with start(is_open=False, is_paced=True) as server:
        token_id, secret = await server.ledger.create_token(["watch"])
        other = (await server.ledger.create_token(["admin"]))[1]
        auction_id = (await server.client(other).begin(spec_of("0.002")))["auction_id"]
        async with server.client(secret).connection() as watcher, server.client(other).connection() as admin:
            for socket in (watcher, admin):
                await socket.send(encode(Subscribe(auction_id=auction_id)).decode())
            visit = await Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", is_visit=True)  # as the command line does
            await visit.revoke_token(token_id)
            await visit.close()
            assert await closed(watcher) == 4001
            await admin.send('{"type": "ping"}')
            while json.loads(await admin.recv())["type"] != "pong":
                continue


async def test_token_revoked_or_replaced_by_rest_is_closed_before_the_answer(start: Start) -> None:
    async with start(is_open=False) as server:
        admin = {"Authorization": f"Bearer {(await server.ledger.create_token(['admin']))[1]}"}
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, headers=admin) as http:
            for how in ("delete", "rotate"):
                made = (await http.post("/v1/tokens", json={"scopes": ["watch"]})).json()
                async with server.client(made["secret"]).connection() as socket:
                    path = f"/v1/tokens/{made['token_id']}"
                    answer = await (http.delete(path) if how == "delete" else http.post(f"{path}/rotate"))
                    assert answer.status_code in (201, 204)
                    assert await closed(socket) == 4001
                if how == "rotate":
                    async with server.client(answer.json()["secret"]).connection() as socket:
                        assert json.loads(await socket.recv())["scopes"] == ["watch"]
            known = (await http.get("/v1/tokens")).json()["tokens"]
            assert len(known) == 4 and sum(token["revoked_at"] is not None for token in known) == 2
            assert not any("secret" in name for token in known for name in token)


async def test_nothing_is_obeyed_any_more_once_the_token_is_gone(start: Start) -> None:
    async with start(is_open=False, is_paced=True) as server:
        admin = (await server.ledger.create_token(["admin"]))[1]
        token_id, secret = await server.ledger.create_token(["bid"], "agent0")
        auction_id = (await server.client(admin).begin(spec_of("0.002")))["auction_id"]
        async with server.client(secret).connection() as socket:
            await socket.recv()
            await server.ledger.revoke_token(token_id)
            [connection] = server.app.connections
            connection.expel()
            update = BidUpdate(auction_id=auction_id, agent_id="agent0", bid_micros=9)
            await socket.send(encode(update).decode())
            assert await closed(socket) == 4001
        assert not await server.ledger.bids(auction_id)


@pytest.mark.slow
async def test_watcher_who_says_nothing_is_closed_when_its_token_expires(start: Start) -> None:
    now = [1_000.0]
    async with start(is_open=False, clock=lambda: now[0]) as server:
        secret = (await server.ledger.create_token(["watch"], expires=2e9))[1]
        async with server.client(secret).connection() as socket:
            await socket.recv()
            now[0] = 2.1e9
            assert await closed(socket) == 4001


async def test_ticket_of_a_revoked_token_opens_nothing(start: Start) -> None:
    async with start(is_open=False) as server:
        token_id, secret = await server.ledger.create_token(["watch"])
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
            ticket = (await http.post("/v1/tickets", headers={"Authorization": f"Bearer {secret}"})).json()
        await server.ledger.revoke_token(token_id)
        offers = [Subprotocol(name) for name in ticket["subprotocols"]]
        assert await refused(stream_of(server), subprotocols=offers) == (401, "unauthorized")


async def test_address_has_no_more_connections_than_it_may(start: Start) -> None:
    async with start(settings=AppSettings(max_per_address=2)) as server:
        url = stream_of(server)
        elsewhere = {"X-Forwarded-For": "192.0.2.1"}  # as a proxy on this machine names its peer
        async with connect(url), connect(url) as second:
            assert await refused(url) == (503, "capacity")
            async with connect(url, additional_headers=elsewhere) as other:
                await other.recv()
            await second.close()
            while len(server.app.connections) > 1:
                await asyncio.wait([server.serving], timeout=0.01)
            async with connect(url) as third:
                await third.recv()


@pytest.mark.parametrize("limit", ["MAX_SOCKETS", "MAX_SOCKETS_PER_ADDRESS"])
async def test_sockets_of_any_kind_have_a_limit(server: ToyServer, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(f"tokenauction.server.listener.{limit}", 2)
    monkeypatch.setattr("tokenauction.server.listener.PROXIES", ())
    host, port = server.url.removeprefix("http://").split(":")
    held = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
    reader, writer = await asyncio.open_connection(host, int(port))
    assert (await reader.read(1_000)).startswith(b"HTTP/1.1 503") and await reader.read() == b""
    for _, open_one in (*held, (reader, writer)):
        open_one.close()
        await open_one.wait_closed()
    async with asyncio.timeout(LONGEST_SECONDS), httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        while (await http.get("/healthz")).status_code != 200:
            continue


async def cut_off(socket: ClientConnection) -> bool:
    """Whether the server ends the connection without a word."""
    return await closed(socket) in (None, 1006)


async def test_flood_of_pings_is_cut_off_and_ordinary_ones_are_answered(server: ToyServer) -> None:
    async with server.client().connection() as socket:
        for _ in range(50):
            await (await socket.ping())
        socket.transport.write(b"".join(Frame(Opcode.PING, b"x").serialize(mask=True) for _ in range(1_000)))
        assert await cut_off(socket)


async def test_message_in_fragments_without_end_is_cut_off(server: ToyServer) -> None:
    async with server.client().connection() as socket:
        first = Frame(Opcode.TEXT, b'{"type":', fin=False).serialize(mask=True)
        empty = Frame(Opcode.CONT, b"", fin=False).serialize(mask=True)
        socket.transport.write(first + empty * 2_000)
        assert await cut_off(socket)


async def test_message_in_some_fragments_is_one_message(server: ToyServer) -> None:
    async with server.client().connection() as socket:
        await socket.recv()
        await socket.send(['{"type":', "", '"ping",', '"id":"p"}'])
        assert json.loads(await socket.recv())["id"] == "p"


@pytest.mark.parametrize("first", [b"", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"])
async def test_request_that_is_begun_and_not_finished_is_cut_off_first_or_later(
    server: ToyServer, monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    monkeypatch.setattr("tokenauction.server.listener.REQUEST_SECONDS", 0.2)
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(first)
    if first:
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.")
    async with asyncio.timeout(LONGEST_SECONDS):
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
    writer.close()


async def test_body_that_trickles_is_refused(server: ToyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenauction.server.request_body.BODY_SECONDS", 0.3)
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = b"POST /v1/auctions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    writer.write(head + b"Content-Length: 500\r\n\r\n")
    reading = asyncio.create_task(reader.read(12))
    while not reading.done():
        writer.write(b" ")
        await asyncio.wait([reading], timeout=0.05)
    assert await reading == b"HTTP/1.1 408"
    writer.close()


async def test_upgrade_by_another_method_ends_that_connection_alone(server: ToyServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    events = in_stream(await collect(server.client().create(spec_of("0.002"))))
    assert events[-1]["posted"]
    writer.close()


async def test_reader_over_http_whose_token_is_gone_is_cut_off(start: Start) -> None:
    async with start(is_open=False, is_paced=True) as server:
        admin = (await server.ledger.create_token(["admin"]))[1]
        token_id, secret = await server.ledger.create_token(["watch"])
        auction_id = (await server.client(admin).begin(spec_of("0.002")))["auction_id"]
        headers = {"Authorization": f"Bearer {secret}"}
        async with (
            httpx.AsyncClient(base_url=server.url, trust_env=False, headers=headers) as http,
            http.stream("GET", f"/v1/auctions/{auction_id}/events") as answer,
        ):
            lines = answer.aiter_lines()
            assert (await anext(lines)).startswith("id: 1-0")
            await server.ledger.revoke_token(token_id)
            await server.app.peers.close_gone()
            with pytest.raises(httpx.HTTPError):
                async for _ in lines:
                    continue


async def raw(server: ToyServer, sent: bytes) -> bytes:
    """What comes back for some bytes, until the server closes."""
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            return await reader.read(-1)
    finally:
        writer.close()


HANDSHAKE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eHh4eHh4eHh4eHh4eHh4eA==\r\n"
)


async def test_request_whose_end_is_in_doubt_is_refused_and_what_follows_it_is_not_read(server: ToyServer) -> None:
    head = b"POST /v1/auctions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await raw(server, head + b"0\r\n\r\nGET /v1/accounts HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400") and answer.count(b"HTTP/1.1") == 1 and b"agent0" not in answer


async def test_headers_have_a_limit_however_they_come(server: ToyServer) -> None:
    head = b"GET /v1/auctions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    long = b"X: " + b"x" * 20_000 + b"\r\n\r\n"
    assert b"headers_too_large" in await raw(server, head + long)
    assert (await raw(server, HANDSHAKE + long)).startswith(b"HTTP/1.1 4")


async def test_handshake_with_a_body_is_refused(server: ToyServer) -> None:
    assert (await raw(server, HANDSHAKE + b"Content-Length: 5\r\n\r\nhello")).startswith(b"HTTP/1.1 400")


async def test_message_right_behind_the_handshake_is_answered(server: ToyServer) -> None:
    ping = Frame(Opcode.TEXT, b'{"type":"ping","id":"hasty"}').serialize(mask=True)
    close = Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True)
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(HANDSHAKE + b"\r\n" + ping)
    async with asyncio.timeout(LONGEST_SECONDS):
        await reader.readuntil(b'"hasty"')
    writer.write(close)
    writer.close()


async def test_address_that_shakes_hands_too_often_is_told_when_to_come_again(start: Start) -> None:
    async with start(settings=AppSettings(handshakes_per_second=0.01, handshake_burst=2)) as server:
        for _ in range(2):
            async with connect(stream_of(server)) as socket:
                await socket.recv()
        assert await refused(stream_of(server)) == (429, "rate_limited")


@pytest.mark.parametrize("num_unread", [0, 1])
async def test_peer_that_does_not_answer_pings_is_cut_off_though_little_is_sent_to_it(
    start: Start, monkeypatch: pytest.MonkeyPatch, num_unread: int
) -> None:
    monkeypatch.setattr("tokenauction.server.serving.PING_SECONDS", 0.1)
    monkeypatch.setattr("tokenauction.server.serving.PONG_SECONDS", 0.3)
    async with start(is_paced=True) as server:
        auction_id = (await server.client().begin(spec_of("0.002")))["auction_id"]
        host, port = server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        subscribe = Frame(Opcode.TEXT, encode(Subscribe(auction_id=auction_id))).serialize(mask=True)
        writer.write(HANDSHAKE + b"\r\n" + subscribe * num_unread)
        await reader.readuntil(b"session.created")
        async with asyncio.timeout(LONGEST_SECONDS):
            while server.app.connections:
                await asyncio.wait([server.serving], timeout=0.02)
        writer.close()


@pytest.mark.slow
async def test_long_replay_does_not_go_on_for_a_token_that_is_gone(server: ToyServer) -> None:
    events = await collect(server.client().create(spec_of("0.002", "0.001", max_tokens=2_000)))
    async with server.client().connection() as socket:
        await socket.send(encode(Subscribe(auction_id=events[0]["auction_id"])).decode())
        while "seq" not in json.loads(await socket.recv()):
            continue
        [connection] = server.app.connections
        connection.expel()
        num_seen = 1
        with pytest.raises(ConnectionClosed):
            while True:
                num_seen += "seq" in json.loads(await socket.recv())
        assert socket.close_code == 4001 and num_seen < 1_500
