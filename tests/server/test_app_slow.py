"""Readers that do not read: a gap and a snapshot, a cut, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import socket as sockets
from collections.abc import Callable
from typing import Any

import pytest
from tests.server.toy_server import LONGEST_SECONDS, ToyServer, collect, in_stream, spec_of, step_until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tokenauction.server.wire import AgentJoin, Subscribe, encode

Start = Callable[..., Any]
LONG = 1_500  # tokens: more bytes than all buffers on the way take
MOST = LONG - 100  # of them, after which the auction still runs


async def slow_connection(server: ToyServer) -> ClientConnection:
    """A connection with small buffers, so that not reading shows soon."""
    host, port = server.url.removeprefix("http://").split(":")
    raw = sockets.socket()
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4_096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, (host, int(port)))
    return await connect(f"ws://{host}:{port}/v1/stream", sock=raw, max_queue=1, compression=None, ping_interval=None)


async def read_all(socket: ClientConnection) -> list[dict[str, Any]]:
    """Everything until the server closes."""
    events = []
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            while True:
                events.append(json.loads(await socket.recv()))
    except ConnectionClosed:
        return events


@pytest.mark.slow
async def test_viewer_that_falls_behind_gets_a_gap_and_a_snapshot_and_may_resume(start: Start) -> None:
    async with start(is_paced=True) as server:
        client = server.client()
        auction_id = (await client.begin(spec_of("0.002", "0.002", max_tokens=LONG, top_tokens=13)))["auction_id"]
        slow = await slow_connection(server)
        await slow.send(encode(Subscribe(auction_id=auction_id)).decode())
        await slow.recv()
        await slow.recv()
        watching = asyncio.create_task(collect(client.watch(auction_id)))
        live = server.house.live[auction_id]
        server.model.allow(MOST)
        async with asyncio.timeout(LONGEST_SECONDS):
            while live.num_tokens < MOST:
                await asyncio.wait([watching], timeout=0.05)
        events = await read_all(slow)
        server.model.free()
        others = in_stream(await watching)
        seen = [event["seq"] for event in in_stream(events)]
        rest = in_stream(await collect(client.watch(auction_id, seen[-1])))
    assert slow.close_code == 4008
    gap, snapshot = events[-2:]
    assert (gap["type"], gap["after_seq"]) == ("stream.gap", seen[-1])
    assert (snapshot["type"], snapshot["last_seq"]) == ("stream.snapshot", gap["last_seq"])
    assert snapshot["num_tokens"] >= MOST
    assert seen == list(range(1, len(seen) + 1)) and len(seen) < MOST
    assert [event["seq"] for event in rest] == list(range(seen[-1] + 1, LONG + 2))
    assert [event["seq"] for event in others] == list(range(LONG + 2))


@pytest.mark.slow
async def test_agent_that_falls_behind_is_closed_without_conflation_and_absent(start: Start) -> None:
    async with start(is_paced=True) as server:
        client = server.client()
        auction_id = (await client.begin(spec_of("0.002", "0.002", max_tokens=LONG, top_tokens=13)))["auction_id"]
        slow = await slow_connection(server)
        join = AgentJoin(auction_id=auction_id, agent_id="agent0", bid_micros=2_000)
        await slow.recv()
        await slow.send(encode(join).decode())
        await step_until(server.model, slow.recv())
        await slow.send(encode(Subscribe(auction_id=auction_id)).decode())
        await slow.recv()
        watching = asyncio.create_task(collect(client.watch(auction_id)))
        live = server.house.live[auction_id]
        server.model.allow(MOST)
        async with asyncio.timeout(LONGEST_SECONDS):
            while live.num_tokens < MOST:
                await asyncio.wait([watching], timeout=0.05)
        events = await step_until(server.model, read_all(slow))
        server.model.free()
        last = [event for event in await watching if event["type"] == "auction.token"][-1]
    assert slow.close_code == 4008
    assert [agent["status"] for agent in last["agents"]] == ["absent", "bid"], "until it joins again"
    assert not any(event["type"] == "stream.gap" for event in events)


@pytest.mark.slow
async def test_reader_that_is_stuck_is_cut_off_and_others_get_everything(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenauction.server.connection.SEND_SECONDS", 0.3)
    async with start(is_paced=True) as server:
        client = server.client()
        auction_id = (await client.begin(spec_of("0.002", "0.002", max_tokens=LONG, top_tokens=13)))["auction_id"]
        stuck = await slow_connection(server)
        await stuck.send(encode(Subscribe(auction_id=auction_id)).decode())
        await stuck.recv()
        [connection] = server.app.connections
        watching = asyncio.create_task(collect(client.watch(auction_id)))
        server.model.free()
        async with asyncio.timeout(15):
            while connection in server.app.connections:
                await asyncio.wait([watching], timeout=0.05)
        events = in_stream(await watching)
        stuck.transport.abort()
    assert [event["seq"] for event in events] == list(range(LONG + 2))
