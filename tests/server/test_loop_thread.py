"""An event loop in another thread: results, errors and cancellation come through, and it ends."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tokenauction.server.loop_thread import LoopThread


async def test_work_runs_elsewhere_and_its_outcome_comes_back() -> None:
    thread = LoopThread("elsewhere")

    async def name() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    async def fail() -> None:
        raise ValueError("as it was raised")

    assert await asyncio.gather(thread.run(name()), thread.run(name())) == ["elsewhere"] * 2
    with pytest.raises(ValueError, match="as it was raised"):
        await thread.run(fail())
    thread.stop()
    assert "elsewhere" not in {other.name for other in threading.enumerate()}


async def test_whoever_gives_up_cancels_the_work() -> None:
    thread, begun, ended = LoopThread("elsewhere"), threading.Event(), threading.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    waiting = asyncio.create_task(thread.run(wait()))
    await asyncio.to_thread(begun.wait)
    waiting.cancel()
    assert await asyncio.to_thread(ended.wait, 60)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    thread.stop()


async def test_work_does_not_wait_for_a_busy_loop() -> None:
    thread, done = LoopThread("elsewhere"), threading.Event()

    async def take_turns() -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        done.set()

    working = asyncio.create_task(thread.run(take_turns()))
    await asyncio.sleep(0)
    assert done.wait(60), "this loop gave nobody a turn meanwhile"
    await working
    thread.stop()
