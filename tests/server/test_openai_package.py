"""The `openai` package, unmodified, against a server: what it streams, lists and raises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import openai
import pytest
from tests.server.toy_server import LONGEST_SECONDS, ToyServer, collect, spec_of

from tokenauction.server.app import AppSettings
from tokenauction.server.presets import Presets

Start = Callable[..., Any]
SETTINGS = AppSettings(presets=Presets.of({"hawaii": spec_of("0.002", "0.001", seed=None)}))
ASK: dict[str, Any] = {"model": "auction/hawaii", "messages": [{"role": "user", "content": "Where to go?"}]}
pytestmark = pytest.mark.slow  # the package takes a second to load


@pytest.fixture
async def server(start: Start) -> AsyncIterator[ToyServer]:
    """A server that asks for tokens."""
    async with start(settings=SETTINGS, is_open=False) as running:
        yield running


def client_of(server: ToyServer, secret: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=secret, max_retries=0, timeout=LONGEST_SECONDS)


async def test_package_streams_an_auction_with_its_bill(server: ToyServer) -> None:
    async with client_of(server, (await server.ledger.create_token(["chat"]))[1]) as client:
        assert [model.id async for model in client.models.list()] == ["auction/hawaii"]
        assert (await client.models.retrieve("auction/hawaii")).owned_by == "tokenauction"
        stream = await client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
        auction = (chunks[-1].model_extra or {})["auction"]
        admin = (await server.ledger.create_token(["admin"]))[1]
        end = (await collect(server.client(admin).watch(auction["id"])))[-1]
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == end["text"]
    assert [line["total_micros"] for line in auction["bill"]] == [agent["total_micros"] for agent in end["agents"]]
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 12


async def test_package_takes_an_answer_and_an_auction_of_ones_own(server: ToyServer) -> None:
    own = {"auction": {"agents": [{"id": "agent0", "name": "Zero", "offer": "y", "bid": "0.001"}], "max_tokens": 4}}
    async with client_of(server, (await server.ledger.create_token(["admin"]))[1]) as client:
        answer = await client.chat.completions.create(**ASK, extra_body=own)
    assert answer.choices[0].finish_reason == "length" and answer.usage is not None
    assert (answer.model_extra or {})["auction"]["disclosure"]["by"] == [{"id": "agent0", "name": "Zero"}]


async def test_package_raises_what_it_raises_for_openai(server: ToyServer) -> None:
    async with client_of(server, "ta_wrong") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(**ASK)
    async with client_of(server, (await server.ledger.create_token(["chat"]))[1]) as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(**{**ASK, "model": "gpt-9"})
        assert caught.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as unsupported:
            await client.chat.completions.create(**ASK, n=2)
        assert unsupported.value.type == "invalid_request_error"
        with pytest.raises(openai.PermissionDeniedError):
            await client.chat.completions.create(**ASK, extra_body={"auction": {"agents": []}})
