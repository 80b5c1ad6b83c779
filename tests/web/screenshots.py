"""The pictures of the page in docs/images, and its short film for the README, made from real auctions.

    python -m tests.web.screenshots [FOLDER]

It starts the server with the shipped model, drives Chromium through the page's states at desktop and phone width, and
takes the film while a bid is moved. Seeds are given, so that the texts are the same each time. Run it at the root of
the checkout; it takes Pillow, which comes with the extra `plot`.
"""

from __future__ import annotations

import asyncio
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from playwright.async_api import async_playwright
from tests.web.conftest import CHROMIUM, FLAGS
from tests.web.shipped_server import serving

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
SIZES = {"desktop": {"width": 1280, "height": 860}, "phone": {"width": 390, "height": 844}}
FILM = {"width": 1080, "height": 620}
MOVED_AT = 12  # frames before a bid is raised
FRAME_MS = 160
NUM_COLOURS = 96
HAWAII = {
    "query": "Vacations in Hawaii",
    "agents": [
        {"id": "alpha", "name": "Alpha Airlines", "offer": "flights to Hawaii", "bid": "0.002"},
        {"id": "beta", "name": "Beta Resort", "offer": "a quiet beach resort", "bid": "0.002"},
    ],
    "max_tokens": 48,
    "seed": 35,
    "top_tokens": 6,
}
SOFTMAX = {
    "mechanism": "softmax",
    "query": "Vacations in Hawaii",
    "agents": [
        {**{k: v for k, v in agent.items() if k != "bid"}, "value_per_nat": "0.01"} for agent in HAWAII["agents"]
    ],
    "num_candidates": 6,
    "proposal": "token_auction",
    "tau": "0.01",
    "show_candidates": True,
    "max_tokens": 48,
    "seed": 12,
}


def keep(picture: bytes, path: Path) -> None:
    """Write a picture with few colours, which a page of flat ones does not miss."""
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


async def begin(url: str, spec: dict[str, Any], **changes: Any) -> str:
    """The address of a new auction."""
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        answer = await http.post("/v1/auctions", json={"spec": {**spec, **changes}})
        return f"{url}/#{answer.json()['auction_id']}"


async def take_pictures(browser: Any, url: str, folder: Path, size: str, scheme: str) -> None:
    """The page's states, in order."""
    context = await browser.new_context(viewport=SIZES[size], color_scheme=scheme, reduced_motion="reduce")
    page = await context.new_page()

    async def picture(name: str, *, is_whole: bool = True) -> None:
        await page.evaluate("scrollTo(0, 0)")
        await page.mouse.move(0, 0)
        suffix = "" if scheme == "light" else f"_{scheme}"
        keep(await page.screenshot(full_page=is_whole), folder / f"page_{name}_{size}{suffix}.png")

    await page.goto(url)
    await page.wait_for_selector("#presets button:nth-child(2)")
    await picture("start", is_whole=size == "phone")
    await page.goto(await begin(url, HAWAII, token_ms=120))
    await page.wait_for_selector(".token[data-step='17']")
    await picture("live", is_whole=False)
    await page.click(".token.t5[data-step]")
    await picture("token")
    if scheme == "dark":
        return await context.close()  # the others differ by their colours alone
    await page.get_by_role("button", name="Close").click()
    await page.wait_for_selector(".plain div[aria-live] .written")
    await page.wait_for_selector(".explore .chart canvas")
    await page.click(".explore .tools button")
    await page.wait_for_selector(".sweep-row:nth-child(7)")
    await page.click(".sweep-row:nth-child(4) button")
    await page.wait_for_selector(".verdict .outcome")
    await picture("bill")
    await page.goto(await begin(url, SOFTMAX))
    await page.wait_for_selector(".verdict .outcome")
    await picture("softmax")
    return await context.close()


async def take_film(browser: Any, url: str, path: Path) -> None:
    """A text as it is written, while Alpha Airlines raises its bid."""
    context = await browser.new_context(viewport=FILM, color_scheme="light")
    page = await context.new_page()
    await page.goto(await begin(url, HAWAII, token_ms=FRAME_MS))
    await page.wait_for_selector(".token[data-step='0']")
    frames: list[Image.Image] = []
    while not await page.locator(".bill").count():
        frames.append(Image.open(io.BytesIO(await page.screenshot())).convert("RGB"))
        if len(frames) == MOVED_AT:
            slider = page.locator(".bidder[data-agent=alpha] input[type=range]")
            await slider.focus()
            await slider.press("End")
    frames.append(Image.open(io.BytesIO(await page.screenshot())).convert("RGB"))
    await context.close()
    first, *others = [frame.quantize(NUM_COLOURS, dither=Image.Dither.NONE) for frame in frames]
    times = [FRAME_MS] * len(others) + [4_000]
    first.save(path, save_all=True, append_images=others, duration=times, loop=0, optimize=True)


async def main(folder: Path) -> None:
    """All of them."""
    with tempfile.TemporaryDirectory() as scratch:
        async with serving(Path(scratch)) as url, async_playwright() as driver:
            browser = await driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            for size, scheme in (("desktop", "light"), ("phone", "light"), ("desktop", "dark")):
                await take_pictures(browser, url, folder, size, scheme)
            await take_film(browser, url, folder / "page.gif")
            await browser.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES))
