"""How deep each queue of a server is and how many there are of everything: looked up when somebody asks, at no other
time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tokenauction import __version__
from tokenauction.server.context import Context
from tokenauction.server.live_auction import Phase


class Gauges(Collector):
    """What stands in one server's queues."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def collect(self) -> Iterator[Metric]:
        """Every gauge; called on the event loop."""
        house = self.context.house
        scheduler = house.decoder.scheduler
        build = GaugeMetricFamily("tokenauction_build_info", "What runs here; always 1.", labels=["version", "runner"])
        build.add_metric([__version__, house.decoder.model.runner], 1)
        yield build
        phases = Counter(str(live.phase) for live in list(house.live.values()))
        auctions = GaugeMetricFamily("tokenauction_auctions", "Auctions that have not ended.", labels=["phase"])
        for phase in Phase:
            if phase is not Phase.OVER:
                auctions.add_metric([str(phase)], phases[str(phase)])
        yield auctions
        queue = GaugeMetricFamily("tokenauction_queue_auctions", "Auctions at the decoder.", labels=["state"])
        for state, number in (
            ("waiting", len(scheduler.waiting)),
            ("reading", len(scheduler.reading)),
            ("running", len(scheduler.running)),
        ):
            queue.add_metric([state], number)
        yield queue
        text = "Times that an auction gave its rows back for lack of memory."
        yield CounterMetricFamily("tokenauction_preemptions", text, value=scheduler.num_preemptions)
        for name, text, value in (
            ("batch_rows_limit", "Rows that the model has.", house.decoder.model.max_rows),
            ("ledger_queue_writes", "Writes that wait for a transaction.", house.ledger.num_waiting),
            ("decoder_steps_ahead", "Steps whose tokens are not all durable yet.", house.thread.num_ahead),
            ("decoder_queue_commands", "Bids and others that wait for the step to end.", house.thread.num_commands),
            ("connections", "Open WebSockets.", len(self.context.peers.connections)),
            ("event_streams", "Open streams of server-sent events.", self.context.streams.num_open),
            ("draining", "1 while no new auction is taken.", int(house.is_draining)),
        ):
            yield GaugeMetricFamily(f"tokenauction_{name}", text, value=value)
