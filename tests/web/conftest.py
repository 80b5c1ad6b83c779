"""What the page's tests share: one headless Chromium, and pages that note whatever goes wrong in them."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.server.toy_server import toy_server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ROOT = Path(__file__).resolve().parents[2]
FLAGS = ("--no-sandbox", "--disable-dev-shm-usage")  # containers have neither the rights nor the room
LONGEST_MS = 60_000  # that a test waits for anything
WATCH_POLICY = """
window.violations = [];
const note = (event) => window.violations.push(event.violatedDirective + " " + event.blockedURI);
document.addEventListener("securitypolicyviolation", note);
"""

Open = Callable[..., AbstractAsyncContextManager[Any]]
Start = Callable[..., AbstractAsyncContextManager[Any]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Any]:
    """Chromium, once for all tests."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    playwright = pytest.importorskip("playwright.async_api")
    async with playwright.async_playwright() as driver:
        chromium = await driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        await chromium.close()


@pytest.fixture
def open_page(browser: Any) -> Open:
    """A page in a context of its own; at its end nothing may have been complained of but what is `expected`."""

    @asynccontextmanager
    async def opened(url: str, *, expected: Sequence[str] = (), **options: Any) -> AsyncIterator[Any]:
        context = await browser.new_context(**{"reduced_motion": "reduce", **options})
        context.set_default_timeout(LONGEST_MS)
        await context.add_init_script(WATCH_POLICY)
        page = await context.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(f"uncaught: {error}"))
        await page.goto(url)
        yield page
        said += await page.evaluate("window.violations")
        await context.close()
        complaints = [text for text in said if not any(part in text for part in expected)]
        assert not complaints, complaints

    return opened


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """`toy_server` on this test's ledger, where every account begins with money."""
    return partial(toy_server, tmp_path, play_micros=10**9)
