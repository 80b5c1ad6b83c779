"""What was drawn for one query: candidates of every proposal, in numbers. Not what is made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from tokenauction.engine.errors import InvalidInput

NEEDED: Final = frozenset({"reference", "context_aware"})  # the proposals that the papers compare


@dataclass(frozen=True, eq=False)
class Candidates:
    """Texts drawn independently from one proposal, and what everybody makes of them; all in nats."""

    log_reference: Float64[Tensor, " candidates"]  # ln π_ref(y), of the reference's own law, unshaped
    log_proposal: Float64[Tensor, " candidates"]  # ln π_gen(y), of the law that was really sampled
    rewards: Float64[Tensor, "agents candidates"]  # r_i(y)
    names: Bool[Tensor, "agents candidates"]  # whether the text names the advertiser's brand
    texts: tuple[str, ...]  # a few of them, in the order drawn

    @property
    def num(self) -> int:
        return len(self.log_reference)

    @property
    def log_weight(self) -> Float64[Tensor, " candidates"]:
        """ln π_ref(y) - ln π_gen(y)."""
        return self.log_reference - self.log_proposal

    def to_mapping(self) -> dict[str, Any]:
        return {
            "log_reference": self.log_reference.tolist(),
            "log_proposal": self.log_proposal.tolist(),
            "rewards": self.rewards.tolist(),
            "names": self.names.int().tolist(),
            "texts": list(self.texts),
        }

    @classmethod
    def from_mapping(cls, fields: Mapping[str, Any]) -> Candidates:
        def floats(name: str) -> Tensor:
            return torch.tensor(fields[name], dtype=torch.float64)

        names = torch.tensor(fields["names"], dtype=torch.bool)
        drawn = cls(floats("log_reference"), floats("log_proposal"), floats("rewards"), names, tuple(fields["texts"]))
        if drawn.num == 0 or drawn.log_proposal.shape != drawn.log_reference.shape:
            raise ValueError("there are no candidates, or not as many probabilities of one law as of the other")
        if drawn.rewards.shape != names.shape or drawn.rewards.shape[1:] != drawn.log_reference.shape:
            raise ValueError("there is not one reward for each advertiser and candidate")
        return drawn


@dataclass(frozen=True, eq=False)
class DrawnQuery:
    """One query's candidates, by proposal; and of the optimum what is known of it."""

    query_id: str
    relation: str
    proposals: Mapping[str, Candidates]
    log_partition: float | None = None  # ln Z
    optimum_log_probability: float | None = None  # E_π*[ln π*(y)]: what a perfect mechanism's texts have on average

    def to_mapping(self) -> dict[str, Any]:
        proposals = {name: candidates.to_mapping() for name, candidates in self.proposals.items()}
        return {
            "query": self.query_id,
            "relation": self.relation,
            "log_partition": self.log_partition,
            "optimum_log_probability": self.optimum_log_probability,
            "proposals": proposals,
        }

    @classmethod
    def from_mapping(cls, fields: Any, where: str) -> DrawnQuery:
        """Raises InvalidInput, which names `where`, for what `to_mapping` did not write."""
        try:
            proposals = {name: Candidates.from_mapping(value) for name, value in fields["proposals"].items()}
            known = [fields[name] for name in ("log_partition", "optimum_log_probability")]
            numbers = [None if value is None else float(value) for value in known]
            drawn = cls(str(fields["query"]), str(fields["relation"]), proposals, *numbers)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise InvalidInput(f"{where} is no query's candidates ({error}); remove the run's folder") from None
        if not set(proposals) >= NEEDED or not all(number is None or math.isfinite(number) for number in numbers):
            raise InvalidInput(f"{where} is no query's candidates; remove the run's folder")
        return drawn
