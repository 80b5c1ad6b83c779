"""Programs that are not ours: `python -m websockets` and Node's own WebSocket watch an auction to its end."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from tests.server.toy_server import LONGEST_SECONDS, in_stream, spec_of

from tokenauction.server.wire import Subscribe, encode

Start = Callable[..., Any]
NUM_TOKENS = 12
pytestmark = pytest.mark.slow

NODE_CLIENT = """
const socket = new WebSocket(process.argv[1], "tokenauction.v1");
socket.onopen = () => socket.send(process.argv[2]);
socket.onmessage = ({data}) => {
  console.log(data);
  if (JSON.parse(data).type === "auction.settled") socket.close();
};
"""


def node_speaks_websocket() -> bool:
    """Whether there is a Node that has a WebSocket of its own (20 behind a flag, 22 and newer without)."""
    node = shutil.which("node")
    if node is None:
        return False
    asks = [node, "--experimental-websocket", "-e", "process.exit(typeof WebSocket === 'function' ? 0 : 1)"]
    return subprocess.run(asks, capture_output=True, check=False, timeout=60).returncode == 0


async def watch_with(*command: str, say: bytes = b"") -> list[dict[str, Any]]:
    """What a program prints of an auction until it settles: whole messages, whatever stands around them."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    assert process.stdin is not None and process.stdout is not None, "they are pipes"
    process.stdin.write(say)
    await process.stdin.drain()
    events: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            while not events or events[-1]["type"] != "auction.settled":
                line = (await process.stdout.readline()).decode()
                assert line, f"{command[0]} ended behind {events}"
                start, end = line.find("{"), line.rfind("}")
                if 0 <= start < end:
                    events.append(json.loads(line[start : end + 1]))
    finally:
        process.kill()
        await process.communicate()
    return events


def assert_whole(events: list[dict[str, Any]]) -> None:
    assert [event["seq"] for event in in_stream(events)] == list(range(NUM_TOKENS + 2))
    assert len([event for event in events if event["type"] == "auction.token"]) == NUM_TOKENS


async def test_the_command_line_of_websockets_watches_an_auction(server: Any) -> None:
    accepted = await server.client().begin(spec_of("0.002", "0.001", max_tokens=NUM_TOKENS))
    url = server.url.replace("http", "ws", 1) + "/v1/stream"
    subscribe = encode(Subscribe(auction_id=accepted["auction_id"])) + b"\n"
    assert_whole(await watch_with(sys.executable, "-m", "websockets", url, say=subscribe))


@pytest.mark.skipif(not node_speaks_websocket(), reason="no Node with a WebSocket of its own is installed")
async def test_node_watches_an_auction(server: Any) -> None:
    accepted = await server.client().begin(spec_of("0.002", "0.001", max_tokens=NUM_TOKENS))
    url = server.url.replace("http", "ws", 1) + "/v1/stream"
    subscribe = encode(Subscribe(auction_id=accepted["auction_id"])).decode()
    node = shutil.which("node")
    assert node is not None
    assert_whole(await watch_with(node, "--experimental-websocket", "-e", NODE_CLIENT, "--", url, subscribe))
