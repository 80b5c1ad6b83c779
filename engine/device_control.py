"""The host's half of the device's buffers: who is where, and what a step is told.

Auctions stand in the order of coming, one row behind the other. When some leave and others come, what the device knows
of those that stay (tokens, totals, lengths: the host learns them a step late) is moved on the device. Everything goes
there from memory that is pinned for it, in the order of the device's own work, so nothing waits. It must not know what
a step computes, nor how its result comes back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tokenauction.engine.auction import Auction, Bids
from tokenauction.engine.device_buffers import PRICINGS, Buffers, new_control
from tokenauction.engine.randomness import coupled_uniforms
from tokenauction.models.base import DeviceModel, Gang


@dataclass(frozen=True)
class Seat:
    """One auction in one step."""

    auction: Auction
    gang: Gang
    bids: Bids  # as they were read for the step
    key: bytes  # the step's


class Controller:
    """Fills the buffers of one model."""

    def __init__(self, model: DeviceModel, buffers: Buffers) -> None:
        self.model = model
        self.buffers = buffers
        self._control = new_control(buffers.most)
        self._gangs: list[Gang] = []  # whose state the buffers hold, in order

    def tell(self, seats: Sequence[Seat], pages: Sequence[int]) -> None:
        """Say what a step of exactly these needs; `pages` holds, row after row, where it puts its token."""
        if [seat.gang for seat in seats] != self._gangs:
            self._arrange(seats)
        bids: list[int] = []
        tokens, prices, counterfactuals = [], [], []
        for seat in seats:
            bids += [0 if s == "absent" else b for b, s in zip(seat.bids.submitted, seat.bids.status, strict=True)]
            token, price, *rest = coupled_uniforms(seat.key, seat.auction.spec.row_ids)
            tokens.append(token)
            prices.append(price)
            counterfactuals += rest
        control = self._control
        for name, column in (("bid", bids), ("page", pages), ("counterfactual_uniform", counterfactuals)):
            control[name][: len(bids)] = column
        control["token_uniform"][: len(seats)] = tokens
        control["price_uniform"][: len(seats)] = prices
        self.buffers.control.flat.copy_(_pinned(control.flat, self.model.device), non_blocking=True)

    def _arrange(self, seats: Sequence[Seat]) -> None:
        known = set(self._gangs)
        kept = [seat.gang for seat in seats if seat.gang in known]
        assert [seat.gang for seat in seats[: len(kept)]] == kept, "who comes stands behind those that stay"
        if kept:
            self._keep(kept)
        if len(kept) < len(seats):
            self._add(seats[len(kept) :], len(kept), sum(gang.num_rows for gang in kept))
        num_rows = sum(seat.gang.num_rows for seat in seats)
        self.buffers.lengths[num_rows:].zero_()
        self.buffers.pages[num_rows:].fill_(self.buffers.spare_page)
        self._describe(seats)
        self._gangs = [seat.gang for seat in seats]

    def _keep(self, kept: Sequence[Gang]) -> None:
        """Close the gaps of those that left."""
        firsts, row = {}, 0
        for number, gang in enumerate(self._gangs):
            firsts[gang] = number, row
            row += gang.num_rows
        numbers = [firsts[gang][0] for gang in kept]
        rows = [firsts[gang][1] + place for gang in kept for place in range(gang.num_rows)]
        buffers = self.buffers
        for source, tensors in (
            (numbers, (buffers.tokens,)),
            (rows, (buffers.totals, buffers.lengths, buffers.pages)),
        ):
            index = self._on_device(np.array(source, np.int64))
            for tensor in tensors:
                tensor[: len(source)].copy_(tensor[index])

    def _add(self, seats: Sequence[Seat], number: int, row: int) -> None:
        """Put those that come behind the others, as the host knows them."""
        buffers = self.buffers
        tokens = np.array([seat.auction.token_ids[-1] for seat in seats], np.int64)
        totals = np.array([exact for seat in seats for exact in seat.auction.exact_micros])
        # `grow` has counted the token in that the coming step appends.
        lengths = [len(prompt) + seat.gang.num_tokens - 1 for seat in seats for prompt in seat.gang.prompts]
        tables = [pages for seat in seats for pages in self.model.pages_of(seat.gang)]
        pages = np.full((len(tables), self.model.num_columns), buffers.spare_page, np.int32)
        for place, table in enumerate(tables):
            pages[place, : len(table)] = table
        stop = row + len(lengths)
        buffers.tokens[number : number + len(seats)].copy_(self._on_device(tokens))
        buffers.totals[row:stop].copy_(self._on_device(totals))
        buffers.lengths[row:stop].copy_(self._on_device(np.array(lengths, np.int64)))
        buffers.pages[row:stop].copy_(self._on_device(pages))

    def _describe(self, seats: Sequence[Seat]) -> None:
        """What holds for as long as nobody comes or goes."""
        self._control = control = new_control(self.buffers.most)
        control["page"][:] = self.buffers.spare_page
        row = 0
        for number, seat in enumerate(seats):
            spec, count = seat.auction.spec, seat.gang.num_rows
            rows = slice(row, row + count)
            control["first"][number], control["count"][number] = row, count
            control["temperature"][number] = spec.temperature
            control["pricing"][number] = PRICINGS.index(spec.pricing)
            control["auction"][rows], control["live"][rows] = number, 1.0
            budgets = [math.inf if agent.budget_micros is None else agent.budget_micros for agent in spec.agents]
            control["budget"][rows] = [*budgets, math.inf][:count]
            control["pays"][row : row + len(spec.agents)] = 1.0
            row += count

    def _on_device(self, numbers: np.ndarray) -> Tensor:
        return _pinned(numbers, self.model.device).to(self.model.device, non_blocking=True)


def _pinned(numbers: np.ndarray, device: torch.device) -> Tensor:
    """A copy that the device may read whenever it gets there: PyTorch keeps pinned memory until it has."""
    tensor = torch.from_numpy(numbers)
    return tensor.pin_memory() if device.type == "cuda" else tensor
