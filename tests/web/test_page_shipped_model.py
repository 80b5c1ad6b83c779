"""One click on the shipped model: a newcomer's first minute, on the server as it is started from the command line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from tests.web.conftest import Open
from tests.web.on_page import charted, written
from tests.web.shipped_server import serving, tokenauction

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A server for all tests of this file."""
    async with serving(tmp_path_factory.mktemp("ledger")) as address:
        yield address


async def test_one_click_writes_settles_and_checks_an_ad(open_page: Open, url: str, tmp_path: Path) -> None:
    async with open_page(url) as page, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        await page.wait_for_selector("#presets button")
        await page.click("#hawaii")
        await page.wait_for_selector("#auction .token")
        assert (await page.inner_text(".bar-top .disclosure")).split()[0] == "Sponsored"
        await page.wait_for_selector(".bill")
        auction_id = page.url.partition("#")[2]
        summary = (await http.get(f"/v1/auctions/{auction_id}")).json()
        assert await written(page) == summary["text"] != ""
        rows = await page.locator(".bill tbody tr").evaluate_all(
            "rows => rows.map(r => [r.dataset.agent, +r.dataset.micros])"
        )
        assert await charted(page) == dict(rows)
        await page.wait_for_selector(".verdict .outcome")
        holds = await page.locator(".verdict .outcome").evaluate("node => node.dataset.ok === 'true'")
        async with page.expect_download() as waiting:
            await page.get_by_role("button", name="Download the receipt").click()
        receipt = tmp_path / "receipt.jsonl"
        await (await waiting.value).save_as(receipt)
        verify = await tokenauction("verify", str(receipt))
        said = (await verify.communicate())[0].decode()
        assert holds and verify.returncode == 0, said
        await page.wait_for_selector(".plain .written:nth-of-type(2), .plain div[aria-live] .written")
        await page.wait_for_selector(".explore .chart canvas")


async def test_every_example_runs_from_the_page(open_page: Open, url: str) -> None:
    async with open_page(url) as page:
        await page.wait_for_selector("#presets button:nth-child(4)")
        for number in range(await page.locator("#presets button").count()):
            await page.goto(f"{url}/#")
            button = page.locator("#presets button").nth(number)
            await button.click()
            assert await button.get_attribute("aria-pressed") == "true"
            if not await page.locator("details.more").get_attribute("open"):
                await page.locator("details.more").evaluate("node => { node.open = true; }")
            if await page.is_visible("#option-token_ms"):
                await page.select_option("#option-token_ms", "0")
            await page.click("text=Start the auction")
            await page.wait_for_selector(".bill")
            await page.wait_for_selector(".verdict .outcome.good")
