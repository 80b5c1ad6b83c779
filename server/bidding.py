"""What agents do to an auction of the house: join it, bid, leave.

A bid is durable before it counts, and counts before it is answered: the answer names the first step that reads it. So
no token is ever priced by a bid that a crash could lose. It must not know sockets, nor whether somebody may act for an
agent.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from tokenauction.engine.errors import IllegalTransition
from tokenauction.engine.spec import AgentSpec
from tokenauction.server.auction_request import with_budget
from tokenauction.server.decoding import DecoderStopped
from tokenauction.server.house import House
from tokenauction.server.ledger import LedgerError
from tokenauction.server.live_auction import LiveAuction, Phase
from tokenauction.server.refusal import Refused


class Bidding:
    """The agents' side of a house."""

    def __init__(self, house: House) -> None:
        self.house = house
        self._orders = itertools.count()

    async def join(
        self,
        auction_id: str,
        agent_id: str,
        bid_micros: int,
        budget_micros: int | None,
        brief: Mapping[str, str] | None,
        own_vocabulary: str | None = None,
    ) -> int:
        """An agent takes part, or one that is listed is back; the step from which its bid counts.

        `own_vocabulary` is the hash of its own model's vocabulary, where it is to send distributions.

        Raises Refused (not_live, join_pending, joining_closed, brief_missing, left, capacity, hosted,
        wrong_vocabulary), the engine's errors and insufficient_funds.
        """
        live = self.house.find_live(auction_id)
        if own_vocabulary is not None:
            listed = live.agents.get(agent_id)
            if not (live.request.own_models if listed is None else listed.own_model):
                raise Refused("hosted", f"{agent_id!r} runs on the server's model in {auction_id}: join without one")
            self.house.desk.check_vocabulary(own_vocabulary)
        if agent_id in live.agents:
            return await self.bid(auction_id, agent_id, bid_micros, is_back=True)
        if agent_id in live.joining:
            raise Refused("join_pending", f"the joining of {agent_id!r} has not been answered yet")
        if live.phase is not Phase.JOINING:
            raise Refused("joining_closed", f"the time to join {auction_id} is over, and {agent_id!r} is not listed")
        if brief is None:
            raise Refused("brief_missing", "whoever joins says what it advertises: brief {name, offer}")
        source = {"id": agent_id, "bid": 0, **brief}
        agent = replace(AgentSpec.from_mapping(source, "brief"), bid_micros=bid_micros, budget_micros=budget_micros)
        agent = replace(agent, own_model=own_vocabulary is not None)
        agent = with_budget(agent, live.request.template)
        spec = live.request.spec_of((*live.agents.values(), agent))
        if len(spec.hosted_ids) + len(live.joining) > self.house.decoder.model.max_rows:
            raise Refused("capacity", f"the model has {self.house.decoder.model.max_rows} rows, which are taken")
        live.joining.add(agent_id)
        try:
            await self._put_down(live, agent)
        finally:
            live.joining.discard(agent_id)
        return 0

    async def _put_down(self, live: LiveAuction, agent: AgentSpec) -> None:
        """Hold the budget of an agent that joins, and keep its brief; then it takes part."""
        order = next(self._orders)
        await self.house.play_money.give([agent.id])
        budget = agent.budget_micros or 0
        await self.house.ledger.join(live.auction_id, agent.id, budget, agent.bid_micros, agent.to_mapping())
        if live.phase is not Phase.JOINING:  # what is held comes back with the settlement
            with suppress(LedgerError):  # it has settled
                await self.house.ledger.leave(live.auction_id, agent.id)
            raise Refused("joining_closed", f"the time to join {live.auction_id} ended meanwhile")
        live.applied[agent.id] = order
        live.agents[agent.id] = agent
        self.house.telemetry.joined(live.auction_id, agent.id)

    async def bid(
        self, auction_id: str, agent_id: str, bid_micros: int, bid_id: str | None = None, *, is_back: bool = False
    ) -> int:
        """Replace an agent's bid; the step from which it counts, drawn behind the bid's commit.

        An agent that `is_back` is absent no longer. A `bid_id` that came before changes nothing, and is answered as it
        was.

        Raises Refused (not_live, unknown_agent, left) and the ledger's errors.
        """
        live, loop = self.house.find_live(auction_id), asyncio.get_running_loop()
        began = loop.time()
        if agent_id not in live.agents:
            raise Refused("unknown_agent", f"{agent_id!r} takes no part in {auction_id}")
        if agent_id in live.left:
            raise Refused("left", f"{agent_id!r} has left {auction_id}")
        if live.request.template.finalizer is not None:
            if is_back:  # it looks on, with the eyes of a bidder
                return 0
            raise Refused("no_bids", f"{auction_id} is a softmax auction: what a nat is worth is fixed in its spec")
        order = next(self._orders)
        is_new = await self.house.ledger.accept_bid(auction_id, agent_id, bid_micros, bid_id)
        if not is_new:
            order = -1  # it was applied when it came first; a later one may count since
        key = None if bid_id is None else (agent_id, bid_id)
        if live.phase is Phase.JOINING:
            if order > live.applied.get(agent_id, -1) and agent_id in live.agents:
                live.applied[agent_id] = order
                live.agents[agent_id] = replace(live.agents[agent_id], bid_micros=bid_micros)
            step = 0
        else:
            await live.started.wait()
            step = await self._between_steps(live, partial(_apply, live, agent_id, bid_micros, order, is_back))
        self.house.telemetry.bid(auction_id, agent_id, loop.time() - began)
        return step if key is None else live.answers.setdefault(key, step)

    async def leave(self, auction_id: str, agent_id: str) -> int:
        """An agent takes part no longer: weight 0 from the returned step on, and what it owes stays owed."""
        live = self.house.find_live(auction_id)
        if agent_id not in live.agents or agent_id in live.left:
            raise Refused("unknown_agent", f"{agent_id!r} takes no part in {auction_id}")
        if live.request.template.finalizer is not None:
            raise Refused("no_bids", f"{auction_id} is a softmax auction: it takes no bid, and nobody leaves it")
        if live.phase is Phase.JOINING:
            await self.house.ledger.leave(auction_id, agent_id)
        if live.phase is Phase.JOINING:
            live.agents.pop(agent_id, None)
            return 0
        live.left.add(agent_id)
        await live.started.wait()
        step = await self._set_absent(live, agent_id, is_absent=True)
        if live.phase is Phase.RUNNING:
            await live.say("agent.left", {"agent_id": agent_id, "from_step": step})
        return step

    async def cut_off(self, auction_id: str, agent_id: str) -> None:
        """An agent that does not read is absent until it joins again; nothing happens where the auction is over."""
        with suppress(Refused):
            await self._set_absent(self.house.find_live(auction_id), agent_id, is_absent=True)

    async def _set_absent(self, live: LiveAuction, agent_id: str, *, is_absent: bool) -> int:
        """The step from which an agent is absent, or back."""
        if live.performance is None:
            return 0
        auction = live.performance.auction

        def change() -> int:
            auction.set_absent(agent_id, is_absent=is_absent)
            return auction.num_tokens

        step: int = await self._between_steps(live, change)
        return step

    async def _between_steps(self, live: LiveAuction, change: Callable[[], Any]) -> Any:
        if live.performance is None:
            raise Refused("not_live", f"{live.auction_id} ended before its text began")
        try:
            return await self.house.thread.call(change)
        except (IllegalTransition, DecoderStopped):
            raise Refused("not_live", f"the text of {live.auction_id} is complete: it takes no bids") from None


def _apply(live: LiveAuction, agent_id: str, bid_micros: int, order: int, is_back: bool) -> int:
    """Set a bid, unless a later one has been set; the step that reads it next. In the decoder's thread."""
    assert live.performance is not None, "a bid goes to the decoder when the decoder has the auction"
    auction = live.performance.auction
    if order > live.applied.get(agent_id, -1):
        auction.set_bid(agent_id, bid_micros)
        live.applied[agent_id] = order
    if is_back:
        auction.set_absent(agent_id, is_absent=False)
    return auction.num_tokens
