"""Clearing in one call of compiled code: all auctions of a step, from their logits to their outcomes.

It computes what shaping, `clearing.clear` and the way back to the host compute, for the linear rule, the coupled
sampler and most pricings, in a tenth of the time; those are the reference, and agree to 12 digits. What it does not
cover, and everything where there is no C++ compiler or the logits are on an accelerator, is cleared by torch. That
choice follows from the machine and the auction's spec alone, never from its neighbours, and stands on the receipt.
"""

from __future__ import annotations

import ctypes
import struct
from array import array
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tokenauction.engine.aggregation import fault
from tokenauction.engine.errors import TokenAuctionError
from tokenauction.engine.outcome import StepOutcome
from tokenauction.engine.spec import AuctionSpec
from tokenauction.models.compiler import NotCompiled, load_library

ClearingChoice = Literal["auto", "fused", "torch"]

_PRICINGS = ("critical_bid", "expected", "first_price", "free")  # as `Pricing` numbers them in fused_clearing.cpp
_AUCTION = struct.Struct("=qqqqdddd")  # its `Auction`
_HEAD, _NUM_COLUMNS = 4, 7  # of an auction's results


def cleared_by(spec: AuctionSpec, device: torch.device, clearing: ClearingChoice = "auto") -> Literal["fused", "torch"]:
    """Return which of the two clears an auction's steps; "fused" insists on a compiler, or raises NotCompiled."""
    if clearing == "torch":
        return "torch"
    library = _library()
    if isinstance(library, NotCompiled):
        if clearing == "fused":
            raise library
        return "torch"
    return "fused" if device.type == "cpu" and _covers(spec) else "torch"


def clear_fused(
    specs: Sequence[AuctionSpec],
    weights: Sequence[Sequence[float]],
    uniforms: Sequence[Sequence[float]],
    masks: Sequence[Bool[Tensor, " vocab"] | None],
    logits: Float[Tensor, "rows vocab"],
) -> list[StepOutcome | TokenAuctionError]:
    """Return every auction's outcome, or its error: InvalidBid, NoWeight or InvalidDistribution.

    `specs` are such that `cleared_by` says "fused", `weights` effective bids, a row each, `uniforms` as
    `coupled_uniforms` makes them; the policy's `masks` leave at least one token, and `logits` hold the auctions' rows
    one auction after the other.
    """
    logits = (logits if logits.dtype == torch.float64 else logits.float()).contiguous()
    num_rows, vocab_size = logits.shape
    auctions, bids, chances = [], array("d"), array("d")
    for spec, row, (token, price, *counterfactual), mask in zip(specs, weights, uniforms, masks, strict=True):
        allowed = 0 if mask is None else mask.data_ptr()
        sizes = len(row), len(spec.agents), _PRICINGS.index(spec.pricing)
        auctions.append(_AUCTION.pack(*sizes, allowed, spec.temperature, spec.floor or 0.0, token, price))
        bids.extend(row)
        chances.extend(counterfactual)
    assert len(bids) == len(chances) == num_rows, "a weight, a uniform and a row of logits for every row"
    p = torch.empty(num_rows, vocab_size, dtype=torch.float64)
    q = torch.empty(len(specs), vocab_size, dtype=torch.float64)
    results = array("d", bytes(8 * (_HEAD * len(specs) + _NUM_COLUMNS * num_rows)))
    addresses = [numbers.buffer_info()[0] for numbers in (bids, chances)]
    _function()(
        logits.data_ptr(),
        logits.dtype == torch.float64,
        len(specs),
        vocab_size,
        b"".join(auctions),
        *addresses,
        p.data_ptr(),
        q.data_ptr(),
        results.buffer_info()[0],
    )
    return _outcomes(specs, results.tolist(), p, q)


def _outcomes(
    specs: Sequence[AuctionSpec], results: list[float], p: Float[Tensor, "rows vocab"], q: Float[Tensor, "_ vocab"]
) -> list[StepOutcome | TokenAuctionError]:
    outcomes: list[StepOutcome | TokenAuctionError] = []
    sizes = [len(spec.row_ids) for spec in specs]
    start = 0
    for spec, size, distributions, aggregate in zip(specs, sizes, p.split_with_sizes(sizes), q.unbind(), strict=True):
        kind, token, q_token, cdf_below = results[start : start + _HEAD]
        start += _HEAD
        columns = [tuple(results[at : at + size]) for at in range(start, start + _NUM_COLUMNS * size, size)]
        start += _NUM_COLUMNS * size
        if kind:
            outcomes.append(fault(int(kind) - 1))
            continue
        p_token, r_token, tv, influence, critical_bids, owed, counterfactual = columns
        nothing = (None,) * size
        outcomes.append(
            StepOutcome(
                token=int(token),
                q=q_token,
                cdf_below=cdf_below,
                p=p_token,
                r=r_token,
                tv=tv,
                influence=influence,
                critical_bids=critical_bids,
                owed=owed,
                counterfactual_tokens=tuple([None if x < 0 else int(x) for x in counterfactual]),
                log_partitions=nothing,
                divergences=tv if spec.pricing == "expected" else nothing,
                own_tokens=nothing,
                distributions=distributions,
                aggregate=aggregate,
            )
        )
    return outcomes


def _covers(spec: AuctionSpec) -> bool:
    whole = spec.top_k is None and (spec.top_p is None or spec.top_p >= 1)
    return whole and spec.rule == "linear" and spec.sampler == "coupled" and spec.pricing in _PRICINGS


@cache
def _library() -> ctypes.CDLL | NotCompiled:
    try:
        return load_library(Path(__file__).with_name("fused_clearing.cpp"))
    except NotCompiled as error:
        return error  # and does not try again


@cache
def _function() -> ctypes._NamedFuncPointer:
    library = _library()
    assert isinstance(library, ctypes.CDLL), "cleared_by says whether there is one"
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.clear_auctions.argtypes = [pointer, *[number] * 3, ctypes.c_char_p, *[pointer] * 5]
    library.clear_auctions.restype = None
    return library.clear_auctions
