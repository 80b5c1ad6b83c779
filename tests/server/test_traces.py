"""Traces: the spans of an auction, and that nobody pays for them who wants none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from tests.server.toy_server import collect, spec_of

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed: tokenauction[otel]")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tokenauction.server.telemetry import Telemetry
from tokenauction.server.traces import Traces

Start = Callable[..., Any]


@pytest.mark.parametrize(("join_ms", "parts"), [(0, []), (1, ["join"])])
async def test_auction_is_a_span_with_the_parts_of_its_life(start: Start, join_ms: int, parts: list[str]) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with start(telemetry=Telemetry(Traces(provider))) as server:
        client = server.client()
        auction_id = (await client.begin(spec_of("0.002", tmax_join_ms=join_ms)))["auction_id"]
        await collect(client.watch(auction_id))
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == [*parts, "first_token", "write", "settle", "auction"]
    auction = spans[-1]
    assert all(span.parent == auction.context for span in spans[:-1])
    assert auction.attributes == {
        "tokenauction.auction_id": auction_id,
        "tokenauction.finish_reason": "max_tokens",
        "tokenauction.num_tokens": 12,
        "tokenauction.posted": True,
    }
    assert all(one.end_time <= other.start_time for one, other in pairwise(spans[:-1]))


@pytest.mark.slow
def test_server_without_traces_does_not_import_opentelemetry() -> None:
    names = "{'opentelemetry.sdk', 'tokenauction.server.traces'}"
    program = f"import sys, tokenauction.clients.cli.serve; print({names} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"  # transformers may import what says that there is none
