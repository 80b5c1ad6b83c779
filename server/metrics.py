"""The numbers that a server counts while it works, for Prometheus; what can be looked up is looked up (gauges.py).

Everything is observed on the event loop, once a step, commit, bid or report; an observation takes one to two
microseconds. Each server has a registry of its own. It must not know what was sold, nor to whom.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import generate_latest

STEP = (0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 1.0)  # seconds
WAIT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
SHARE = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
OCCUPANCY = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
WRITES = (1, 2, 4, 8, 16, 32, 64, 128, 512, 4096)


class Metrics:
    """One server's counters and histograms."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

        def counter(name: str, help_text: str, *labels: str) -> Counter:
            return Counter(f"tokenauction_{name}", help_text, labels, registry=registry)

        def histogram(name: str, help_text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"tokenauction_{name}", help_text, buckets=buckets, registry=registry)

        self.step = histogram("step_seconds", "One step of the decoder: a token of every running auction.", STEP)
        self.auction_share = histogram(
            "step_auction_ratio", "Part of a step in which the model waits for the auction: draw, price, text.", SHARE
        )
        self.occupancy = histogram("batch_occupancy_ratio", "Rows taken in a step, of those the model has.", OCCUPANCY)
        self.first_token = histogram(
            "first_token_seconds", "From the request, or the end of the time to join, to the first token.", WAIT
        )
        self.tokens = counter("tokens_total", "Tokens sold.")
        self.begun = counter("auctions_begun_total", "Auctions that were begun, or taken up again.")
        self.ended = counter("auctions_ended_total", "Auctions that have ended, by why.", "reason")
        self.posted = counter(
            "money_posted_micros_total", "What settlements charged, in millionths of a currency.", "currency"
        )
        self.bid = histogram("bid_seconds", "From a bid to its answer, which is behind its commit.", WAIT)
        self.report = histogram("report_seconds", "What an agent's own model took for a distribution in time.", WAIT)
        self.missed = counter("reports_missed_total", "Distributions that were asked for and did not come in time.")
        self.suspended = counter("agents_suspended_total", "Times an agent was left out because it kept missing.")
        self.dropped = counter(
            "peers_dropped_total", "Connections closed because their peer did not read, by who it was.", "kind"
        )
        self.commit = histogram("ledger_commit_seconds", "From a transaction's last write to its being durable.", WAIT)
        self.writes = histogram("ledger_commit_writes", "Writes that shared a transaction.", WRITES)
        self.broker = Gauge("tokenauction_mqtt_connected", "1 while the broker is connected.", registry=registry)
        self.mirrored = counter("mqtt_events_total", "Events that the broker has acknowledged.")
        for kind in ("viewer", "agent"):  # so that each series is there before it first counts
            self.dropped.labels(kind)

    def text(self) -> bytes:
        """All of it, in the format that Prometheus reads."""
        return generate_latest(self.registry)
