"""The record of one softmax auction: how far its candidates are, each candidate, the choice, and what it costs whom.

Candidates go on record in the order of their numbers, so that one seed gives one receipt whatever else was decoded
beside them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tokenauction.engine.auction import Charges
from tokenauction.engine.candidate import Candidate
from tokenauction.engine.choice import Choice
from tokenauction.engine.events import Event
from tokenauction.engine.randomness import step_key
from tokenauction.engine.receipt import Line, next_line
from tokenauction.engine.recorder import Recorder


@dataclass
class FinalizerRecorder(Recorder):
    """Writes the events and the receipt of one softmax auction."""

    reward: str = ""  # the name of the source

    def _also_fixed(self) -> dict[str, Any]:
        return {"reward": self.reward}

    @property
    def shows_candidates(self) -> bool:
        finalizer = self.auction.spec.finalizer
        return finalizer is not None and finalizer.show_candidates

    def progress(self, num_done: int, num_candidates: int, num_tokens: int) -> Event:
        """How far the candidates are."""
        fields = {"num_done": num_done, "num_candidates": num_candidates, "num_tokens": num_tokens}
        return self._event("candidates.progress", fields)

    def candidate(self, candidate: Candidate) -> Event:
        """Chain the line of the next candidate, and tell that it is complete; its text only if the spec asks."""
        self.receipt.append(next_line("candidate", candidate.to_mapping(), self.receipt[-1]))
        fields: dict[str, Any] = {
            "index": candidate.index,
            "num_tokens": len(candidate.token_ids),
            "finish_reason": candidate.finish_reason,
            "receipt_head": self.receipt[-1]["hash"],
        }
        if self.shows_candidates:
            fields |= {"text": candidate.text, "log_proposal": candidate.log_proposal}
        return replace(self._event("candidate.completed", fields), receipt=(self.receipt[-1],))

    def finalized(self, choice: Choice, candidates: Sequence[Candidate], charges: Charges) -> Event:
        """Chain the line of the choice, and tell who won, what everybody pays, and what it all followed from."""
        self.receipt.append(next_line("choice", self._choice_content(choice, charges), self.receipt[-1]))
        winner = candidates[choice.chosen]
        fields: dict[str, Any] = {
            "chosen": choice.chosen,
            "text": winner.text,
            "num_tokens": len(winner.token_ids),
            "candidates": [self._candidate_fields(candidate, choice) for candidate in candidates],
            "agents": [self._choice_fields(row, choice, charges) for row in range(len(choice.owed))],
            "effective_sample_size": choice.effective_sample_size,
            "log_mean_weight": choice.log_mean_weight,
            "divergence": choice.divergence,
            "key": self.receipt[-1]["key"],
            "receipt_head": self.receipt[-1]["hash"],
        }
        return replace(self._event("auction.finalized", fields), receipt=(self.receipt[-1],))

    def _choice_content(self, choice: Choice, charges: Charges) -> Line:
        return {
            "key": step_key(self.seed.value, 0).hex(),
            "log_reference": [_finite(x) for x in choice.log_reference],
            "rewards": [[_finite(x) for x in row] for row in choice.rewards_nats],
            "probabilities": list(choice.probabilities),
            "chosen": choice.chosen,
            "owed": list(choice.owed),
            "utilities": list(choice.utilities),
            "payments": list(charges.payments),
            "charges": list(charges.charges),
            "clipped": list(charges.clipped),
        }

    def _candidate_fields(self, candidate: Candidate, choice: Choice) -> dict[str, Any]:
        index = candidate.index
        fields = {
            "index": index,
            "probability": choice.probabilities[index],
            "log_reference": _finite(choice.log_reference[index]),
            "log_proposal": candidate.log_proposal,
        }
        return fields | ({"text": candidate.text} if self.shows_candidates else {})

    def _choice_fields(self, row: int, choice: Choice, charges: Charges) -> dict[str, Any]:
        agent = self.auction.spec.agents[row]
        return {
            "id": agent.id,
            "value_per_nat_micros": agent.value_per_nat_micros,
            "rewards": [_finite(x) for x in choice.rewards_nats[row]],
            "reward": _finite(choice.rewards_nats[row][choice.chosen]),
            "exact_expected_reward_micros": choice.expected_rewards[row],
            "exact_utility_micros": choice.utilities[row],
            "exact_payment_micros": charges.payments[row],
            "payment_micros": charges.charges[row],
            "total_micros": charges.totals[row],
            "clipped": charges.clipped[row],
            "probabilities_without": list(choice.probabilities_without[row]),
            "chosen_without": choice.chosen_without[row],
        }


def _finite(number: float) -> float | None:
    """None for -inf: a candidate that is ruled out; JSON has no number for it."""
    return None if math.isinf(number) else number
