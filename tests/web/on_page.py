"""What tests do on the page and read from it."""

from __future__ import annotations

from typing import Any

from tests.server.toy_server import ToyServer, collect, in_stream


async def fill_form(page: Any, *names: str, pace: str = "0", **options: str) -> None:
    """Two advertisers or more in the form; nothing is sent."""
    await page.wait_for_selector("#presets button")
    await page.fill("#query", "query")
    for index, name in enumerate(names):
        if await page.locator(f"#name-{index}").count() == 0:
            await page.click("text=Add an advertiser")
        await page.fill(f"#name-{index}", name)
        await page.fill(f"#offer-{index}", "an offer")
    await page.click("details.more summary")
    await page.select_option("#option-token_ms", pace)
    for option, value in options.items():
        await page.fill(f"#option-{option}", value)


async def settled_events(server: ToyServer, page: Any) -> list[dict[str, Any]]:
    """The stream of the auction that the page shows, once it has settled, as the ledger has it."""
    await page.wait_for_selector(".bill")
    return in_stream(await collect(server.client().watch(page.url.partition("#")[2])))


async def written(page: Any) -> str:
    """The text that stands on the page."""
    text: str = await page.locator(".paper .written").evaluate("node => node.textContent")
    return text


async def charted(page: Any) -> dict[str, int]:
    """The chart's last values, in micros by agent."""
    pairs = await page.locator(".chart-values li").evaluate_all(
        "items => items.map(li => [li.dataset.agent, +li.dataset.micros])"
    )
    return dict(pairs)
