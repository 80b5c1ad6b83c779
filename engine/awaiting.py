"""Steps that wait for agents with models of their own: which auctions can be cleared now, and from which rows.

An auction whose agents are all hosted passes through. One with others asks them as soon as the token before is drawn;
when its hosted rows are computed it is set aside until somebody says what came (`Awaited.reports`), and meanwhile all
other auctions go on. It must not know who sends reports, nor how long anybody waits for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tokenauction.engine.performance import Performance
from tokenauction.engine.report import NEVER, Report
from tokenauction.engine.spec import AuctionSpec


@dataclass(frozen=True)
class Clearable:
    """What can be cleared now."""

    performances: list[Performance]
    logits: Float[Tensor, "rows vocab"]
    reports: list[Mapping[str, Report]]


def clearable(
    stepped: list[Performance],
    logits: Float[Tensor, "hosted vocab"],
    running: Sequence[Performance],
    num_tokens: int,
) -> Clearable:
    """Those of `stepped` that need no one else, and those that run and have been told all that they were waiting for.

    `logits` holds the hosted rows of `stepped`, one auction after the other; `num_tokens` is the tokenizer's
    vocabulary.
    """
    if not any(performance.auction.spec.own_model_ids for performance in running):
        return Clearable(stepped, logits, [{}] * len(stepped))
    ready: list[Performance] = []
    rows: list[Tensor] = [logits[:0]]
    reports: list[Mapping[str, Report]] = []
    for performance, hosted in zip(stepped, torch.split(logits, [len(p.prompts) for p in stepped]), strict=True):
        if not performance.auction.spec.own_model_ids:
            ready.append(performance)
            rows.append(hosted)
            reports.append({})
            continue
        assert performance.awaited is not None, "whoever runs with others has asked them"
        performance.awaited.logits, performance.awaited.gang = hosted.clone(), performance.gang
    for performance in running:
        if performance.is_told:
            awaited, performance.awaited = performance.awaited, None
            assert awaited is not None and awaited.logits is not None and awaited.reports is not None, "it is told"
            told = _allowed(performance, awaited.reports, num_tokens)
            ready.append(performance)
            rows.append(assembled(performance.auction.spec, awaited.logits, told, num_tokens))
            reports.append(told)
    return Clearable(ready, torch.cat(rows), reports)


def _allowed(performance: Performance, reports: Mapping[str, Report], num_tokens: int) -> Mapping[str, Report]:
    """The reports without those that want nothing but what the policy bans here: such an agent is silent."""
    if not performance.policy.has_bans or not reports:
        return reports
    mask = performance.policy.allowed(performance.token_ids, num_tokens).numpy()
    return {
        agent_id: report
        for agent_id, report in reports.items()
        if (report.logits(num_tokens, num_tokens)[mask] > NEVER).any()
    }


def assembled(
    spec: AuctionSpec, hosted: Float[Tensor, "hosted vocab"], reports: Mapping[str, Report], num_tokens: int
) -> Float[Tensor, "rows vocab"]:
    """The rows of one auction in the order of `spec.row_ids`; who is silent has any row, for its weight is 0."""
    computed = iter(hosted)
    rows = []
    for row_id in spec.row_ids:
        if row_id not in spec.own_model_ids:
            rows.append(next(computed))
        elif row_id in reports:
            row = torch.from_numpy(reports[row_id].logits(num_tokens, hosted.shape[-1]))
            rows.append(row.to(hosted.device, hosted.dtype))
        else:
            rows.append(torch.zeros_like(hosted[0]))
    return torch.stack(rows)
