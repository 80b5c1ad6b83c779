"""What a softmax auction is beside the token auction's spec: where its candidates come from, how many, and τ.

    reference       every candidate is the house model's own text
    context_aware   of a model whose prompt names every advertiser
    token_auction   of the token auction itself, whose weights nobody's bid or value moves

Candidates must not depend on what is strategic, or truth is no longer the best report. So `proposal_weights` other than
"equal" (bids or values weigh in the token auction that proposes) are refused unless `allow_unsafe` is set. Source:
Soumalias, Curry, Seuken, arXiv 2405.05905; the token auction as a proposal is derived, see docs/mechanism.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from tokenauction.engine.errors import InvalidSpec, UnsafeCombination
from tokenauction.engine.guarantees import FinalizerGuarantee
from tokenauction.engine.money import MICROS, from_micros, to_micros
from tokenauction.engine.spec_fields import choice, flag, integer

Proposal = Literal["reference", "context_aware", "token_auction"]
ProposalWeights = Literal["equal", "bids", "values"]

MAX_CANDIDATES = 256
FIELDS = ("num_candidates", "proposal", "proposal_weights", "proposal_reference_weight", "tau", "show_candidates")
PROPOSAL_ID = "proposal"  # reserved: the row that writes context-aware candidates
TEMPERATURE = 1.0  # where a spec names none: the less shaped, the less its weights differ


@dataclass(frozen=True)
class FinalizerSpec:
    """How the candidates of a softmax auction are made, and how sharply it chooses among them."""

    num_candidates: int = 8
    proposal: Proposal = "context_aware"
    proposal_weights: ProposalWeights = "equal"  # of the agents in the token auction that proposes
    proposal_reference_weight_micros: int = MICROS  # of the house model in it, where an equal agent weighs MICROS
    tau_micros: int = MICROS  # currency per nat: what a nat away from the reference must be worth
    show_candidates: bool = False  # their texts, while they are written

    @classmethod
    def from_fields(cls, values: Mapping[str, Any]) -> FinalizerSpec:
        """Read the fields of FIELDS that are there; raises InvalidSpec or InvalidBid, which name the field."""
        given = dict(values)
        for name in ("proposal_reference_weight", "tau"):
            if name in given:
                given[f"{name}_micros"] = to_micros(given.pop(name), f"spec.{name}")
        return cls(**given)

    def to_mapping(self) -> dict[str, Any]:
        """The fields that `from_fields` reads back to an equal spec."""
        return {
            "num_candidates": self.num_candidates,
            "proposal": self.proposal,
            "proposal_weights": self.proposal_weights,
            "proposal_reference_weight": from_micros(self.proposal_reference_weight_micros),
            "tau": from_micros(self.tau_micros),
            "show_candidates": self.show_candidates,
        }

    def __post_init__(self) -> None:
        integer(self.num_candidates, "spec.num_candidates", 1, MAX_CANDIDATES)
        choice(self.proposal, "spec.proposal", get_args(Proposal))
        choice(self.proposal_weights, "spec.proposal_weights", get_args(ProposalWeights))
        flag(self.show_candidates, "spec.show_candidates")
        if self.tau_micros == 0:
            raise InvalidSpec("spec.tau is 0; it must be positive: at 0 the best candidate wins")

    def guarantee(self, *, allow_unsafe: bool) -> FinalizerGuarantee:
        """What this proposal promises; raises UnsafeCombination where that is nothing and nobody insists."""
        is_safe = self.proposal != "token_auction" or self.proposal_weights == "equal"
        if not is_safe and not allow_unsafe:
            raise UnsafeCombination(
                f"candidates of a token auction weighted by {self.proposal_weights} depend on what agents say, so that "
                "truth is no longer their best report. Use proposal_weights equal, or set allow_unsafe"
            )
        return FinalizerGuarantee(self.proposal, is_safe)
