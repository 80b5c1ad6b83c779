"""The candidates of one softmax auction while they are written and scored; the auction is a performance like others.

    written: M gangs of the decoder's batch → complete → scored: every agent's prompt and the reference's in front of
    every text, in one pass where nobody waits, else in shares → the choice

It must not know how gangs are scheduled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float64
from torch import Tensor

from tokenauction.engine.candidate import Candidate, CandidateRecorder
from tokenauction.engine.finalizer_recorder import FinalizerRecorder
from tokenauction.engine.performance import Performance
from tokenauction.engine.reward import LogRatio, RewardSource
from tokenauction.models.base import LanguageModel

SHARE_TOKENS = 512  # of texts that are scored in one step while other auctions wait for it
PROGRESS_STEPS = 8  # from one progress event to the next

Text = tuple[int, ...]


@dataclass(eq=False)
class Ensemble(Performance):
    """One softmax auction in the decoder: its candidates, and how far they are."""

    performances: list[Performance] = field(default_factory=list)  # of the candidates, by number
    rewards: RewardSource = field(default_factory=LogRatio)
    done: dict[int, Candidate] = field(default_factory=dict)
    num_told: int = 0  # candidates on record
    failure: tuple[str, str] | None = None  # code and message of the first candidate that failed
    num_steps: int = 0  # in which one of its candidates took part
    _scores: dict[Text, list[float]] = field(default_factory=dict)  # ln p behind every prefix

    @property
    def record(self) -> FinalizerRecorder:
        assert isinstance(self.recorder, FinalizerRecorder), "an ensemble is made with a recorder of its own"
        return self.recorder

    @property
    def is_complete(self) -> bool:
        """Whether every candidate is written."""
        return len(self.done) == len(self.performances)

    @property
    def is_due(self) -> bool:
        """Whether something is to be done that no candidate's token does."""
        return self.is_cancelled or self.failure is not None or self.is_complete

    @property
    def candidates(self) -> list[Candidate]:
        """Those that are written, by number."""
        return [self.done[index] for index in sorted(self.done)]

    @property
    def num_tokens_written(self) -> int:
        complete = sum(len(candidate.token_ids) for candidate in self.done.values())
        return complete + sum(p.auction.num_tokens for i, p in enumerate(self.performances) if i not in self.done)

    def complete(self, index: int) -> None:
        """Take in a candidate whose text is complete."""
        recorder = self.performances[index].recorder
        assert isinstance(recorder, CandidateRecorder), "the performances are those of candidates"
        self.done[index] = recorder.candidate()

    def score(self, model: LanguageModel, *, is_alone: bool) -> bool:
        """Score what is left, or a share of it; whether that was all. Equal texts are scored once.

        Raises the model's errors.
        """
        prefixes = self._prefixes
        left = [text for text in dict.fromkeys(c.token_ids for c in self.candidates) if text not in self._scores]
        share: list[Text] = []
        num_tokens = 0
        for text in left:
            num_tokens += len(text) * len(prefixes)
            if share and not is_alone and num_tokens > SHARE_TOKENS:
                break
            share.append(text)
        scored = model.score(prefixes, share) if share else []
        for place, text in enumerate(share):
            self._scores[text] = [float(rows[place].double().sum()) for rows in scored]
        return len(share) == len(left)

    def log_reference(self) -> list[float]:
        """ln π_ref of every candidate, once all are scored."""
        return [self._scores[candidate.token_ids][-1] for candidate in self.candidates]

    def nats(self) -> Float64[Tensor, "agents candidates"]:
        """What every candidate is worth to every agent, once all are scored."""
        ids = [agent.id for agent in self.auction.spec.agents]
        candidates = self.candidates
        ratios = torch.zeros(len(ids), len(candidates), dtype=torch.float64)
        if self.rewards.reads_models:
            scores = torch.tensor([self._scores[c.token_ids] for c in candidates], dtype=torch.float64).T
            gone = scores[-1] == -math.inf  # the reference rules it out already
            ratios = torch.where(gone, 0.0, scores[:-1] - scores[-1])
        return self.rewards.rewards(ids, candidates, ratios)

    @property
    def _prefixes(self) -> Sequence[Sequence[int]]:
        """The prompts that are scored: the agents', where their models are asked, then the reference's."""
        num_agents = len(self.auction.spec.agents)
        return self.prompts[0 if self.rewards.reads_models else num_agents : num_agents + 1]
