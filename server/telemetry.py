"""What happens in a server, told to whoever watches it: numbers (metrics.py), lines (log.py), and traces if wanted.

The one place that the house and those around it call; each method is one thing that happened, on the event loop. What
is counted for every token costs microseconds. It must not know sockets, nor change anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tokenauction.engine.events import Event
from tokenauction.engine.spec import AgentSpec
from tokenauction.server.auction_request import AuctionRequest
from tokenauction.server.decoding import StepTimes
from tokenauction.server.log import logger
from tokenauction.server.metrics import Metrics

if TYPE_CHECKING:
    from tokenauction.server.traces import Traces

MAX_CURRENCIES = 32  # with a series of their own; a spec may name any three letters
log = logger()


class Watched(Protocol):
    """An auction of the house, as far as it is watched."""

    @property
    def auction_id(self) -> str: ...

    @property
    def owner(self) -> str: ...

    @property
    def created_at(self) -> float: ...

    @property
    def request(self) -> AuctionRequest: ...

    @property
    def agents(self) -> Mapping[str, AgentSpec]: ...


class Telemetry:
    """One server's watchers."""

    def __init__(self, traces: Traces | None = None) -> None:
        self.metrics = Metrics()
        self.traces = traces
        self._due: dict[str, float] = {}  # by auction, the time from which its first token is awaited
        self._currencies: set[str] = set()

    # --- Auctions ------------------------------------------------------------------------------------------------

    def adopted(self, live: Watched) -> None:
        """An auction is on the ledger, and runs here: a new one, or one that was open when the server stopped."""
        self.metrics.begun.inc()
        log.info("auction accepted", auction_id=live.auction_id, owner=live.owner, num_agents=len(live.agents))
        if self.traces is not None:
            self.traces.begin(live.auction_id, "join" if live.request.tmax_join_ms else "first_token")

    def joined(self, auction_id: str, agent_id: str) -> None:
        """An agent takes part that was not listed."""
        log.info("agent joined", auction_id=auction_id, agent_id=agent_id)

    def shown(self, live: Watched, event: Mapping[str, Any]) -> None:
        """An event was published."""
        kind: str = event["type"]
        if kind in ("auction.token", "auction.finalized"):
            if kind == "auction.finalized":  # a text that was chosen comes whole; others are counted by the step
                self.metrics.tokens.inc(event["num_tokens"])
            if live.auction_id in self._due:
                self._first_token(live.auction_id, event["time"])
        elif kind == "auction.created":
            can_join = live.request.tmax_join_ms > 0
            self._due[live.auction_id] = event["time"] if can_join else live.created_at
            log.info("text begins", auction_id=live.auction_id, agents=list(live.agents))
            if self.traces is not None:
                self.traces.phase(live.auction_id, "first_token")
        elif kind == "auction.settled":
            self._ended(live, event)
        elif kind == "agent.left":
            log.info("agent left", auction_id=live.auction_id, agent_id=event["agent_id"], step=event["from_step"])
        elif kind == "error":
            log.warning("auction failed", auction_id=live.auction_id, code=event["code"])

    def _first_token(self, auction_id: str, time: float) -> None:
        self.metrics.first_token.observe(max(0.0, time - self._due.pop(auction_id)))
        if self.traces is not None:
            self.traces.phase(auction_id, "write")

    def _ended(self, live: Watched, event: Mapping[str, Any]) -> None:
        """What is owed is posted by now."""
        self._due.pop(live.auction_id, None)
        reason, total = event["finish_reason"], event["total_micros"] if event["posted"] else 0
        self.metrics.ended.labels(reason).inc()
        if total:
            self.metrics.posted.labels(self._currency(event["currency"])).inc(total)
        about = {"finish_reason": reason, "num_tokens": event["num_tokens"], "posted": event["posted"]}
        log.info("auction settled", auction_id=live.auction_id, **about)
        if self.traces is not None:
            self.traces.end(live.auction_id, about)

    def _currency(self, currency: str) -> str:
        if len(self._currencies) < MAX_CURRENCIES:
            self._currencies.add(currency)
        return currency if currency in self._currencies else "other"

    # --- The decoder and the ledger ------------------------------------------------------------------------------

    def stepped(self, times: StepTimes, events: Sequence[Event]) -> None:
        """The decoder took a step that had something to tell."""
        tokens = [event for event in events if event.type == "auction.token"]
        if tokens or any(event.type == "candidates.progress" for event in events):
            self.metrics.step.observe(times.seconds)
            self.metrics.occupancy.observe(times.num_rows / times.max_rows)
        if tokens:
            self.metrics.tokens.inc(len(tokens))
            if times.model_seconds:  # none on a device: there host and model do not wait for each other
                here = tokens[0].fields["latency_ms"] / 1000 - times.model_seconds  # without what is done beside it
                self.metrics.auction_share.observe(min(1.0, max(0.0, here / times.seconds)))
        if self.traces is not None:
            for event in events:
                if event.type == "auction.settled":
                    self.traces.phase(event.auction_id, "settle")

    def committed(self, seconds: float, num_writes: int) -> None:
        """The ledger made a transaction durable; the seconds are those of its commit."""
        self.metrics.commit.observe(seconds)
        self.metrics.writes.observe(num_writes)

    def broker(self, *, is_connected: bool) -> None:
        """The MQTT broker has come or gone."""
        self.metrics.broker.set(is_connected)

    def mirrored(self) -> None:
        """The broker has acknowledged an event."""
        self.metrics.mirrored.inc()

    # --- Agents and watchers -------------------------------------------------------------------------------------

    def bid(self, auction_id: str, agent_id: str, seconds: float) -> None:
        """A bid counts, so many seconds after it came."""
        self.metrics.bid.observe(seconds)
        log.debug("bid accepted", auction_id=auction_id, agent_id=agent_id)

    def reported(self, seconds: float) -> None:
        """An agent's own model answered in time."""
        self.metrics.report.observe(seconds)

    def missed(self, auction_id: str, agent_id: str, *, is_suspended: bool) -> None:
        """An agent's own model did not answer in time."""
        self.metrics.missed.inc()
        if is_suspended:
            self.metrics.suspended.inc()
            log.warning("agent suspended: it keeps missing its time", auction_id=auction_id, agent_id=agent_id)

    def dropped(self, session_id: str, *, is_agent: bool, reason: str) -> None:
        """A peer that does not read was, or is about to be, cut off."""
        self.metrics.dropped.labels("agent" if is_agent else "viewer").inc()
        log.warning("peer dropped", session_id=session_id, reason=reason)
