"""OpenTelemetry spans of auctions: one each, and below it one for each part of its life. Needs `tokenauction[otel]`.

    auction ── join ── first_token ── write ── settle

Where spans go is said by OpenTelemetry's own environment variables (OTEL_EXPORTER_OTLP_ENDPOINT …). Nothing is made
global, and whoever wants no traces never imports this file. It must not know what an event says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, set_span_in_context

from tokenauction import __version__

MAX_OPEN = 10_000  # auctions; those beyond have no spans


@dataclass
class _Open:
    """An auction's span, and that of the part of its life it is in."""

    auction: Span
    part: Span


def otlp_provider() -> TracerProvider:
    """A provider that sends spans by OTLP over HTTP, in a thread of its own."""
    provider = TracerProvider(
        resource=Resource.create({"service.name": "tokenauction", "service.version": __version__})
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Traces:
    """The spans of one server's auctions."""

    def __init__(self, provider: TracerProvider) -> None:
        self.provider = provider
        self._tracer = provider.get_tracer("tokenauction", __version__)
        self._open: dict[str, _Open] = {}

    def begin(self, auction_id: str, part: str) -> None:
        """An auction begins, with this part of its life."""
        if len(self._open) < MAX_OPEN:
            span = self._tracer.start_span("auction", attributes={"tokenauction.auction_id": auction_id})
            self._open[auction_id] = _Open(span, self._part(span, part))

    def phase(self, auction_id: str, part: str) -> None:
        """The next part of its life begins; nothing happens where it is in that already."""
        found = self._open.get(auction_id)
        if found is not None and getattr(found.part, "name", "") != part:
            found.part.end()
            found.part = self._part(found.auction, part)

    def end(self, auction_id: str, attributes: Mapping[str, str | int | bool]) -> None:
        """The auction is over."""
        found = self._open.pop(auction_id, None)
        if found is not None:
            found.part.end()
            found.auction.set_attributes({f"tokenauction.{name}": value for name, value in attributes.items()})
            found.auction.end()

    def close(self) -> None:
        """Send what is left."""
        self.provider.shutdown()

    def _part(self, auction: Span, name: str) -> Span:
        return self._tracer.start_span(name, context=set_span_in_context(auction))
