"""Studies: texts that are written to understand an auction, and what its record says of other bids. Nobody pays.

    without_ads   the text of a settled auction's own seed with the reference alone
    sweep         whom texts mention as weight moves to one agent
    landscape     what an agent would have spent and weighed at other bids (engine/landscape.py); writes nothing

Texts of studies share the decoder with auctions, a few at a time, and are on no ledger. It must not know HTTP.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tokenauction.engine.errors import InvalidSpec, TokenAuctionError
from tokenauction.engine.events import Event
from tokenauction.engine.guarantees import Rule
from tokenauction.engine.landscape import Point, Stake, landscape, why_not_exact
from tokenauction.engine.money import MICROS
from tokenauction.engine.seed import Seed
from tokenauction.engine.spec import AuctionSpec
from tokenauction.engine.value_landscape import value_landscape
from tokenauction.engine.weight_sweep import at_weight, mention_rates
from tokenauction.server.decoding import DecoderStopped
from tokenauction.server.house import RETRY_SECONDS, House
from tokenauction.server.ready import ready
from tokenauction.server.refusal import Refused

MAX_STUDIES = 2  # at a time; who comes then is told to come back
MAX_WRITING = 4  # texts of one study that are written at a time, beside the auctions
MAX_SWEEP_TOKENS = 64  # of each of its texts
MAX_POINTS, MAX_SEEDS = 11, 20  # of a sweep
MAX_KEPT = 64  # texts without ads that are remembered


class Studies:
    """The studies of one house."""

    def __init__(self, house: House) -> None:
        self.house = house
        self._num_running = 0
        self._kept: OrderedDict[str, Mapping[str, Any]] = OrderedDict()  # texts without ads, by auction

    async def without_ads(self, auction_id: str) -> Mapping[str, Any]:
        """The last event of the text that the auction's seed gives when every advertiser bids 0.

        Raises Refused (not_found, not_settled, capacity, draining), and ModelError where the model cannot write it.
        """
        if auction_id in self._kept:
            return self._kept[auction_id]
        record = await self.house.ledger.auction(auction_id)
        spec = await self._settled_spec(auction_id)
        assert record is not None, "an auction with a settlement is on the ledger"
        seed = record.spec["seed"]
        async with self._running():
            drawn = Seed(int(seed["value"], 16), bytes.fromhex(seed["nonce"]), seed["source"])
            settled = await self._write(without_bids(spec), drawn)
        self._kept[auction_id] = settled
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return settled

    async def sweep(
        self, spec: AuctionSpec, row: int, rules: Sequence[Rule], points: int, seeds: int
    ) -> AsyncGenerator[dict[str, Any]]:
        """A row of the table for each rule and weight of the agent in `row`, as soon as its texts are written.

        Raises InvalidSpec for what cannot be swept, Refused (capacity, draining), and ModelError.
        """
        check_sweepable(spec)
        names = {agent.id: agent.name for agent in spec.agents}
        async with self._running():
            for rule in rules:
                for weight in (point / (points - 1) for point in range(points)):
                    specs = [at_weight(spec, rule, weight, seed, row) for seed in range(seeds)]
                    texts = [settled["text"] for settled in await self._write_all(specs)]
                    mentions, alone, none = mention_rates(texts, names)
                    shares = {"num_texts": seeds, "mentions": mentions, "only": alone, "none": none}
                    yield {"rule": rule, "weight": weight, **shares, "example": texts[0]}

    async def landscape(self, auction_id: str, agent_id: str, points: int) -> tuple[AuctionSpec, str, list[Point]]:
        """The auction's spec, why there is no landscape (or ""), and an agent's points from 0 to three times its bid.

        In a softmax auction to three times its value per nat.

        Raises Refused (not_found, not_settled).
        """
        spec = await self._settled_spec(auction_id)
        ids = [agent.id for agent in spec.agents]
        if agent_id not in ids:
            raise Refused("not_found", f"{auction_id} has no agent {agent_id!r}")
        row = ids.index(agent_id)
        if spec.finalizer is not None:
            return spec, *await self._value_landscape(auction_id, spec, row, points)
        tokens = [event async for event in self.house.ledger.events(auction_id, kind="auction.token")]
        stakes, reason = stakes_of(tokens, agent_id)
        reason = why_not_exact(spec) or reason
        if reason:
            return spec, reason, []
        all_bids = [agent.bid_micros for agent in spec.agents]
        own = all_bids[row] or max(all_bids) or spec.reference_weight_micros
        return spec, "", landscape(spec, stakes, evenly(3 * own, points))

    async def _value_landscape(
        self, auction_id: str, spec: AuctionSpec, row: int, points: int
    ) -> tuple[str, list[Point]]:
        async for event in self.house.ledger.events(auction_id, kind="auction.finalized"):
            rewards = [agent["rewards"] for agent in event["agents"]]
            weights = [[each[name] for each in event["candidates"]] for name in ("log_reference", "log_proposal")]
            reference, proposal = or_ruled_out(weights)
            own = spec.agents[row].value_per_nat_micros or MICROS
            return "", value_landscape(spec, row, or_ruled_out(rewards), reference - proposal, evenly(3 * own, points))
        return "no candidate was chosen", []

    async def _settled_spec(self, auction_id: str) -> AuctionSpec:
        """The spec that a settled auction was run with, whoever had joined it among its agents."""
        if auction_id in self.house.live:
            raise Refused("not_settled", f"{auction_id} has not settled; come back when it has")
        if await self.house.ledger.auction(auction_id) is None:
            raise Refused("not_found", f"there is no auction {auction_id}")
        async for created in self.house.ledger.events(auction_id, kind="auction.created"):
            return AuctionSpec.from_mapping(created["spec"])
        raise Refused("not_begun", f"{auction_id} ended before its text began")

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        if self.house.is_draining:
            raise _draining()
        if self._num_running >= MAX_STUDIES:
            raise Refused("capacity", f"{MAX_STUDIES} studies are running, which is the limit; try again later")
        self._num_running += 1
        try:
            yield
        finally:
            self._num_running -= 1

    async def _write_all(self, specs: Sequence[AuctionSpec]) -> list[Mapping[str, Any]]:
        slots = asyncio.Semaphore(MAX_WRITING)

        async def write(spec: AuctionSpec) -> Mapping[str, Any]:
            async with slots:
                return await self._write(spec, Seed.of_caller(spec.seed or 0))

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(write(spec)) for spec in specs]
        except ExceptionGroup as several:  # one text that cannot be written ends the others
            raise several.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _write(self, spec: AuctionSpec, seed: Seed) -> Mapping[str, Any]:
        """The settlement of a text that is nobody's auction; whoever stops waiting for it stops it."""
        house = self.house
        study_id = f"study_{house.decoder.entropy(16).hex()}"
        performance = await ready(house.decoder, house.prepare, spec, study_id, seed)
        settled: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()

        def hear(event: Event) -> None:
            if event.type != "auction.settled":
                return
            del house.asides[study_id]
            if not settled.done():
                settled.set_result(event.fields)

        house.asides[study_id] = hear
        try:
            await house.thread.call(partial(house.decoder.enqueue, performance))
        except TokenAuctionError:
            del house.asides[study_id]
            raise
        try:
            fields = await settled
        except asyncio.CancelledError:
            with suppress(DecoderStopped, TokenAuctionError):  # it has ended in the meantime
                await asyncio.shield(house.thread.call(partial(house.decoder.cancel, study_id)))
            raise
        if fields["finish_reason"] == "cancelled":
            raise _draining()
        return fields


