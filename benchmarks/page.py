"""Whether the page stutters while a text rushes in: the time between its frames, in a headless Chromium.

    python benchmarks/page.py [--tokens 3000] [--rate 500] [--advertisers 3]

The toy model writes an endless text at the rate that is asked for; the server, its ledger and the page are the real
ones. Frames are counted from the first token to the last. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from peers_report import origin
from playwright.async_api import Browser, async_playwright
from rich.console import Console
from rich.table import Table

from tokenauction.clients.client import Client

ROOT = Path(__file__).resolve().parent.parent
STUTTER_MS = 50.0  # a frame that comes so late is seen
SLOWER = 0.6  # of the time between two tokens is left for the model: the rest goes into clearing and the ledger
WATCH_FRAMES = """
window.frames_at = [];
const note = (now) => {
  if (document.querySelector(".token[data-step]") && !document.querySelector(".bill")) window.frames_at.push(now);
  requestAnimationFrame(note);
};
requestAnimationFrame(note);
"""


@asynccontextmanager
async def toy_process(folder: Path, seconds_per_step: float) -> AsyncIterator[str]:
    """The URL of the tests' toy server in a process of its own."""
    ledger = f"sqlite+aiosqlite:///{folder / 'ledger.db'}"
    command = (sys.executable, "-m", "tests.server.toy_process", ledger, str(seconds_per_step))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None, "its output is a pipe"
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.terminate()
        await process.wait()


async def measure(browser: Browser, url: str, num_tokens: int, num_advertisers: int, top_tokens: int) -> dict[str, Any]:
    """One auction on a page of its own."""
    agents = [
        {"id": f"agent{i}", "name": f"Name{i}", "offer": "offer", "bid": f"0.00{i + 1}"} for i in range(num_advertisers)
    ]
    spec = {"query": "query", "agents": agents, "max_tokens": num_tokens, "top_tokens": top_tokens, "seed": 7}
    page = await browser.new_page(viewport={"width": 1280, "height": 900})
    await page.add_init_script(WATCH_FRAMES)
    async with Client(url) as client:
        auction_id = (await client.begin(spec))["auction_id"]
    await page.goto(f"{url}/#{auction_id}")
    await page.wait_for_selector(".bill", timeout=600_000)
    at: list[float] = await page.evaluate("window.frames_at")
    shown = await page.locator(".token[data-step]").count()
    await page.close()
    gaps = [later - earlier for earlier, later in pairwise(at)]
    ordered = sorted(gaps)
    return {
        "tokens": shown,
        "top_tokens": top_tokens,
        "tokens_per_s": shown / (at[-1] - at[0]) * 1e3,
        "frame_ms_p50": statistics.median(gaps),
        "frame_ms_p99": ordered[int(0.99 * len(ordered))],
        "frame_ms_max": ordered[-1],
        "frames": len(gaps),
        "late_frames": sum(gap > STUTTER_MS for gap in gaps),
    }


async def main() -> None:
    """Without and with what every side wanted in each event."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=3_000)
    parser.add_argument("--rate", type=float, default=500.0, help="tokens a second")
    parser.add_argument("--advertisers", type=int, default=3)
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        async with toy_process(Path(scratch), SLOWER / options.rate) as url, async_playwright() as driver:
            browser = await driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for top_tokens in (0, 6):
                results.append(await measure(browser, url, options.tokens, options.advertisers, top_tokens))
            await browser.close()
    table = Table(
        "top tokens", "tokens", "tokens/s", "frame ms, p50", "p99", "longest", f"later than {STUTTER_MS:.0f} ms"
    )
    for row in results:
        numbers = [f"{row[f'frame_ms_{name}']:.1f}" for name in ("p50", "p99", "max")]
        late = f"{row['late_frames']} of {row['frames']}"
        table.add_row(str(row["top_tokens"]), str(row["tokens"]), f"{row['tokens_per_s']:.0f}", *numbers, late)
    Console().print(table)
    print(json.dumps({**origin(), "advertisers": options.advertisers, "results": results}))


if __name__ == "__main__":
    asyncio.run(main())
