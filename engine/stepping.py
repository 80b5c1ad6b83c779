"""One step of many auctions at once: rows of logits in, one outcome per auction out.

Shapes every row's own distribution, gathers auctions of one (rule, sampler, pricing) into a padded batch, clears each
batch, and brings the numbers to the host. An auction that cannot be cleared gets its error; the others are cleared all
the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from tokenauction.engine.aggregation import faults
from tokenauction.engine.auction import Bids
from tokenauction.engine.clearing import Clearing, clear
from tokenauction.engine.errors import InvalidInput, TokenAuctionError
from tokenauction.engine.fused_clearing import ClearingChoice, clear_fused, cleared_by
from tokenauction.engine.outcome import StepOutcome
from tokenauction.engine.policy import Policy
from tokenauction.engine.randomness import coupled_uniforms, step_randomness
from tokenauction.engine.shaping import shape, with_floor
from tokenauction.engine.spec import AuctionSpec

Outcome = StepOutcome | TokenAuctionError


@dataclass(frozen=True)
class Standing:
    """What shaping needs to know of one auction: its spec, the ids written so far, the policy."""

    spec: AuctionSpec
    token_ids: Sequence[int]
    policy: Policy


def clear_step(
    standings: Sequence[Standing],
    bids: Sequence[Bids],
    keys: Sequence[bytes],
    logits: Float[Tensor, "rows vocab"],
    clearing: ClearingChoice = "auto",
) -> list[Outcome]:
    """Shape and clear; `logits` holds the auctions' rows one auction after the other.

    `clearing` may insist on the compiled code (NotCompiled where there is none) or on torch; see `fused_clearing`.
    """
    if not standings:
        return []
    specs, device = [standing.spec for standing in standings], logits.device
    ways = {cleared_by(spec, device, clearing) for spec in specs}
    if len(ways) > 1:
        return _clear_apart(standings, bids, keys, logits, clearing)
    masks = [_allowed(standing, logits) for standing in standings]
    is_stuck = [mask is not None and not bool(mask.any()) for mask in masks]
    masks = [None if stuck else mask for mask, stuck in zip(masks, is_stuck, strict=True)]
    weights = [bid.effective for bid in bids]
    if "fused" in ways:
        uniforms = [coupled_uniforms(key, spec.row_ids) for spec, key in zip(specs, keys, strict=True)]
        outcomes = clear_fused(specs, weights, uniforms, masks, logits)
    else:
        outcomes = clear_rows(specs, weights, keys, _by_auction(specs, shaped(specs, masks, logits)))
    stuck = InvalidInput("the banned words leave no token that could come next; ban fewer")
    return [stuck if is_it else outcome for is_it, outcome in zip(is_stuck, outcomes, strict=True)]


def _clear_apart(
    standings: Sequence[Standing],
    bids: Sequence[Bids],
    keys: Sequence[bytes],
    logits: Float[Tensor, "rows vocab"],
    clearing: ClearingChoice,
) -> list[Outcome]:
    """Those that compiled code clears in one step, and those that torch clears in another."""
    specs = [standing.spec for standing in standings]
    ways = [cleared_by(spec, logits.device, clearing) for spec in specs]
    rows = _by_auction(specs, logits)
    outcomes: dict[int, Outcome] = {}
    for way in set(ways):
        members = [number for number, its_way in enumerate(ways) if its_way == way]
        cleared = clear_step(
            [standings[i] for i in members],
            [bids[i] for i in members],
            [keys[i] for i in members],
            torch.cat([rows[i] for i in members]),
            clearing,
        )
        outcomes |= zip(members, cleared, strict=True)
    return [outcomes[number] for number in range(len(specs))]


def _by_auction(specs: Sequence[AuctionSpec], rows: Float[Tensor, "rows vocab"]) -> list[Float[Tensor, "_ vocab"]]:
    return list(torch.split(rows, [len(spec.row_ids) for spec in specs]))


def clear_rows(
    specs: Sequence[AuctionSpec],
    weights: Sequence[Sequence[int]],
    keys: Sequence[bytes],
    distributions: Sequence[Float[Tensor, "_ vocab"]],
) -> list[Outcome]:
    """Clear one step of each auction from its rows' distributions and its rows' weights in micros."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for number, spec in enumerate(specs):
        groups.setdefault((spec.rule, spec.sampler, spec.pricing), []).append(number)
    outcomes: dict[int, Outcome] = {}
    for members in groups.values():
        batch = _Batch.of(
            [specs[i] for i in members],
            [weights[i] for i in members],
            [keys[i] for i in members],
            [distributions[i] for i in members],
        )
        outcomes |= dict(zip(members, batch.clear(), strict=True))
    return [outcomes[number] for number in range(len(specs))]


