"""The page when something breaks: a killed server, a stream that skips, a reader that lags, names meant to harm."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.server.kills import toy_process
from tests.server.toy_server import collect, in_stream, spec_of
from tests.web.conftest import Open, Start
from tests.web.on_page import charted, fill_form, settled_events, written

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

LOST = ("WebSocket connection to", "net::ERR_")  # what browsers say of a server that is gone


async def test_page_goes_on_when_its_server_is_killed_and_started_again(open_page: Open, tmp_path: Path) -> None:
    ledger_url = f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}"
    async with toy_process(ledger_url) as server:
        url = server.client.url
        spec = spec_of("0.002", "0.001", max_tokens=60, token_ms=40, top_tokens=3)
        auction_id = (await server.client.begin(spec))["auction_id"]
        async with open_page(f"{url}/#{auction_id}", expected=LOST) as page:
            await page.wait_for_selector(".token[data-step='10']")
            await server.end(signal.SIGKILL)
            await page.wait_for_selector("#connection[data-state=reconnecting]")
            assert "Reconnecting" in await page.inner_text("#connection")
            async with toy_process(ledger_url, port=int(url.rpartition(":")[2])) as second:
                await page.evaluate("() => dispatchEvent(new Event('online'))")  # its next try comes now, not in 5 s
                await page.wait_for_selector(".paper .notice:has-text('restarted')")
                await page.wait_for_selector(".bill")
                events = in_stream(await collect(second.client.watch(auction_id)))
                assert await written(page) == events[-1]["text"]
                bill = {agent["id"]: agent["total_micros"] for agent in events[-1]["agents"]}
                assert await charted(page) == bill
                await page.wait_for_selector(".verdict .outcome.good")
    assert any(event["type"] == "stream.reset" for event in events) and events[-1]["num_tokens"] == 60


async def test_page_shows_a_snapshot_behind_a_gap_and_then_every_token(open_page: Open, start: Start) -> None:
    async with start(is_paced=True) as server:
        auction_id = (await server.client().begin(spec_of("0.002", "0.001", max_tokens=30)))["auction_id"]
        sockets: list[Any] = []

        async def lagging(socket: Any) -> None:
            """Up to the sixth event all is passed on, then only what a slow reader is told; on the next one, all."""
            upstream, is_first = socket.connect_to_server(), not sockets
            sockets.append(socket)

            def from_server(message: str) -> None:
                if not is_first or json.loads(message).get("seq", 0) < 6:
                    socket.send(message)

            upstream.on_message(from_server)

        async with open_page("about:blank") as page:
            await page.route_web_socket("**/v1/stream", lagging)
            await page.goto(f"{server.url}/#{auction_id}")
            server.model.allow(5)
            await page.wait_for_selector(".token[data-step='4']")
            server.model.allow(5)
            while (live := server.house.live[auction_id]).num_tokens < 9:
                await asyncio.sleep(0)
            told = {"event_id": "e", "time": 0.0, "auction_id": auction_id, "last_seq": 9}
            sockets[0].send(json.dumps({"type": "stream.gap", "after_seq": 5, **told}))
            state = {"epoch": 1, "state": "running", "num_tokens": live.num_tokens, "text": live.text}
            sockets[0].send(json.dumps({"type": "stream.snapshot", **told, **state}))
            await page.wait_for_selector(".paper .notice:has-text('fell behind')")
            assert (await written(page)).startswith(live.text[:3])
            await sockets[0].close(code=4008)
            server.model.free()
            events = await settled_events(server, page)
            assert await written(page) == events[-1]["text"] and await page.locator(".token[data-step]").count() == 30


HOSTILE = [
    "<img src=x onerror=window.pwned=1>",
    "</script><script>window.pwned=1</script>",
    "\u202eevil\u202c \u200fAcme\u2066",
    "🏝️👩‍👩‍👧‍👦 Ünïcødé 旅行 ﷽",
    "javascript:alert(1) {{7*7}} ${window.pwned=1} %3Cimg%3E",
    "W" * 4_000,
]


async def test_hostile_names_are_text_wherever_they_stand(open_page: Open, start: Start) -> None:
    async with start() as server:
        spec = spec_of(*["0.002"] * len(HOSTILE), max_tokens=8, top_tokens=2, reference_weight="0.001")
        for agent, name in zip(spec["agents"], HOSTILE, strict=True):
            agent |= {"name": name, "offer": name}
        auction_id = (await server.client().begin({**spec, "query": "query"}))["auction_id"]
        await collect(server.client().watch(auction_id))
        async with open_page(f"{server.url}/#{auction_id}", viewport={"width": 390, "height": 800}) as page:
            await page.wait_for_selector(".verdict .outcome")
            await page.click(".token[data-step='3']")
            for place in (
                ".bidder .name",
                ".bill .name",
                ".disclosure .name",
                ".looking tbody .name",
                ".wants h4 .name",
            ):
                texts = await page.locator(place).evaluate_all("nodes => nodes.map(node => node.textContent)")
                assert set(HOSTILE) <= set(texts), place
                isolated = await page.locator(place).evaluate_all(
                    "nodes => nodes.every(n => getComputedStyle(n).unicodeBidi === 'isolate')"
                )
                assert isolated, place
            assert await page.evaluate("document.images.length") == 0
            assert await page.evaluate("window.pwned") is None
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
                "nothing pushes the page wide"
            )


async def test_names_beyond_the_limit_are_refused_in_the_form(open_page: Open, start: Start) -> None:
    async with start() as server, open_page(server.url) as page:
        await fill_form(page, "n" * 10_000, "agent1")
        await page.click("text=Start the auction")
        await page.wait_for_selector("#form .notice")
        assert "the limit is 4000" in await page.inner_text("#form .notice")


async def test_text_of_thousands_of_tokens_is_whole(open_page: Open, start: Start) -> None:
    async with start() as server:
        spec = spec_of("0.002", "0.001", max_tokens=3_000, reference_weight="0.001")
        auction_id = (await server.client().begin(spec))["auction_id"]
        async with open_page(f"{server.url}/#{auction_id}") as page:
            events = await settled_events(server, page)
            assert await written(page) == events[-1]["text"]
            assert await page.locator(".token[data-step]").count() == 3_000
            bill = {agent["id"]: agent["total_micros"] for agent in events[-1]["agents"] if agent["id"] != "reference"}
            assert await charted(page) == bill
