"""The auction on a GPU: linear rule, coupled sampler, in four Triton kernels for any number of auctions of any sizes.

    normalise        logits → the maximum and the sum of every row's softmax, in parts; effective bids
    mix              q and every (r_i - p_i)^+, summed over blocks of the vocabulary
    draw             block, then token by inverse CDF; critical bids, TV, payments, totals
    counterfactual   block, then token that would have come without a bid, for those whose critical bid is above 0

Nothing of the vocabulary's size is written: distributions are computed again from the logits where they are needed.
From the logits on all is float64. The oracle is `clearing.clear`; `device_clearing.clear_padded` calls it on the same
buffers. It imports Triton, so import it only where there is one.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float32
from torch import Tensor

from tokenauction.engine.device_buffers import Bucket, Buffers

_PARTS = 16  # programs that share one row's sum
_TILE = 2048  # numbers of one (agents, tokens) tile
_MIN_BLOCK = 64  # tokens of one tile


@triton.jit
def _normalise(
    logits, auction_of, temperature, bid, budget, totals, effective, tops, sums, vocab, span,
    PARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One part of one row; its effective bid is min(bid, what is left of the budget)."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    heat = 1.0 / tl.load(temperature + tl.load(auction_of + row).to(tl.int64))
    top = tl.full([], float("-inf"), tl.float64)
    total = tl.full([], 0.0, tl.float64)
    for start in range(part * span, (part + 1) * span, BLOCK):
        place = start + tl.arange(0, BLOCK)
        score = tl.load(logits + row * vocab + place, mask=place < vocab, other=float("-inf")).to(tl.float64) * heat
        higher = tl.maximum(top, tl.max(score, 0))
        base = tl.where(higher == float("-inf"), 0.0, higher)
        total = total * tl.exp(top - base) + tl.sum(tl.exp(score - base), 0)
        top = higher
    tl.store(tops + row * PARTS + part, top)
    tl.store(sums + row * PARTS + part, total)
    left = tl.load(budget + row) - tl.floor(tl.load(totals + row))
    tl.store(effective + row, tl.minimum(tl.load(bid + row), left), mask=part == 0)


@triton.jit
def _law(tops, sums, rows, here, PARTS: tl.constexpr):
    """Maximum and sum of each row's softmax, from its parts."""
    at = rows[:, None] * PARTS + tl.arange(0, PARTS)[None, :]
    part_top = tl.load(tops + at, mask=here[:, None], other=float("-inf"))
    part_sum = tl.load(sums + at, mask=here[:, None], other=0.0)
    top = tl.max(part_top, 1)
    top = tl.where(top == float("-inf"), 0.0, top)
    return top, tl.sum(part_sum * tl.exp(part_top - top[:, None]), 1)


@triton.jit
def _weights(effective, rows, here, agents):
    """Effective bids, their sum B, every B_-i, and who has the largest: the only one that can hold most of B."""
    weight = tl.load(effective + rows, mask=here, other=0.0)
    is_leader = agents == tl.argmax(weight, 0)
    total = tl.sum(weight, 0)
    rest = tl.sum(tl.where(is_leader, 0.0, weight), 0)
    return weight, total, tl.where(is_leader, rest, total - weight), is_leader


@triton.jit
def _mixture(logits, rows, weight, total, others, is_leader, top, law_sum, heat, place, vocab):
    """p_i, q and r_i at the tokens `place`: [agents, tokens], [tokens], [agents, tokens].

    As `aggregation._weighted_means`: the leader's r is summed without it, everybody else's own part is taken back out.
    """
    is_in = weight > 0
    at = rows[:, None] * vocab + place[None, :]
    mask = is_in[:, None] & (place < vocab)[None, :]
    score = tl.load(logits + at, mask=mask, other=float("-inf")).to(tl.float64) * heat
    p = tl.exp(score - top[:, None]) * (1.0 / tl.where(is_in, law_sum, 1.0))[:, None]
    own = weight[:, None] * p
    without_leader = tl.sum(tl.where(is_leader[:, None], 0.0, own), 0)
    every = tl.sum(tl.where(is_leader[:, None], own, 0.0), 0) + without_leader
    q = every / tl.where(total > 0, total, 1.0)
    rest = tl.where(is_leader[:, None], without_leader[None, :], every[None, :] - own)
    is_alone = others == 0
    r = tl.where(is_alone[:, None], q[None, :], rest / tl.where(is_alone, 1.0, others)[:, None])
    return p, q, r


