"""The host's side of steps on the device: who takes part, what each step is told, what each step decided.

    step n:  tell step n what it needs → start it → read what step n - 1 decided, while n runs

So the device never waits for the host. The host learns a step late that a text has ended; the step of that text which
is then under way is dropped. Bids are read when a step is started, come back with what it decided, and are recorded as
they counted. Whoever is admitted anew (its gang is another one) starts from what was recorded. It must not know what a
recorder writes, nor how a model computes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from tokenauction.engine.aggregation import fault
from tokenauction.engine.auction import Auction, Bids
from tokenauction.engine.device_buffers import AUCTION_RESULTS, PRICINGS, ROW_RESULTS, Bucket, Buffers, host_result
from tokenauction.engine.device_control import Controller, Seat
from tokenauction.engine.device_step import Clear, DeviceStep
from tokenauction.engine.errors import TokenAuctionError
from tokenauction.engine.outcome import StepOutcome
from tokenauction.engine.policy import Policy
from tokenauction.engine.randomness import step_key
from tokenauction.engine.recorder import Recorder
from tokenauction.engine.report import Report
from tokenauction.engine.spec import AuctionSpec
from tokenauction.models.base import DeviceModel, Gang

_RING = 2  # steps whose results are on the way: the one that runs, and the one that is read


class Steppable(Protocol):
    """What the loop needs to know of an auction that runs."""

    gang: Gang | None

    @property
    def auction(self) -> Auction: ...

    @property
    def recorder(self) -> Recorder: ...


T = TypeVar("T", bound=Steppable)


@dataclass(frozen=True)
class Landed(Generic[T]):
    """What one step decided for one auction."""

    performance: T
    bids: Bids  # as they counted
    key: bytes
    outcome: StepOutcome | TokenAuctionError
    reports: Mapping[str, Report] = field(default_factory=dict)  # of agents with models of their own


@dataclass(frozen=True)
class _Flight(Generic[T]):
    """A step that was started, and where its result will be."""

    performances: list[T]
    seats: list[Seat]
    result: Tensor  # on the host
    arrived: torch.cuda.Event | None  # None where nothing runs beside the host


def is_covered(spec: AuctionSpec, policy: Policy) -> bool:
    """Whether steps on the device compute this auction: whole distributions under the linear rule, coupled."""
    is_whole = spec.top_k is None and (spec.top_p is None or spec.top_p >= 1) and not spec.floor
    is_plain = spec.rule == "linear" and spec.sampler == "coupled" and spec.pricing in PRICINGS
    return is_whole and is_plain and not (policy.has_bans or spec.top_tokens or spec.own_model_ids)


class DeviceLoop(Generic[T]):
    """Steps of any number of auctions on one model, each begun before the one in front has been read."""

    def __init__(self, model: DeviceModel, *, capture: bool, clear: Clear | None = None) -> None:
        """With `capture`, steps are CUDA graphs; without, the same functions run one by one, on any device."""
        self.model = model
        most = Bucket(model.max_rows, model.max_rows, 1)
        self.buffers = Buffers.new(most, model.num_columns, model.spare_page, model.device)
        self.device_step = DeviceStep(model, self.buffers, capture=capture, clear=clear)
        self._controller = Controller(model, self.buffers)
        flat, is_cuda = self.buffers.result.flat, model.device.type == "cuda"
        self._ring = [torch.empty(flat.shape, dtype=flat.dtype, pin_memory=is_cuda) for _ in range(_RING)]
        self._events = [torch.cuda.Event() if is_cuda else None for _ in range(_RING)]  # type: ignore[no-untyped-call]
        self._num_started = 0
        self._flight: _Flight[T] | None = None

    def step(self, performances: Sequence[T]) -> list[Landed[T]]:
        """Start the next step of these auctions, as far as they may draw another token; what the last one decided.

        Raises NoRoom, and changes nothing, when the model's memory does not reach: take one away and call again.
        """
        before = self._flight
        flying = {seat.gang for seat in before.seats} if before else set()
        able = [p for p in performances if _next_step(p, flying) < p.auction.spec.max_tokens]
        pages = self.model.grow([_gang(p) for p in able])
        seats = [self._seat(p, _next_step(p, flying)) for p in able]
        self._flight = self._start(able, seats, pages) if able else None
        return [] if before is None else self._land(before)

    @staticmethod
    def _seat(performance: T, step: int) -> Seat:
        auction = performance.auction
        bids = auction.read_bids()  # the one line on which a step on the device reads the bids
        return Seat(auction, _gang(performance), bids, step_key(performance.recorder.seed.value, step))

    def _start(self, performances: list[T], seats: list[Seat], pages: list[int]) -> _Flight[T]:
        bucket = Bucket.of([seat.gang.num_rows for seat in seats], self.buffers.most)
        self.device_step.prepare(bucket)
        self._controller.tell(seats, pages)
        self.device_step.run(bucket)
        place = self._num_started % _RING
        self._num_started += 1
        result, arrived = self._ring[place], self._events[place]
        result.copy_(self.buffers.result.flat, non_blocking=True)
        if arrived is not None:
            arrived.record()
        return _Flight(performances, seats, result, arrived)

    def _land(self, flight: _Flight[T]) -> list[Landed[T]]:
        """Wait for a step's result and read it, without the auctions that ended or lost their rows since."""
        if all(p.gang is not seat.gang for p, seat in zip(flight.performances, flight.seats, strict=True)):
            return []
        if flight.arrived is not None:
            flight.arrived.synchronize()
        result = host_result(flight.result, self.buffers.most)
        columns = {name: result[name].tolist() for name in (*AUCTION_RESULTS, *ROW_RESULTS)}
        landed, row = [], 0
        for number, (performance, seat) in enumerate(zip(flight.performances, flight.seats, strict=True)):
            rows = slice(row, row + seat.gang.num_rows)
            row = rows.stop
            if performance.gang is not seat.gang:
                continue
            bids = seat.auction.reweigh(seat.bids)
            assert columns["effective"][rows] == list(bids.effective), "device and host charge the same"
            landed.append(Landed(performance, bids, seat.key, _outcome(columns, number, rows, seat.auction.spec)))
        return landed


def _gang(performance: Steppable) -> Gang:
    assert performance.gang is not None, "whoever runs has a gang"
    return performance.gang


def _next_step(performance: Steppable, flying: Collection[Gang | None]) -> int:
    """Which of its tokens an auction draws next, the one under way counted as drawn."""
    return performance.auction.num_tokens + (performance.gang in flying)


def _outcome(
    columns: dict[str, list[float]], number: int, rows: slice, spec: AuctionSpec
) -> StepOutcome | TokenAuctionError:
    """What a step decided for one auction, from the columns of its result."""
    kind = int(columns["fault"][number])
    if kind:
        return fault(kind - 1)

    def column(name: str) -> tuple[float, ...]:
        return tuple(columns[name][rows])

    nothing = (None,) * (rows.stop - rows.start)
    return StepOutcome(
        token=int(columns["token"][number]),
        q=columns["q"][number],
        cdf_below=columns["cdf_below"][number],
        p=column("p"),
        r=column("r"),
        tv=column("tv"),
        influence=column("influence"),
        critical_bids=column("critical_bid"),
        owed=column("owed"),
        counterfactual_tokens=tuple(None if token < 0 else int(token) for token in column("counterfactual")),
        log_partitions=nothing,
        divergences=column("tv") if spec.pricing == "expected" else nothing,
        own_tokens=nothing,
    )
