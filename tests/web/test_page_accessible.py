"""The page for everybody: axe finds nothing serious in any of its states, on a phone and on a desk, light and dark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.server.toy_server import spec_of
from tests.web.conftest import Open, Start

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text(encoding="utf-8")
SERIOUS = ("serious", "critical")
SIZES = {"phone": {"width": 390, "height": 844}, "desk": {"width": 1280, "height": 900}}


async def offences(page: Any) -> list[str]:
    """What axe finds that is serious, a line each."""
    await page.evaluate(AXE)
    found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    serious = [violation for violation in found["violations"] if violation["impact"] in SERIOUS]
    return [f"{v['id']}: {node['target']} {node.get('failureSummary', '')}" for v in serious for node in v["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
async def test_axe_finds_nothing_serious(open_page: Open, start: Start, size: str, scheme: str) -> None:
    async with start(is_paced=True) as server:
        spec = spec_of("0.002", "0.001", "0.003", max_tokens=14, top_tokens=4, reference_weight="0.001")
        options = {"viewport": SIZES[size], "color_scheme": scheme, "bypass_csp": True}  # axe is no script of the page
        async with open_page(server.url, **options) as page:
            await page.wait_for_selector("#presets button")
            await page.click("details.more summary")
            assert not await offences(page)
            auction_id = (await server.client().begin(spec))["auction_id"]
            await page.goto(f"{server.url}/#{auction_id}")
            server.model.allow(6)
            await page.wait_for_selector(".token[data-step='4']")
            await page.click(".token[data-step='2']")
            await page.wait_for_selector(".looking table")
            assert not await offences(page)
            server.model.free()
            await page.wait_for_selector(".verdict .outcome")
            assert not await offences(page)
            width = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert width <= 0, "nothing is wider than the page"


async def test_page_is_usable_by_keys_alone(open_page: Open, start: Start) -> None:
    async with start() as server, open_page(server.url) as page:
        await page.wait_for_selector("#presets button")
        await page.focus("body")
        for _ in range(8):
            await page.keyboard.press("Tab")
            if await page.evaluate("document.activeElement.id") == "hawaii":
                break
        await page.keyboard.press("Enter")
        await page.wait_for_selector("#auction .token")
        assert await page.evaluate("document.activeElement.id") == "main", "the focus went to what is new"
        assert server.house.live


async def test_summaries_are_polite_and_tokens_are_not_read_out(open_page: Open, start: Start) -> None:
    async with start() as server:
        auction_id = (await server.client().begin(spec_of("0.002", "0.001", max_tokens=20)))["auction_id"]
        async with open_page(f"{server.url}/#{auction_id}") as page:
            await page.wait_for_selector(".bill")
            assert await page.locator("#summary").get_attribute("aria-live") == "polite"
            assert "The text is complete, with 20 tokens. Name0 pays $" in await page.inner_text("#summary")
            live = await page.evaluate(
                "!!document.querySelector('.written').closest('[aria-live], [role=status], [role=log]')"
            )
            assert not live
