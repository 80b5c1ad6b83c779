"""The tensors that a step on the device reads and writes: always the same memory, so that a step can be replayed.

    Control   what the host says of one step: bids, uniforms, who is where           host → device, one copy a step
    State     what one step leaves to the next: token, totals, lengths, pages        stays on the device
    Result    what a step decided                                                    device → host, one copy a step

Numbers are float64, which holds every token, page and micro exactly. Auctions and rows fill their columns from the
left; a step looks at the first few only (`Bucket`), and what is not in use among those is a row of nobody (`live` 0) or
an auction of no rows. It must not know how anything is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int, Int64
from torch import Tensor

AUCTION_CONTROLS = (
    "first",  # its first row; the others follow
    "count",  # its rows
    "token_uniform",
    "price_uniform",
    "temperature",
    "pricing",  # its place among PRICINGS
)
ROW_CONTROLS = (
    "auction",  # whose row it is
    "live",  # 1; 0 for padding
    "page",  # that holds the token which this step appends
    "bid",  # submitted, micros; 0 for who is absent
    "budget",  # micros; infinite for who has none
    "pays",  # 1; 0 for the reference and padding
    "counterfactual_uniform",
)
AUCTION_RESULTS = (
    "token",
    "q",
    "cdf_below",
    "fault",  # 0, or 1 + its place among `aggregation.fault`'s kinds
)
ROW_RESULTS = ("effective", "p", "r", "tv", "influence", "critical_bid", "owed", "counterfactual")  # token or -1

PRICINGS = ("critical_bid", "expected", "first_price", "free")

_ROW_BUCKETS = (4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_MIN_WIDTH = 4


@dataclass(frozen=True)
class Bucket:
    """How much of the buffers a step looks at; for each there is one captured step."""

    rows: int
    auctions: int
    width: int  # agents of the widest auction, rounded up to a power of two

    @classmethod
    def of(cls, sizes: Sequence[int], most: Bucket) -> Bucket:
        """The smallest that holds auctions of these sizes, and no larger than `most`."""
        rows = next((size for size in _ROW_BUCKETS if size >= sum(sizes)), most.rows)
        return cls(
            min(rows, most.rows),
            min(_power_of_two(len(sizes)), most.auctions),
            max(_MIN_WIDTH, _power_of_two(max(sizes))),
        )


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


@dataclass(frozen=True)
class Fields:
    """Named rows of numbers in one piece of memory, some with an entry an auction and some with an entry a row."""

    auction_names: tuple[str, ...]
    row_names: tuple[str, ...]
    most: Bucket
    flat: Any  # Tensor on the device, numpy array on the host

    @classmethod
    def size(cls, auction_names: Sequence[str], row_names: Sequence[str], most: Bucket) -> int:
        """How many numbers these are."""
        return len(auction_names) * most.auctions + len(row_names) * most.rows

    def __getitem__(self, name: str) -> Any:
        """The numbers of one name: a view, one for every auction or row that there can be."""
        most = self.most
        if name in self.auction_names:
            start = self.auction_names.index(name) * most.auctions
            return self.flat[start : start + most.auctions]
        start = len(self.auction_names) * most.auctions + self.row_names.index(name) * most.rows
        return self.flat[start : start + most.rows]


def new_control(most: Bucket) -> Fields:
    """A host's control of a step in which nobody takes part."""
    size = Fields.size(AUCTION_CONTROLS, ROW_CONTROLS, most)
    control = Fields(AUCTION_CONTROLS, ROW_CONTROLS, most, np.zeros(size))
    control["temperature"][:] = 1.0
    return control


def host_result(flat: Float64[Tensor, " numbers"], most: Bucket) -> Fields:
    """The result of a step from its numbers on the host."""
    return Fields(AUCTION_RESULTS, ROW_RESULTS, most, flat.numpy())


@dataclass(frozen=True)
class Buffers:
    """All of them, for at most `most` rows and auctions."""

    most: Bucket
    control: Fields
    result: Fields
    tokens: Int64[Tensor, " auctions"]  # the last token of each text: what the next step appends
    totals: Float64[Tensor, " rows"]  # exact micros charged so far
    lengths: Int64[Tensor, " rows"]  # tokens that each row holds; 0 for padding
    pages: Int[Tensor, "rows columns"]  # int32; each row's pages in order, then `spare_page`
    spare_page: int  # where rows of nobody write

    @classmethod
    def new(cls, most: Bucket, num_columns: int, spare_page: int, device: torch.device) -> Buffers:
        """Buffers in which nobody is."""
        control = new_control(most)
        num_results = Fields.size(AUCTION_RESULTS, ROW_RESULTS, most)
        return cls(
            most=most,
            control=Fields(AUCTION_CONTROLS, ROW_CONTROLS, most, torch.from_numpy(control.flat).to(device)),
            result=Fields(
                AUCTION_RESULTS, ROW_RESULTS, most, torch.zeros(num_results, dtype=torch.float64, device=device)
            ),
            tokens=torch.zeros(most.auctions, dtype=torch.int64, device=device),
            totals=torch.zeros(most.rows, dtype=torch.float64, device=device),
            lengths=torch.zeros(most.rows, dtype=torch.int64, device=device),
            pages=torch.full((most.rows, num_columns), spare_page, dtype=torch.int32, device=device),
            spare_page=spare_page,
        )

    @property
    def state(self) -> tuple[Tensor, ...]:
        """What one step leaves to the next."""
        return self.tokens, self.totals, self.lengths, self.pages
