"""The record of one auction: turns what a step decided into its event and its line of the receipt.

It owns the auction's seed, its receipt and the count of its events; it sees no model and no clock (`Stamp` brings both
the time and the event's id).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from tokenauction.engine.auction import Auction, Bids, Charges, State
from tokenauction.engine.events import Event
from tokenauction.engine.money import from_micros
from tokenauction.engine.outcome import StepOutcome
from tokenauction.engine.provenance import Provenance
from tokenauction.engine.randomness import uniform
from tokenauction.engine.receipt import Line, header_line, next_line, pack_distribution, voided_by
from tokenauction.engine.report import Report
from tokenauction.engine.seed import Seed

Stamp = Callable[[], tuple[str, float]]  # a fresh event id, and the time in seconds since 1970
Decode = Callable[[Sequence[int]], str]


@dataclass
class Recorder:
    """Writes the events and the receipt of one auction."""

    auction: Auction
    seed: Seed
    provenance: Provenance
    stamp: Stamp
    decode: Decode
    store_distributions: bool = False
    receipt: list[Line] = field(default_factory=list)
    _seq: int = 0

    def created(self) -> Event:
        """The first event and the first line: everything that is fixed before the first token."""
        spec = self.auction.spec
        content = {
            "spec": {**spec.to_mapping(), "seed": None},
            "rows": list(spec.listed_ids),
            "guarantee": spec.guarantee.summary,
            "limits": list(spec.limits),
            "seed_source": self.seed.source,
            **self.provenance.to_mapping(),
            **self._also_fixed(),
        }
        self.receipt.append(header_line(content, self.seed.value, self.seed.nonce))
        fields = {**content, "guarantee": _guarantee_fields(self.auction), "commitment": self.receipt[0]["commitment"]}
        return replace(self._event("auction.created", fields), receipt=(self.receipt[-1],))

    def _also_fixed(self) -> dict[str, Any]:
        """What a softmax auction fixes beside."""
        return {}

    def awaited(self) -> Event:
        """The next step waits for reports: for whoever collects them, not a part of the stream."""
        fields = {"step": self.auction.num_tokens, "agents": sorted(self.auction.spec.own_model_ids)}
        return self._event("step.awaited", fields, is_counted=False)

    def token(
        self,
        step: int,
        outcome: StepOutcome,
        bids: Bids,
        charges: Charges,
        text: str,
        key: bytes,
        latency_ms: float,
        reports: Mapping[str, Report],
    ) -> Event:
        """Chain the line of a step that the auction has taken in, and tell of it."""
        content = self._step_content(step, outcome, bids, charges, text, key)
        if self.auction.spec.own_model_ids:
            told = [reports.get(row_id) for row_id in self.auction.spec.row_ids]
            content["report_hashes"] = [report and report.hash for report in told]
            content["reports"] = [report and report.to_mapping() for report in told]
        self.receipt.append(next_line("step", content, self.receipt[-1]))
        fields: dict[str, Any] = {
            "step": step,
            "token_id": outcome.token,
            "text": text,
            "probability": outcome.q,
            "agents": [self._agent_fields(row, outcome, bids, charges) for row in range(len(bids.submitted))],
            "key": key.hex(),
            "receipt_head": self.receipt[-1]["hash"],
            "latency_ms": latency_ms,
        }
        for row_id, report in reports.items():
            fields["agents"][self.auction.spec.row_ids.index(row_id)]["report_hash"] = report.hash
        if self.auction.spec.top_tokens:
            fields["top_tokens"] = self._top_tokens(outcome)
            if outcome.cdf_below is not None:
                fields["draw"] = _draw(key, outcome)
        event = self._event("auction.token", fields)
        line = (self.receipt[-1],)
        return replace(event, distributions=outcome.distributions, aggregate=outcome.aggregate, receipt=line)

    def settled(self) -> Event:
        """The last event and the last line, after the auction has settled, was cancelled, or failed."""
        auction = self.auction
        posted = auction.state != State.FAILED
        totals = auction.totals_micros if posted else (0,) * len(auction.exact_micros)
        content = {
            "finish_reason": auction.finish_reason,
            "posted": posted,
            "num_tokens": auction.num_tokens,
            "token_ids": list(auction.token_ids),
            "text": auction.text,
            "totals_micros": list(totals),
            "voids": sorted(set().union(*(voided_by(auction.spec, line) for line in self.receipt[1:]))),
            "exact_micros": list(auction.exact_micros),
            "seed": f"{self.seed.value:064x}",
            "nonce": self.seed.nonce.hex(),
        }
        self.receipt.append(next_line("settlement", content, self.receipt[-1]))
        agents = [
            {"id": row_id, "total_micros": total, "total": from_micros(total), "exact_total_micros": exact}
            for row_id, total, exact in zip(auction.spec.row_ids, totals, auction.exact_micros, strict=True)
        ]
        kept = ("finish_reason", "posted", "num_tokens", "text", "voids", "seed", "nonce")
        fields = {name: content[name] for name in kept} | {"currency": auction.spec.currency, "agents": agents}
        total = sum(totals)
        fields |= {"total_micros": total, "total": from_micros(total), "receipt_head": self.receipt[-1]["hash"]}
        return replace(self._event("auction.settled", fields), receipt=tuple(self.receipt))

    def error(self, code: str, message: str) -> Event:
        """What went wrong, for people and by a stable code."""
        return self._event("error", {"code": code, "message": message})

    def _event(self, kind: str, fields: dict[str, Any], *, is_counted: bool = True) -> Event:
        event_id, time = self.stamp()
        event = Event(kind, self.auction.auction_id, self._seq, event_id, time, fields)
        self._seq += is_counted
        return event

    def _agent_fields(self, row: int, outcome: StepOutcome, bids: Bids, charges: Charges) -> dict[str, Any]:
        counterfactual = outcome.counterfactual_tokens[row]
        is_dropped = bids.effective[row] == 0  # whose distribution nobody looked at
        return {
            "id": self.auction.spec.row_ids[row],
            "status": bids.status[row],
            "bid_micros": bids.submitted[row],
            "effective_bid_micros": bids.effective[row],
            "probability": None if is_dropped else outcome.p[row],
            "probability_without": None if is_dropped else outcome.r[row],
            "influence": outcome.influence[row],
            "tv": None if is_dropped else outcome.tv[row],
            "exact_critical_bid_micros": outcome.critical_bids[row],
            "exact_payment_micros": charges.payments[row],
            "payment_micros": charges.charges[row],
            "total_micros": charges.totals[row],
            "clipped": charges.clipped[row],
            "counterfactual_token_id": counterfactual,
            "counterfactual_text": None if counterfactual is None else self.decode([counterfactual]),
        }

    def _step_content(
        self, step: int, outcome: StepOutcome, bids: Bids, charges: Charges, text: str, key: bytes
    ) -> dict[str, Any]:
        content: dict[str, Any] = {
            "step": step,
            "key": key.hex(),
            "token": outcome.token,
            "text": text,
            "bids": list(bids.submitted),
            "effective": list(bids.effective),
            "status": list(bids.status),
            "cdf_below": outcome.cdf_below,
            "q": outcome.q,
            "p": list(outcome.p),
            "r": list(outcome.r),
            "critical_bids": list(outcome.critical_bids),
            "owed": list(outcome.owed),
            "payments": list(charges.payments),
            "charges": list(charges.charges),
            "clipped": list(charges.clipped),
        }
        for name in ("log_partitions", "divergences", "own_tokens"):
            column = getattr(outcome, name)
            if any(value is not None for value in column):
                content[name] = list(column)
        if self.store_distributions:
            assert outcome.distributions is not None, "the decoder stores steps that leave distributions behind"
            packed = [pack_distribution(row.double().cpu().numpy()) for row in outcome.distributions]
            content["distributions"] = [data for data, _ in packed]
            content["distribution_hashes"] = [digest for _, digest in packed]
        return content

    def _top_tokens(self, outcome: StepOutcome) -> dict[str, Any]:
        """The most likely tokens of the aggregate and of every row, most likely first."""
        assert outcome.aggregate is not None and outcome.distributions is not None, "as above"
        rows = torch.cat((outcome.aggregate[None].double(), outcome.distributions.double()))
        top = rows.topk(min(self.auction.spec.top_tokens, rows.shape[-1]))
        tables = [
            [{"id": i, "text": self.decode([i]), "probability": p} for i, p in zip(ids, values, strict=True)]
            for ids, values in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ]
        agents = dict(zip(self.auction.spec.row_ids, tables[1:], strict=True))
        return {"aggregate": tables[0], "agents": agents}


def _draw(key: bytes, outcome: StepOutcome) -> dict[str, Any]:
    """How the coupled sampler came to its token, cdf_below <= uniform < cdf_below + q, and to v, which prices it."""
    chance = uniform(key, "price")
    below, threshold = outcome.cdf_below, chance * outcome.q
    return {"uniform": uniform(key, "token"), "cdf_below": below, "price_uniform": chance, "price_threshold": threshold}


def _guarantee_fields(auction: Auction) -> dict[str, Any]:
    guarantee = auction.spec.guarantee
    return {
        "summary": guarantee.summary,
        "monotone_robust": guarantee.monotone_robust,
        "truthful": guarantee.truthful,
        "payment_at_most_bid": guarantee.payment_at_most_bid,
        "safe": guarantee.safe,
    }
