"""Server-sent events: the same events as on the WebSocket, resumed by id, and cut off where nobody reads."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from tests.server.toy_server import LONGEST_SECONDS, ToyServer, collect, spec_of

from tokenauction.server.event_stream import frame_of, read_event_id
from tokenauction.server.refusal import Refused

Start = Callable[..., Any]


@pytest.fixture
async def http(server: ToyServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=LONGEST_SECONDS) as client:
        yield client


async def frames(http: httpx.AsyncClient, auction_id: str, last: str | None = None, most: int = 10**6) -> list[Any]:
    """(id, event, data) of every frame, at most so many."""
    headers = {"Accept": "text/event-stream"} | ({} if last is None else {"Last-Event-ID": last})
    found: list[Any] = []
    fields: dict[str, str] = {}
    async with http.stream("GET", f"/v1/auctions/{auction_id}/events", headers=headers) as answer:
        assert answer.status_code == 200 and answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        async for line in answer.aiter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
                continue
            found.append((fields.get("id"), fields.get("event"), json.loads(fields.get("data", "null"))))
            fields = {}
            if len(found) == most:
                break
    return found


async def test_stream_over_http_is_the_stream_of_the_websocket(server: ToyServer, http: httpx.AsyncClient) -> None:
    auction_id = (await server.client().begin(spec_of("0.002", "0.001")))["auction_id"]
    live = await frames(http, auction_id)
    watched = [event for event in await collect(server.client().watch(auction_id))]

    def without(event: dict[str, Any]) -> dict[str, Any]:  # how far the ledger was when it was sent
        return {name: value for name, value in event.items() if name != "durable_seq"}

    assert [without(data) for _, _, data in live] == [without(event) for event in watched]
    assert [event for _, event, _ in live] == [event["type"] for event in watched]
    assert [place for place, _, data in live if "seq" in data] == [f"1-{seq}" for seq in range(14)]


@pytest.mark.parametrize("seen", ["1-4", "4"])
async def test_reader_resumes_behind_its_last_event(server: ToyServer, http: httpx.AsyncClient, seen: str) -> None:
    auction_id = (await server.client().begin(spec_of("0.002", "0.001")))["auction_id"]
    begun = await frames(http, auction_id, most=5)
    rest = await frames(http, auction_id, seen)
    seqs = [data["seq"] for _, _, data in [*begun, *rest] if "seq" in data]
    assert seqs == list(range(14))


async def test_reader_that_has_seen_the_end_is_told_that_nothing_follows(
    server: ToyServer, http: httpx.AsyncClient
) -> None:
    events = await collect(server.client().create(spec_of("0.002")))
    url = f"/v1/auctions/{events[-1]['auction_id']}/events"
    assert (await http.get(url, headers={"Last-Event-ID": f"1-{events[-1]['seq']}"})).status_code == 204


@pytest.mark.parametrize(
    ("last", "code"),
    [("x", "invalid_request"), ("1-", "invalid_request"), ("-1", "invalid_request"), ("1-2-3", "invalid_request"),
     ("9" * 60, "invalid_request"), ("٣", "invalid_request"), ("1-99", "after_seq"), ("99", "after_seq")],
)  # fmt: skip
async def test_id_that_is_none_of_the_stream_is_refused(
    server: ToyServer, http: httpx.AsyncClient, last: str, code: str
) -> None:
    auction_id = (await collect(server.client().create(spec_of("0.002"))))[-1]["auction_id"]
    answer = await http.get(f"/v1/auctions/{auction_id}/events", headers={"Last-Event-ID": last.encode()})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, code)


async def test_unknown_auction_has_no_events(http: httpx.AsyncClient) -> None:
    assert (await http.get("/v1/auctions/auc_none/events")).status_code == 404


async def test_public_reader_sees_no_numbers_and_the_owner_its_own(start: Start) -> None:
    async with start(is_open=False) as server:
        secrets = {scope: (await server.ledger.create_token([scope]))[1] for scope in ("admin", "watch", "chat")}
        auction_id = (await server.client(secrets["admin"]).begin(spec_of("0.002", "0.001")))["auction_id"]
        seen = {}
        for scope, secret in secrets.items():
            headers = {"Authorization": f"Bearer {secret}"}
            async with httpx.AsyncClient(base_url=server.url, trust_env=False, headers=headers) as http:
                if scope == "chat":  # another one's auction
                    assert (await http.get(f"/v1/auctions/{auction_id}/events")).status_code == 403
                else:
                    seen[scope] = await frames(http, auction_id)
    assert all(agent for _, event, data in seen["admin"] if event == "auction.token" for agent in data["agents"])
    assert not any(data.get("agents") for _, _, data in seen["watch"])


async def test_reader_that_goes_away_is_forgotten(start: Start) -> None:
    async with start(is_paced=True) as server:
        auction_id = (await server.client().begin(spec_of("0.002")))["auction_id"]
        readers = server.house.live[auction_id].channel.readers
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
            await frames(http, auction_id, most=1)
        async with asyncio.timeout(LONGEST_SECONDS):
            while readers or server.app.context.streams.num_open:
                await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_reader_that_does_not_read_is_cut_off(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenauction.server.event_stream.SEND_SECONDS", 0.05)
    async with start() as server:
        auction_id = (await server.client().begin(spec_of("0.002", "0.001", max_tokens=2_000)))["auction_id"]
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            deaf.sendall(f"GET /v1/auctions/{auction_id}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            end = (await collect(server.client().watch(auction_id)))[-1]
            assert end["finish_reason"] == "max_tokens"  # it was not held up
            async with asyncio.timeout(LONGEST_SECONDS):
                while server.app.context.streams.num_open:
                    await asyncio.sleep(0.01)


async def test_silence_is_filled_with_comments(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenauction.server.following.IDLE_SECONDS", 0.01)
    async with start(is_paced=True) as server:
        auction_id = (await server.client().begin(spec_of("0.002")))["auction_id"]
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
            found = await frames(http, auction_id, most=6)  # the first token is on its way
        assert found[0][1] == "auction.created" and found[-2:] == [(None, None, None)] * 2


def test_frame_holds_the_text_as_it_is() -> None:
    text = '{"type":"auction.token","seq":3,"epoch":2,"text":"a\\nb"}'
    assert frame_of(text) == f"id: 2-3\nevent: auction.token\ndata: {text}\n\n"
    assert frame_of('{"type":"payment.posted"}') == 'event: payment.posted\ndata: {"type":"payment.posted"}\n\n'


@pytest.mark.parametrize(("last", "place"), [(None, (None, -1)), ("", (None, -1)), ("7", (None, 7)), ("2-7", (2, 7))])
def test_event_id_is_epoch_and_seq(last: str | None, place: tuple[int | None, int]) -> None:
    assert read_event_id(last) == place


def test_event_id_beyond_all_numbers_is_refused() -> None:
    with pytest.raises(Refused):
        read_event_id("1" * 16)
