"""The auction's kernels against `clearing.clear` on the same buffers; without CUDA by Triton's interpreter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tokenauction.engine.device_buffers import AUCTION_RESULTS, PRICINGS, ROW_RESULTS, Bucket, Buffers, new_control
from tokenauction.engine.device_clearing import clear_padded

# The interpreter of older versions fails on a current numpy.
pytest.importorskip("triton", None if torch.cuda.is_available() else "3.7", reason="no Triton that computes here")

from tokenauction.engine.auction_kernels import clear_rows

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
MOST = Bucket(80, 8, 128)

# numpy, which the interpreter computes with, speaks of what padding divides by zero and nobody reads.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def fill(buffers: Buffers, sizes: list[int], seed: int, **fixed: float) -> None:
    """A control of auctions of these sizes, drawn from a seed: bids of 0 and of everybody, budgets that run out."""
    draw = np.random.default_rng(seed)
    control, row = new_control(MOST), 0
    for number, size in enumerate(sizes):
        rows = slice(row, row + size)
        control["first"][number], control["count"][number] = row, size
        control["token_uniform"][number], control["price_uniform"][number] = draw.random(2)
        control["temperature"][number] = draw.choice([0.5, 0.7, 1.3])
        control["pricing"][number] = draw.integers(len(PRICINGS))
        control["auction"][rows], control["live"][rows] = number, 1
        control["bid"][rows] = draw.choice([0, 1, 1000, 2500, 10**9], size)
        control["budget"][rows] = draw.choice([math.inf, 1200, 5000], size)
        control["pays"][rows] = draw.random(size) < 0.9
        control["counterfactual_uniform"][rows] = draw.random(size)
        row += size
    for name, value in fixed.items():
        control[name][: len(sizes) if name in ("token_uniform", "price_uniform", "pricing") else row] = value
    buffers.control.flat.copy_(torch.from_numpy(control.flat))
    buffers.totals.copy_(torch.from_numpy(draw.random(MOST.rows) * 900))


def cleared(logits: torch.Tensor, sizes: list[int], seed: int = 0, **fixed: float) -> tuple[Buffers, Buffers]:
    """The buffers behind one step: by the kernels, and by their oracle."""
    bucket, both = Bucket.of(sizes, MOST), []
    padded = torch.zeros(bucket.rows, logits.shape[1])
    padded[: len(logits)] = logits
    for clear in (clear_rows, clear_padded):
        buffers = Buffers.new(MOST, 1, 0, DEVICE)
        fill(buffers, sizes, seed, **fixed)
        clear(padded.to(DEVICE), buffers, bucket)
        both.append(buffers)
    return both[0], both[1]


def compare(kernels: Buffers, oracle: Buffers, sizes: list[int]) -> None:
    """Which auctions have a fault, and every number of those that have none, to twelve digits."""
    faults = [buffers.result["fault"][: len(sizes)].tolist() for buffers in (kernels, oracle)]
    assert faults[0] == faults[1]
    numbers = [number for number, fault in enumerate(faults[0]) if not fault]
    firsts = np.cumsum([0, *sizes])
    rows = [row for number in numbers for row in range(firsts[number], firsts[number + 1])]
    for name in (*AUCTION_RESULTS, *ROW_RESULTS):
        places = numbers if name in AUCTION_RESULTS else rows
        mine, theirs = kernels.result[name][places], oracle.result[name][places]
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14, msg=lambda says, name=name: f"{name}: {says}")
    torch.testing.assert_close(kernels.totals[rows], oracle.totals[rows], rtol=1e-12, atol=0)
    assert torch.equal(kernels.tokens[numbers], oracle.tokens[numbers])


@pytest.mark.slow
@pytest.mark.parametrize("vocab_size", [7, 1000, 5001])
@pytest.mark.parametrize("sizes", [[1], [4, 5], [3, 1, 2], [9, 2, 6, 1]], ids=str)
def test_kernels_clear_auctions_of_any_sizes_as_the_mechanism_does(sizes: list[int], vocab_size: int) -> None:
    for seed in range(2):
        logits = torch.from_numpy(np.random.default_rng(seed).normal(0, 3, (sum(sizes), vocab_size))).float()
        compare(*cleared(logits, sizes, seed), sizes)


@pytest.mark.slow
def test_kernels_clear_the_widest_auction_that_there_can_be() -> None:
    logits = torch.from_numpy(np.random.default_rng(4).normal(0, 2, (65, 700))).float()
    compare(*cleared(logits, [65]), [65])


@pytest.mark.slow
@pytest.mark.parametrize("pricing", range(len(PRICINGS)), ids=PRICINGS)
def test_kernels_price_by_every_rule_they_cover(pricing: int) -> None:
    logits = torch.from_numpy(np.random.default_rng(1).normal(0, 2, (6, 300))).float()
    for seed in range(3):
        both = cleared(logits, [3, 3], seed, pricing=pricing, budget=math.inf, bid=1000.0 + seed)
        compare(*both, [3, 3])


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
def test_kernels_draw_a_token_of_positive_probability_at_both_ends_of_the_uniform(uniform: float) -> None:
    logits = torch.full((2, 600), -math.inf)
    logits[0, 5:7], logits[1, 580] = 0.0, 0.0
    both = cleared(logits, [2], token_uniform=uniform, counterfactual_uniform=uniform, bid=1000.0, budget=math.inf)
    compare(*both, [2])
    assert int(both[0].tokens[0]) in (5, 6, 580)


def test_kernels_tell_faults_and_disturb_no_other_auction() -> None:
    logits = torch.from_numpy(np.random.default_rng(2).normal(0, 2, (8, 100))).float()
    logits[2, 3] = math.nan  # of the second auction
    logits[4] = -math.inf  # of the third
    sizes = [2, 2, 2, 2]
    both = cleared(logits, sizes, bid=1000.0, budget=math.inf)
    compare(*both, sizes)
    assert both[0].result["fault"][:4].tolist() == [0, 3, 3, 0]
    for buffers in cleared(logits, sizes, bid=0.0):
        assert buffers.result["fault"][:4].tolist() == [2, 2, 2, 2]
