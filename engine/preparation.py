"""An auction is made ready for the decoder: its state, its seed, its record, what its text will have come from.

A softmax auction is made ready with all its candidates. Nothing is queued here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokenauction.engine.auction import Auction
from tokenauction.engine.candidate import CandidateRecorder
from tokenauction.engine.device_loop import is_covered
from tokenauction.engine.ensemble import Ensemble
from tokenauction.engine.errors import CapacityError, InvalidInput
from tokenauction.engine.finalizer_recorder import FinalizerRecorder
from tokenauction.engine.finalizer_spec import FinalizerSpec
from tokenauction.engine.fused_clearing import ClearingChoice, cleared_by
from tokenauction.engine.performance import Performance
from tokenauction.engine.policy import Policy
from tokenauction.engine.proposal import candidate_seed, candidate_spec, writing_ids
from tokenauction.engine.provenance import Provenance
from tokenauction.engine.reading import inner_text
from tokenauction.engine.recorder import Recorder, Stamp
from tokenauction.engine.reward import LogRatio, RewardSource
from tokenauction.engine.seed import Seed
from tokenauction.engine.spec import AuctionSpec
from tokenauction.models.base import LanguageModel


@dataclass(frozen=True)
class Preparation:
    """What every auction of one decoder is made with."""

    model: LanguageModel
    stamp: Stamp
    entropy: Callable[[int], bytes]
    store_distributions: bool
    clearing: ClearingChoice
    has_device: bool  # whether steps can be computed on the device

    def prepare(
        self,
        spec: AuctionSpec,
        prompts: Sequence[Sequence[int]],
        policy: Policy,
        auction_id: str,
        seed: Seed | None,
        is_paced: bool,
        rewards: RewardSource | None,
    ) -> Performance:
        """As `Decoder.prepare`."""
        if len(prompts) != len(spec.hosted_ids):
            raise InvalidInput(f"{len(spec.hosted_ids)} rows need as many prompts, not {len(prompts)}")
        if seed is None:
            seed = Seed.drawn(self.entropy(64)) if spec.seed is None else Seed.of_caller(spec.seed)
        rows = [list(prompt) for prompt in prompts]
        if spec.finalizer is not None:
            return self._ensemble(spec, spec.finalizer, rows, policy, auction_id, seed, rewards or LogRatio())
        if rewards is not None:
            raise InvalidInput("rewards are for a softmax auction: a token auction has bids")
        self._check_rows(len(rows))
        is_elsewhere = self._is_elsewhere(spec, policy, is_paced=is_paced)
        provenance = Provenance.of(self.model, spec, rows, self._cleared_by(spec, is_elsewhere=is_elsewhere))
        auction, tokenizer = Auction(spec, auction_id), self.model.tokenizer
        recorder = Recorder(auction, seed, provenance, self.stamp, inner_text(tokenizer), self.store_distributions)
        return Performance(auction, rows, policy, recorder, tokenizer.text_stream(), is_elsewhere, is_paced=is_paced)

    def _ensemble(
        self,
        spec: AuctionSpec,
        finalizer: FinalizerSpec,
        rows: list[list[int]],
        policy: Policy,
        auction_id: str,
        seed: Seed,
        rewards: RewardSource,
    ) -> Ensemble:
        """A softmax auction with its candidates."""
        of_candidate = candidate_spec(spec, finalizer)
        prompts = dict(zip(spec.hosted_ids, rows, strict=True))
        writing = [prompts[row_id] for row_id in writing_ids(spec, finalizer)]
        self._check_rows(len(writing))
        is_elsewhere = self._is_elsewhere(of_candidate, policy, is_paced=False)
        provenance = Provenance.of(self.model, spec, rows, self._cleared_by(of_candidate, is_elsewhere=is_elsewhere))
        tokenizer = self.model.tokenizer
        performances = []
        for index in range(finalizer.num_candidates):
            auction = Auction(of_candidate, f"{auction_id}/candidates/{index}")
            own = Seed(candidate_seed(seed.value, index), seed.nonce, seed.source)
            recorder = CandidateRecorder(auction, own, provenance, self.stamp, tokenizer.decode, index=index)
            stream = tokenizer.text_stream()
            performances.append(Performance(auction, writing, policy, recorder, stream, is_elsewhere))
        auction = Auction(spec, auction_id)
        record = FinalizerRecorder(auction, seed, provenance, self.stamp, tokenizer.decode, reward=rewards.name)
        stream = tokenizer.text_stream()
        return Ensemble(auction, rows, policy, record, stream, performances=performances, rewards=rewards)

    def _check_rows(self, num_rows: int) -> None:
        if num_rows > self.model.max_rows:
            raise CapacityError(f"{num_rows} rows never fit into the model's {self.model.max_rows}; raise max_rows")

    def _is_elsewhere(self, spec: AuctionSpec, policy: Policy, *, is_paced: bool) -> bool:
        return self.has_device and not self.store_distributions and not is_paced and is_covered(spec, policy)

    def _cleared_by(self, spec: AuctionSpec, *, is_elsewhere: bool) -> str:
        return "device" if is_elsewhere else cleared_by(spec, self.model.device, self.clearing)
