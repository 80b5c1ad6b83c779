"""Traces: the spans of an auction, and that nobody pays for them who wants none."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest
from tests.server.toy_server import collect, spec_of

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed: tokenauction[otel]")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tokenauction.server.telemetry import Telemetry
from tokenauction.server.traces import Traces, otlp_provider

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


async def test_spans_go_by_otlp_to_where_the_environment_says(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing on stderr."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        traces = Traces(otlp_provider())
        async with start(telemetry=Telemetry(traces)) as server:
            auction_id = (await server.client().begin(spec_of("0.002")))["auction_id"]
            await collect(server.client().watch(auction_id))
        await asyncio.to_thread(traces.close)
        collector.shutdown()
    assert auction_id.encode() in b"".join(bodies) and b"first_token" in b"".join(bodies)


@pytest.mark.slow
def test_server_without_traces_does_not_import_opentelemetry() -> None:
    names = "{'opentelemetry.sdk', 'tokenauction.server.traces'}"
    program = f"import sys, tokenauction.clients.cli.serve; print({names} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"  # transformers may import what says that there is none
