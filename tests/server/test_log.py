"""The log: its two forms, what stands in it over a whole life of a server, and that no secret ever does."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.server.test_app_stream import ask, until
from tests.server.toy_server import ToyServer, collect, spec_of, step_until
from websockets.asyncio.client import connect

from tokenauction.server.log import HIDDEN, logger, redact, write_log
from tokenauction.server.wire import AgentJoin, BidUpdate

Start = Callable[..., Any]


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything that this process logs, from debug on, as JSON; whoever logged before does so again afterwards."""
    root, ours = logging.getLogger(), logging.getLogger("tokenauction")
    before = root.handlers[:], root.level, ours.handlers[:], ours.level
    stream = io.StringIO()
    write_log(stream, "json", "debug")
    yield stream
    root.handlers[:], root.level, ours.handlers[:], ours.level = before


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def whole_session(server: ToyServer, secrets: list[str]) -> str:
    """Create, join, bid, settle, tokens made, used, refused, replaced and revoked, a ticket, a receipt; `secrets` gets
    every one of them."""
    _, admin = await server.ledger.create_token(["admin"])
    secrets.append(admin)
    headers = {"Authorization": f"Bearer {admin}"}
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, headers=headers) as http:
        made = (await http.post("/v1/tokens", json={"scopes": ["bid"], "agent_id": "agent0"})).json()
        rotated = (await http.post(f"/v1/tokens/{made['token_id']}/rotate")).json()
        offers = (await http.post("/v1/tickets")).json()["subprotocols"]
        secrets += [made["secret"], rotated["secret"], offers[1].removeprefix("ticket.")]
        assert (await http.get("/v1/auctions", headers={"Authorization": "Bearer ta_guessed0123456789"})).is_error
        secrets.append("ta_guessed0123456789")
        client = server.client(admin)
        auction_id = (await client.begin(spec_of("0.002", "0.001", seed=None, tmax_join_ms=60_000)))["auction_id"]
        async with server.client(rotated["secret"]).connection() as socket:
            where = {"auction_id": auction_id, "agent_id": "agent0"}
            await ask(socket, AgentJoin(**where, bid_micros=3_000), "agent.joined")
            await ask(socket, BidUpdate(**where, bid_micros=4_321), "bid.accepted")
        async with connect(f"{server.url.replace('http', 'ws')}/v1/stream", subprotocols=offers, proxy=None) as socket:
            await until(socket, lambda event: event["type"] == "session.created")
        live = server.house.live[auction_id]
        secrets += [f"{live.seed.value:064x}", str(live.seed.value), live.seed.nonce.hex()]
        live.no_more_joins.set()
        events = await step_until(server.model, collect(client.watch(auction_id)))
        secrets += [event["key"] for event in events if "key" in event]
        receipt = (await http.get(f"/v1/auctions/{auction_id}/receipt")).text
        assert secrets[-1] in receipt
        assert (await http.delete(f"/v1/tokens/{rotated['token_id']}")).status_code == 204
    return auction_id


async def test_log_of_a_whole_session_names_ids_and_no_secret(start: Start, log: io.StringIO) -> None:
    secrets: list[str] = []
    async with start(is_open=False, is_paced=True) as server:
        auction_id = await whole_session(server, secrets)
    assert len(secrets) > 12 and all(len(secret) >= 20 for secret in secrets)
    written = log.getvalue()
    assert [secret for secret in secrets if secret in written] == []
    lines = lines_of(log)
    said = [str(value) for line in lines for name, value in line.items() if name != "timestamp"]  # which has digits too
    assert not any(word in value for value in said for word in ("offer", "4321"))  # nor what somebody bids, or says
    said = [line["event"] for line in lines if line.get("auction_id") == auction_id]
    assert said == ["auction accepted", "bid accepted", "bid accepted", "text begins", "auction settled"]
    said = [line["event"] for line in lines if "auction_id" not in line]
    assert said == ["serving", "token made", "token replaced", "token revoked", "draining", "stopped"]
    assert all(line["level"] and line["timestamp"].endswith("Z") for line in lines)
    assert {line["agent_id"] for line in lines if line["event"] == "bid accepted"} == {"agent0"}


def test_error_of_a_library_is_written_without_what_it_quotes(log: io.StringIO) -> None:
    secret, key = "ta_" + "a" * 43, "0f" * 32
    try:
        raise ValueError(f"cannot use Authorization: Bearer {secret}, nor {key}, nor postgresql://me:pass@host/db")
    except ValueError:
        logger().exception("it failed", url="postgresql://me:pass@host/db", seed=int(key, 16))
    logging.getLogger("sqlalchemy").error("key %s", key)
    written = log.getvalue()
    assert [hidden for hidden in (secret, key, "pass", str(int(key, 16))) if hidden in written] == []
    first, second = lines_of(log)
    assert "ValueError" in first["exception"] and first["url"] == f"postgresql://{HIDDEN}@host/db"
    assert second["event"] == f"key {HIDDEN}" and second["logger"] == "sqlalchemy"


@pytest.mark.parametrize(
    "harmless",
    ["auc_" + "0f" * 16, "tok_3b4a5445a4b9c1807cb6bb9c049bfc08", "2026-11-25T19:31:13.614843Z", "http://[::1]:8400/x"],
)
def test_ids_and_times_are_no_secrets(harmless: str) -> None:
    assert redact(harmless) == harmless


def test_text_log_is_one_line_an_event_whatever_is_in_it() -> None:
    root, ours = logging.getLogger(), logging.getLogger("tokenauction")
    before = root.handlers[:], root.level, ours.handlers[:], ours.level
    stream = io.StringIO()
    write_log(stream, "text", "warning")
    logger().info("not shown")
    logger().warning("peer dropped", session_id="ses_1", reason="two\nlines")
    root.handlers[:], root.level, ours.handlers[:], ours.level = before
    [line] = stream.getvalue().splitlines()
    assert line.endswith("warning peer dropped session_id=ses_1 reason=two\\nlines")


async def test_failure_of_the_loop_is_logged_too(log: io.StringIO) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": "something broke"})
    assert [(line["event"], line["logger"]) for line in lines_of(log)] == [("something broke", "asyncio")]