def _draining() -> Refused:
    return Refused("draining", f"the server is shutting down; try another in {RETRY_SECONDS} s")


def evenly(most: int, points: int) -> list[int]:
    """Whole micros from 0 to `most`, evenly."""
    return sorted({most * place // (points - 1) for place in range(points)})


def or_ruled_out(rows: Sequence[Sequence[float | None]]) -> Tensor:
    """A table of logarithms or rewards, in which nothing stands for -∞."""
    return torch.tensor([[-math.inf if x is None else x for x in row] for row in rows], dtype=torch.float64)


def without_bids(spec: AuctionSpec) -> AuctionSpec:
    """The spec with every bid 0, so that the reference writes alone; it is charged to nobody and told of in short."""
    agents = tuple(replace(agent, bid_micros=0, budget_micros=None, own_model=False) for agent in spec.agents)
    weight = spec.reference_weight_micros or 1
    alone = replace(spec, agents=agents, reference_weight_micros=weight, pricing="free", finalizer=None)
    return replace(alone, top_tokens=0, seed=None)


def check_sweepable(spec: AuctionSpec) -> None:
    """Raise InvalidSpec for what a sweep cannot write, or not in a time that others can wait for."""
    if spec.max_tokens > MAX_SWEEP_TOKENS:
        raise InvalidSpec(f"spec.max_tokens is {spec.max_tokens}; a sweep's texts have at most {MAX_SWEEP_TOKENS}")
    if spec.own_model_ids:
        raise InvalidSpec(f"agent {min(spec.own_model_ids)!r} runs its own model, which a sweep cannot ask")


def stakes_of(tokens: Sequence[Mapping[str, Any]], agent_id: str) -> tuple[list[Stake], str]:
    """An agent's stake in every token that it took part in, and why they do not suffice, or ""."""
    stakes, num_unknown = [], 0
    for token in tokens:
        own = next(agent for agent in token["agents"] if agent["id"] == agent_id)
        others = [agent for agent in token["agents"] if agent["id"] != agent_id and agent["effective_bid_micros"]]
        if own["tv"] is None:
            num_unknown += own["status"] != "absent"
            continue
        mass = sum(agent["effective_bid_micros"] * agent["probability"] for agent in others)
        weight = sum(agent["effective_bid_micros"] for agent in others)
        stakes.append(Stake(weight, own["probability"], mass, own["tv"]))
    if num_unknown:
        return stakes, f"at {num_unknown} tokens the agent had no weight, so nobody looked at its distribution"
    return stakes, "" if stakes else "the agent took part in no token"
