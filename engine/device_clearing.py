"""One step of the auctions in the device's buffers, cleared by `clearing.clear` itself: what the kernels are held to.

It computes what `auction_kernels.clear_rows` does, in ordinary tensor operations on padded auctions, and is what runs
where there is no Triton. Linear rule, coupled sampler. It must not know where the logits come from.
"""

from __future__ import annotations

import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from tokenauction.engine.aggregation import fault_signs, weight_of_others
from tokenauction.engine.clearing import Clearing, clear
from tokenauction.engine.device_buffers import PRICINGS, Bucket, Buffers
from tokenauction.engine.pricing import expected_linear
from tokenauction.engine.randomness import CoupledRandomness


def clear_padded(logits: Float32[Tensor, "rows vocab"], buffers: Buffers, bucket: Bucket) -> None:
    """Clear one step of the bucket's auctions: read `buffers.control` and totals; write totals, tokens and result."""
    control, num_auctions = buffers.control, bucket.auctions
    first, count, token_uniform, price_uniform, temperature, pricing = (
        control[name][:num_auctions]
        for name in ("first", "count", "token_uniform", "price_uniform", "temperature", "pricing")
    )
    agents = torch.arange(bucket.width, device=logits.device)
    is_agent = agents < count[:, None]
    rows = torch.where(is_agent, first.long()[:, None] + agents, 0)  # [auctions, width]

    def column(name: str) -> Float64[Tensor, "auctions agents"]:
        return torch.where(is_agent, control[name][rows], 0.0)

    before = torch.where(is_agent, buffers.totals[rows], 0.0)
    left = column("budget") - before.floor()
    weights, pays = column("bid").minimum(left), column("pays") > 0
    scores = logits[rows].double() / temperature[:, None, None]
    distributions = scores.softmax(-1).masked_fill_(scores.amax(-1, keepdim=True) == -torch.inf, 0.0)
    distributions = torch.where(is_agent.unsqueeze(-1), distributions, 0.0)
    randomness = CoupledRandomness(token_uniform, price_uniform, column("counterfactual_uniform"))
    clearing = clear(distributions, weights, pays, randomness, validate=False)
    owed = _owed(clearing, weights, pays, pricing.long())
    signs = fault_signs(distributions, weights, "linear")  # [kinds, auctions]
    fault = torch.where(signs.any(0), signs.int().argmax(0) + 1, 0)

    buffers.totals[rows[is_agent]] = (before + owed.minimum(left))[is_agent]
    buffers.tokens[:num_auctions] = clearing.token
    result = buffers.result
    for name, values in (("token", clearing.token), ("q", clearing.q_token), ("cdf_below", clearing.cdf_below)):
        result[name][:num_auctions] = values.double()
    result["fault"][:num_auctions] = fault.double()
    columns = {"effective": weights, "p": clearing.p_token, "r": clearing.r_token, "tv": clearing.tv, "owed": owed}
    columns |= {"influence": clearing.influence, "critical_bid": clearing.critical_bid}
    columns |= {"counterfactual": clearing.counterfactual_token.double()}
    for name, table in columns.items():
        result[name][rows[is_agent]] = table[is_agent]


def _owed(
    clearing: Clearing,
    weights: Float64[Tensor, "auctions agents"],
    pays: Tensor,
    pricing: Int64[Tensor, " auctions"],
) -> Float64[Tensor, "auctions agents"]:
    """What everybody owes, each auction by its own pricing."""
    expected = expected_linear(clearing.tv, weights, weight_of_others(weights))
    prices = {"critical_bid": clearing.critical_bid, "expected": expected, "first_price": weights}
    table = torch.stack([prices.get(name, torch.zeros_like(weights)) for name in PRICINGS])
    owed = table[pricing, torch.arange(len(pricing), device=pricing.device)]
    return torch.where(pays & (weights > 0), owed, 0.0)
