"""Programs that are not ours watch an auction: `python -m websockets`, Node's WebSocket and its `ws`, Chromium."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
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


WS_CLIENT = """
const WebSocket = require("ws");
const socket = new WebSocket(process.argv[1], "tokenauction.v1");
socket.on("open", () => socket.send(process.argv[2]));
socket.on("message", (data, isBinary) => {
  const text = data.toString();
  console.log(isBinary ? "binary" : text);
  if (JSON.parse(text).type === "auction.settled") socket.close(1000);
});
socket.on("close", (code) => process.exit(code === 1000 ? 0 : 1));
"""
PAGE_CLIENT = """
([url, subscribe]) => new Promise((resolve, reject) => {
  const socket = new WebSocket(url, "tokenauction.v1");
  const heard = [];
  socket.onopen = () => socket.send(subscribe);
  socket.onerror = () => resolve("refused");
  socket.onmessage = ({data}) => {
    heard.push(JSON.parse(data));
    if (heard.at(-1).type === "auction.settled") { socket.close(1000); resolve(heard); }
  };
})
"""
WS = "ws@8.18.3"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


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


@pytest.fixture(scope="module")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package `ws`."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("ws")
    install = [npm, "install", "--no-audit", "--no-fund", "--loglevel=error", WS]
    if subprocess.run(install, cwd=folder, capture_output=True, check=False, timeout=120).returncode:
        pytest.skip(f"npm cannot install {WS} here")
    return folder / "node_modules"


async def test_the_package_ws_of_node_watches_an_auction(server: Any, node_modules: Path) -> None:
    accepted = await server.client().begin(spec_of("0.002", "0.001", max_tokens=NUM_TOKENS))
    url = server.url.replace("http", "ws", 1) + "/v1/stream"
    subscribe = encode(Subscribe(auction_id=accepted["auction_id"])).decode()
    node = shutil.which("node")
    assert node is not None, "npm comes with it"
    program = f"module.paths.push({json.dumps(str(node_modules))});{WS_CLIENT}"
    assert_whole(await watch_with(node, "-e", program, "--", url, subscribe))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
async def test_chromium_watches_an_auction_from_a_page_of_the_server_alone(server: Any) -> None:
    playwright = pytest.importorskip("playwright.async_api")
    accepted = await server.client().begin(spec_of("0.002", "0.001", max_tokens=NUM_TOKENS))
    url = server.url.replace("http", "ws", 1) + "/v1/stream"
    asks = [url, encode(Subscribe(auction_id=accepted["auction_id"])).decode()]
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()
        await page.goto(f"{server.url}/healthz")
        assert_whole(await page.evaluate(PAGE_CLIENT, asks))
        await page.goto("about:blank")  # whose Origin is null
        assert await page.evaluate(PAGE_CLIENT, asks) == "refused"
        await browser.close()
