"""The hostile table through a real socket: the same codes, nothing changes on the ledger, and the server lives."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.server.hostile import ALPHA, AUCTION, CASES, Case, sparse, text
from tests.server.toy_server import ToyServer, spec_of
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from tokenauction.server.wire import MAX_FRAME_BYTES

Start = Callable[..., Any]
FUNDS = 1_000_000_000
OVER_THE_LINE = [  # no step is open here, a client cannot write half a character, and what is too large never arrives
    case
    for case in CASES
    if sparse() not in case.before
    and case.expires is None
    and case.scopes
    and not (isinstance(case.sent, str) and "\ud800" in case.sent)
    and len(case.sent) <= MAX_FRAME_BYTES
]


def with_auction(sent: str | bytes, auction_id: str) -> str | bytes:
    return sent.replace(AUCTION, auction_id) if isinstance(sent, str) else sent


async def answer(socket: ClientConnection, sent: str | bytes) -> dict[str, Any]:
    """The answer to one message; events of streams are passed over."""
    await socket.send(sent)
    while "seq" in (message := json.loads(await socket.recv())):
        continue
    return dict(message)


async def state_of(server: ToyServer, auction_id: str) -> tuple[Any, ...]:
    """Everything that a message could have changed."""
    ledger, live = server.ledger, server.house.live[auction_id]
    books = (await ledger.bids(auction_id), await ledger.balances(), await ledger.holds(auction_id))
    return (*books, live.phase, dict(live.agents), set(live.left), live.channel.last_seq, len(server.house.live))


async def joinable(server: ToyServer) -> str:
    """An auction that waits for agents, with ALPHA and beta on its list."""
    spec = spec_of("0.002", "0.001", tmax_join_ms=60_000)
    for agent, name in zip(spec["agents"], (ALPHA, "beta"), strict=True):
        agent["id"] = name
    auction_id: str = (await server.client(await token(server, "admin")).begin(spec))["auction_id"]
    return auction_id


async def token(server: ToyServer, *scopes: str, agent_id: str | None = None) -> str:
    return (await server.ledger.create_token(list(scopes), agent_id))[1]


async def failure_of(server: ToyServer, auction_id: str, case: Case) -> str | None:
    """What goes wrong with a case; None where all is as it must be."""
    secret = await token(server, *case.scopes, agent_id=ALPHA)
    async with server.client(secret).connection() as socket:
        await socket.recv()
        for sent in case.before:
            if "subscribe" not in sent:
                await answer(socket, with_auction(sent, auction_id))
            else:
                await socket.send(with_auction(sent, auction_id))
        before = await state_of(server, auction_id)
        code = (await answer(socket, with_auction(case.sent, auction_id))).get("code")
        if code != case.code:
            return f"{case.name}: answered with {code}, not {case.code}"
        if await state_of(server, auction_id) != before:
            return f"{case.name}: something has changed"
        pong = await answer(socket, text("ping", id="p"))
        return None if pong["type"] == "pong" else f"{case.name}: afterwards no pong, but {pong}"


@pytest.mark.slow
async def test_server_answers_every_message_of_the_table_and_lives(start: Start) -> None:
    async with start(is_open=False) as server:
        for name in (ALPHA, "beta"):
            await server.ledger.deposit(name, FUNDS, f"funds of {name}")
        shared, failures = await joinable(server), []
        for case in OVER_THE_LINE:
            auction_id = await joinable(server) if case.before else shared
            failures.append(await failure_of(server, auction_id, case))
            if case.before:
                await server.client(await token(server, "admin")).cancel(auction_id)
        assert [failure for failure in failures if failure] == []
        assert len(OVER_THE_LINE) >= 60
        server.house.live[shared].no_more_joins.set()
        events = [event async for event in server.client(await token(server, "admin")).watch(shared)]
        assert events[-1]["type"] == "auction.settled" and events[-1]["posted"]
        assert sum((await server.ledger.balances()).values()) == 0 and await server.ledger.audit() == []


async def closed_with(server: ToyServer, send: Callable[[ClientConnection], Any]) -> int | None:
    """The code with which the server closes after something that no message can be; it goes on serving others."""
    async with server.client().connection() as socket:
        await socket.recv()
        await send(socket)
        with pytest.raises(ConnectionClosed):
            while True:
                await socket.recv()
    async with server.client().connection() as other:
        await other.recv()
        assert (await answer(other, text("ping")))["type"] == "pong"
    return socket.close_code


async def test_frame_larger_than_any_message_closes_with_1009(server: ToyServer) -> None:
    assert await closed_with(server, lambda socket: socket.send(bytes(MAX_FRAME_BYTES + 1))) == 1009


async def test_text_that_is_not_utf8_closes_with_1007(server: ToyServer) -> None:
    assert await closed_with(server, lambda socket: socket.send(b"\xff\xfe", text=True)) == 1007


async def test_frame_that_claims_to_be_compressed_closes_with_1002(server: ToyServer) -> None:
    """Compression is not negotiated, so that a small frame can never become a large message."""

    async def bomb(socket: ClientConnection) -> None:
        frame = Frame(Opcode.TEXT, b"\x00" * 100).serialize(mask=True)
        socket.transport.write(bytes([frame[0] | 0x40]) + frame[1:])

    assert await closed_with(server, bomb) == 1002


async def test_compression_is_not_agreed_to(server: ToyServer) -> None:
    async with connect(f"ws{server.url.removeprefix('http')}/v1/stream", compression="deflate") as socket:
        assert socket.response is not None and "Sec-WebSocket-Extensions" not in socket.response.headers


async def test_many_wrong_messages_end_the_connection_and_no_other(start: Start) -> None:
    async with start() as server:

        async def flood(socket: ClientConnection) -> None:
            for _ in range(300):
                await socket.send("hello")

        assert await closed_with(server, flood) == 4029