@triton.jit
def _mix(
    logits, first, count, temperature, effective, tops, sums, masses, excesses, vocab,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """One block of the vocabulary of one auction: Σ q, and Σ (r_i - p_i)^+ of every agent."""
    auction = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    num_blocks = tl.num_programs(1)
    agents = tl.arange(0, WIDTH)
    here = agents < tl.load(count + auction).to(tl.int32)
    rows = tl.load(first + auction).to(tl.int64) + agents
    weight, total, others, is_leader = _weights(effective, rows, here, agents)
    top, law_sum = _law(tops, sums, rows, here, PARTS)
    heat = 1.0 / tl.load(temperature + auction)
    place = block * BLOCK + tl.arange(0, BLOCK)
    p, q, r = _mixture(logits, rows, weight, total, others, is_leader, top, law_sum, heat, place, vocab)
    tl.store(masses + auction * num_blocks + block, tl.sum(q, 0))
    tl.store(excesses + rows * num_blocks + block, tl.sum(tl.maximum(r - p, 0.0), 1), mask=here)


@triton.jit
def _search(ends, target):
    """How many running sums are at most `target`, never past the last place with mass, and what lies below that."""
    found = tl.minimum(tl.sum((ends <= target).to(tl.int32), 0), tl.sum((ends < tl.max(ends, 0)).to(tl.int32), 0))
    places = tl.arange(0, ends.shape[0])
    return found, tl.sum(tl.where(places == found - 1, ends, 0.0), 0)


@triton.jit
def _block_ends(masses, num_blocks, BLOCKS: tl.constexpr):
    """Running sums over blocks; beyond the last they stay as they are."""
    block = tl.arange(0, BLOCKS)
    return tl.cumsum(tl.load(masses + block, mask=block < num_blocks, other=0.0), 0)


@triton.jit
def _distances(excesses, rows, here, num_blocks, WIDTH: tl.constexpr, BLOCKS: tl.constexpr):
    """Σ (r_i - p_i)^+ = TV(p_i, r_i) of every agent."""
    distance = tl.zeros([WIDTH], tl.float64)
    for start in range(0, num_blocks, BLOCKS):
        block = start + tl.arange(0, BLOCKS)
        at = rows[:, None] * num_blocks + block[None, :]
        mask = here[:, None] & (block < num_blocks)[None, :]
        distance += tl.sum(tl.load(excesses + at, mask=mask, other=0.0), 1)
    return distance


@triton.jit
def _expected(distance, weight, others):
    """m·B (ln(1 + x) - x/(1 + x)) with x = b/B, as `pricing.expected_linear`."""
    is_alone = others == 0
    x = tl.where(is_alone, 0.0, weight / tl.where(is_alone, 1.0, others))
    grown = 1.0 + x
    step = grown - 1.0  # what 1 + x kept of x: ln(1 + x) = ln(1 + step)·x/step to the last digits
    log1p = tl.where(step == 0, x, tl.log(grown) * (x / tl.where(step == 0, 1.0, step)))
    series = x * x * (0.5 - x * (2 / 3 - 0.75 * x))
    return distance * others * tl.where(x < 1e-4, series, log1p - x / grown)


@triton.jit
def _draw(
    logits, first, count, token_uniform, price_uniform, temperature, pricing, budget, pays, totals, tokens,
    tops, sums, masses, excesses, token_out, q_out, below_out, fault_out,
    effective, p_out, r_out, distance_out, influence_out, critical_out, owed_out, vocab, num_blocks,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """One auction: its token, its critical bids, what everybody owes; totals grow by what budgets still hold."""
    auction = tl.program_id(0).to(tl.int64)
    agents = tl.arange(0, WIDTH)
    here = agents < tl.load(count + auction).to(tl.int32)
    rows = tl.load(first + auction).to(tl.int64) + agents
    weight, total, others, is_leader = _weights(effective, rows, here, agents)
    top, law_sum = _law(tops, sums, rows, here, PARTS)
    heat = 1.0 / tl.load(temperature + auction)

    ends = _block_ends(masses + auction * num_blocks, num_blocks, BLOCKS)
    target = tl.load(token_uniform + auction) * tl.max(ends, 0)
    block, base = _search(ends, target)
    place = block * BLOCK + tl.arange(0, BLOCK)
    p, q, r = _mixture(logits, rows, weight, total, others, is_leader, top, law_sum, heat, place, vocab)
    offset, below = _search(tl.cumsum(q, 0), target - base)
    is_token = tl.arange(0, BLOCK) == offset
    q_token = tl.sum(tl.where(is_token, q, 0.0), 0)
    p_token = tl.sum(tl.where(is_token[None, :], p, 0.0), 1)
    r_token = tl.sum(tl.where(is_token[None, :], r, 0.0), 1)
    token = tl.minimum(block * BLOCK + offset, vocab - 1)

    threshold = tl.load(price_uniform + auction) * q_token
    is_due = (tl.load(pays + rows, mask=here, other=0.0) > 0) & (weight > 0)
    crossing = others * (threshold - r_token) / tl.maximum(p_token - threshold, 1e-300)
    is_critical = is_due & (threshold > r_token) & (p_token > r_token)
    critical = tl.where(is_critical, tl.minimum(crossing, weight), 0.0)
    distance = tl.where(weight > 0, _distances(excesses, rows, here, num_blocks, WIDTH, BLOCK), 0.0)
    kind = tl.load(pricing + auction)  # its place among device_buffers.PRICINGS
    owed = tl.where(kind == 0, critical, tl.where(kind == 1, _expected(distance, weight, others), 0.0))
    owed = tl.where(is_due, tl.where(kind == 2, weight, owed), 0.0)
    before = tl.load(totals + rows, mask=here, other=0.0)
    left = tl.load(budget + rows, mask=here, other=0.0) - tl.floor(before)
    share = weight / tl.max(weight, 0) * p_token
    is_sound = (law_sum < float("inf")) & ((law_sum > 0) | (weight == 0))
    is_broken = tl.sum((here & ~is_sound).to(tl.int32), 0) > 0

    tl.store(totals + rows, before + tl.minimum(owed, left), mask=here)
    tl.store(tokens + auction, token.to(tl.int64))
    tl.store(token_out + auction, token.to(tl.float64))
    tl.store(q_out + auction, q_token)
    tl.store(below_out + auction, base + below)
    tl.store(fault_out + auction, tl.where(total == 0, 2.0, tl.where(is_broken, 3.0, 0.0)))
    tl.store(p_out + rows, p_token, mask=here)
    tl.store(r_out + rows, r_token, mask=here)
    tl.store(distance_out + rows, distance, mask=here)
    tl.store(influence_out + rows, share / tl.sum(share, 0), mask=here)
    tl.store(critical_out + rows, critical, mask=here)
    tl.store(owed_out + rows, owed, mask=here)


@triton.jit
def _counterfactual(
    logits, auction_of, live, first, count, temperature, uniform, effective, critical, tops, sums, excesses, result,
    vocab, num_blocks,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """One row: the token from the law of (r_i - p_i)^+, had it bid less than its critical bid; -1 where that is 0."""
    row = tl.program_id(0).to(tl.int64)
    token = tl.full([], -1.0, tl.float64)
    if (tl.load(live + row) > 0) & (tl.load(critical + row) > 0):
        auction = tl.load(auction_of + row).to(tl.int64)
        agents = tl.arange(0, WIDTH)
        here = agents < tl.load(count + auction).to(tl.int32)
        rows = tl.load(first + auction).to(tl.int64) + agents
        weight, total, others, is_leader = _weights(effective, rows, here, agents)
        top, law_sum = _law(tops, sums, rows, here, PARTS)
        heat = 1.0 / tl.load(temperature + auction)
        ends = _block_ends(excesses + row * num_blocks, num_blocks, BLOCKS)
        distance = tl.max(ends, 0)
        target = tl.load(uniform + row) * distance
        block, base = _search(ends, target)
        place = block * BLOCK + tl.arange(0, BLOCK)
        p, _, r = _mixture(logits, rows, weight, total, others, is_leader, top, law_sum, heat, place, vocab)
        excess = tl.sum(tl.where((rows == row)[:, None], tl.maximum(r - p, 0.0), 0.0), 0)
        offset, _ = _search(tl.cumsum(excess, 0), target - base)
        token = tl.where(distance > 0, tl.minimum(block * BLOCK + offset, vocab - 1), -1).to(tl.float64)
    tl.store(result + row, token)


def clear_rows(logits: Float32[Tensor, "rows vocab"], buffers: Buffers, bucket: Bucket) -> None:
    """Clear one step of the bucket's auctions: read `buffers.control` and totals; write totals, tokens and result.

    Nothing waits for the device; a captured call serves any control. An auction with a fault gets the fault's number
    and a token that means nothing; it disturbs no other.
    """
    control, result, vocab = buffers.control, buffers.result, logits.shape[1]
    block = max(_MIN_BLOCK, _TILE // bucket.width)
    num_blocks = triton.cdiv(vocab, block)
    assert logits.is_contiguous() and logits.shape[0] == bucket.rows, "one row of logits for every row of the bucket"
    new = logits.new_empty
    tops, sums = (new(bucket.rows, _PARTS, dtype=torch.float64) for _ in range(2))
    masses = new(bucket.auctions, num_blocks, dtype=torch.float64)
    excesses = new(bucket.rows, num_blocks, dtype=torch.float64)
    sizes = {"WIDTH": bucket.width, "BLOCK": block, "PARTS": _PARTS}
    options = {"num_warps": 8, "enable_fp_fusion": False}  # what a step charges is to be the sum of what it records
    law = (tops, sums)
    _normalise[(bucket.rows, _PARTS)](
        logits, control["auction"], control["temperature"], control["bid"], control["budget"], buffers.totals,
        result["effective"], *law, vocab, triton.cdiv(triton.cdiv(vocab, _PARTS), 1024) * 1024,
        PARTS=_PARTS, BLOCK=1024, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    _mix[(bucket.auctions, num_blocks)](
        logits, control["first"], control["count"], control["temperature"], result["effective"], *law,
        masses, excesses, vocab, **sizes, **options,
    )  # fmt: skip
    blocks = {"BLOCKS": triton.next_power_of_2(num_blocks)}
    _draw[(bucket.auctions,)](
        logits, *(control[name] for name in ("first", "count", "token_uniform", "price_uniform", "temperature")),
        control["pricing"], control["budget"], control["pays"], buffers.totals, buffers.tokens, *law, masses, excesses,
        *(result[name] for name in ("token", "q", "cdf_below", "fault", "effective", "p", "r", "tv", "influence")),
        result["critical_bid"], result["owed"], vocab, num_blocks, **sizes, **blocks, **options,
    )  # fmt: skip
    _counterfactual[(bucket.rows,)](
        logits, *(control[name] for name in ("auction", "live", "first", "count", "temperature")),
        control["counterfactual_uniform"], result["effective"], result["critical_bid"], *law, excesses,
        result["counterfactual"], vocab, num_blocks, **sizes, **blocks, **options,
    )  # fmt: skip