@dataclass(frozen=True)
class _Batch:
    """Auctions of one (rule, sampler, pricing), padded to the widest."""

    specs: list[AuctionSpec]
    keys: list[bytes]
    distributions: list[Float[Tensor, "_ vocab"]]
    padded: Float[Tensor, "auctions agents vocab"]
    weights: Float64[Tensor, "auctions agents"]
    pays: Bool[Tensor, "auctions agents"]

    @classmethod
    def of(
        cls,
        specs: list[AuctionSpec],
        weights: list[Sequence[int]],
        keys: list[bytes],
        distributions: list[Float[Tensor, "_ vocab"]],
    ) -> _Batch:
        padded = torch.nn.utils.rnn.pad_sequence(distributions, batch_first=True)
        width, device = padded.shape[1], padded.device
        table = [[float(w) for w in row] + [0.0] * (width - len(row)) for row in weights]
        pays = [[i < len(spec.agents) for i in range(width)] for spec in specs]
        return cls(
            specs,
            keys,
            distributions,
            padded,
            torch.tensor(table, dtype=torch.float64, device=device),
            torch.tensor(pays, device=device),
        )

    def clear(self) -> list[Outcome]:
        """Clear what can be cleared; the rest gets its error."""
        found = faults(self.padded, self.weights, self.specs[0].rule)
        outcomes: list[Outcome] = [found.get(i, TokenAuctionError()) for i in range(len(self.specs))]
        sound = [i for i in range(len(self.specs)) if i not in found]
        if sound:
            clearing = self._clear(sound)
            rows = _to_host(clearing)
            for place, i in enumerate(sound):
                outcomes[i] = _outcome(rows, clearing, place, self.specs[i], self.distributions[i])
        return outcomes

    def _clear(self, sound: list[int]) -> Clearing:
        spec, device = self.specs[0], self.padded.device
        keys = [self.keys[i] for i in sound]
        ids = [self.specs[i].row_ids for i in sound]
        width, vocab_size = self.padded.shape[1:]
        randomness = step_randomness(spec.sampler, keys, ids, vocab_size, width, device)
        chosen = slice(None) if len(sound) == len(self.specs) else torch.tensor(sound, device=device)
        return clear(
            self.padded[chosen],
            self.weights[chosen],
            self.pays[chosen],
            randomness,
            rule=spec.rule,
            sampler=spec.sampler,
            pricing=spec.pricing,
            allow_unsafe=spec.allow_unsafe,
            validate=False,
        )


def shaped(
    specs: Sequence[AuctionSpec], masks: Sequence[Bool[Tensor, " vocab"] | None], logits: Float[Tensor, "rows vocab"]
) -> Float64[Tensor, "rows vocab"]:
    """Every row's own distribution: its auction's temperature, truncation and floor, and the auction's policy mask."""
    masks = [mask for spec, mask in zip(specs, masks, strict=True) for _ in spec.row_ids]
    specs = [spec for spec in specs for _ in spec.row_ids]
    vocab_size, device = logits.shape[-1], logits.device

    def column(values: list[float | None], missing: float, dtype: torch.dtype) -> Tensor | None:
        if all(value is None for value in values):
            return None
        return torch.tensor([missing if v is None else v for v in values], dtype=dtype, device=device)

    allowed = None
    if any(mask is not None for mask in masks):
        everything = torch.ones(vocab_size, dtype=torch.bool, device=device)
        allowed = torch.stack([everything if mask is None else mask for mask in masks])
    temperature = torch.tensor([spec.temperature for spec in specs], dtype=torch.float64, device=device)
    top_k = column([spec.top_k for spec in specs], 0, torch.int64)
    top_p = column([spec.top_p for spec in specs], 1.0, torch.float64)
    floor = column([spec.floor for spec in specs], 0.0, torch.float64)
    p = shape(logits, temperature, top_k, top_p, allowed, validate=False)
    return p if floor is None else with_floor(p, floor, allowed)


def _allowed(standing: Standing, logits: Float[Tensor, "rows vocab"]) -> Bool[Tensor, " vocab"] | None:
    if not standing.policy.has_bans:
        return None
    return standing.policy.allowed(standing.token_ids, logits.shape[-1], logits.device)


def shape_one(standing: Standing, logits: Float[Tensor, "rows vocab"]) -> Float64[Tensor, "rows vocab"]:
    """The distributions of one auction's rows."""
    return shaped([standing.spec], [_allowed(standing, logits)], logits)


def _to_host(clearing: Clearing) -> dict[str, list[Any]]:
    """The numbers per agent and per auction as Python lists; whole distributions stay where they are."""
    names = (
        "token", "q_token", "cdf_below", "p_token", "r_token", "tv", "influence", "critical_bid", "payment",
        "counterfactual_token", "log_partition", "kl", "agent_token",
    )  # fmt: skip
    return {name: getattr(clearing, name).tolist() for name in names}


def _outcome(
    rows: dict[str, list[Any]],
    clearing: Clearing,
    place: int,
    spec: AuctionSpec,
    distributions: Float[Tensor, "_ vocab"],
) -> StepOutcome:
    num_rows = len(spec.row_ids)

    def floats(name: str) -> tuple[float, ...]:
        return tuple(rows[name][place][:num_rows])

    def known(name: str) -> tuple[float | None, ...]:
        return tuple(None if math.isnan(x) else x for x in floats(name))

    def tokens(name: str) -> tuple[int | None, ...]:
        return tuple(None if x < 0 else int(x) for x in rows[name][place][:num_rows])

    cdf_below = rows["cdf_below"][place]
    nothing = (None,) * num_rows
    return StepOutcome(
        token=rows["token"][place],
        q=rows["q_token"][place],
        cdf_below=None if math.isnan(cdf_below) else cdf_below,
        p=floats("p_token"),
        r=floats("r_token"),
        tv=floats("tv"),
        influence=floats("influence"),
        critical_bids=known("critical_bid"),
        owed=floats("payment"),
        counterfactual_tokens=tokens("counterfactual_token"),
        log_partitions=known("log_partition"),
        divergences={"expected": floats("tv"), "kl_clarke": known("kl")}.get(spec.pricing, nothing),
        own_tokens=tokens("agent_token"),
        distributions=distributions,
        aggregate=clearing.aggregate[place],
    )
