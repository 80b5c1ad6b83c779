"""The decoder's thread: what is asked of it between steps, how far it runs ahead, how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from tests.server.toy_server import SYMBOLS, PacedModel

from tokenauction.engine.decoder import Decoder
from tokenauction.engine.events import Event
from tokenauction.engine.policy import Policy
from tokenauction.engine.spec import AgentSpec, AuctionSpec
from tokenauction.models.toy import ToyWorld
from tokenauction.server.decoding import MAX_STEPS_AHEAD, DecoderStopped, DecodingThread


def decoder_of() -> Decoder:
    model = PacedModel(ToyWorld(3, SYMBOLS))
    return Decoder(model, stamp=lambda: ("evt", 0.0), entropy=lambda n: bytes(n))


async def test_call_gives_the_result_or_the_error_of_what_was_called() -> None:
    thread = DecodingThread(decoder_of(), lambda events: None)
    assert await thread.call(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await thread.call(lambda: 1 // 0)
    assert await thread.call(lambda: 8) == 8
    await thread.stop()
    with pytest.raises(DecoderStopped):
        await thread.call(lambda: 9)


async def test_decoder_runs_ahead_no_further_than_the_limit() -> None:
    taken: list[Sequence[Event]] = []
    is_full, is_over = asyncio.Event(), asyncio.Event()

    def take(events: Sequence[Event]) -> None:
        taken.append(events)
        if len(taken) == MAX_STEPS_AHEAD:
            is_full.set()
        if events[-1].type == "auction.settled":
            is_over.set()

    decoder = decoder_of()
    thread = DecodingThread(decoder, take)
    spec = AuctionSpec("query", (AgentSpec("a", "A", "offer", 1),), max_tokens=MAX_STEPS_AHEAD + 50)
    prompt = decoder.model.tokenizer.encode_prompt("a")
    await thread.call(lambda: decoder.submit(spec, [prompt], Policy(), "auction"))
    async with asyncio.timeout(30):
        await is_full.wait()
        assert await thread.call(lambda: len(taken)) == MAX_STEPS_AHEAD
        for _ in range(60):
            thread.release()
        await is_over.wait()
    await thread.stop()


async def test_error_of_the_decoder_is_told_once_and_ends_what_waits() -> None:
    decoder = decoder_of()
    thread = DecodingThread(decoder, lambda events: None)

    def spoil() -> None:
        decoder.scheduler.waiting.append(None)  # type: ignore[arg-type]  # what no caller could do

    await thread.call(spoil)
    with pytest.raises(AttributeError):
        await thread.ended
    with pytest.raises(DecoderStopped):
        await thread.call(lambda: 1)


async def test_error_of_whoever_takes_a_step_in_ends_the_decoder() -> None:
    def take(events: Sequence[Event]) -> None:
        raise ValueError("an event that cannot be kept")

    decoder = decoder_of()
    thread = DecodingThread(decoder, take)
    spec = AuctionSpec("query", (AgentSpec("a", "A", "offer", 1),), max_tokens=50)
    prompt = decoder.model.tokenizer.encode_prompt("a")
    await thread.call(lambda: decoder.submit(spec, [prompt], Policy(), "auction"))
    async with asyncio.timeout(30):
        with pytest.raises(ValueError, match="cannot be kept"):
            await thread.ended
    with pytest.raises(DecoderStopped):
        await thread.call(lambda: 9)
