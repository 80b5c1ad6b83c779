"""A language model as a source of candidates: the paper's experiment, with a model and queries of one's own.

Each proposal's candidates are those of one softmax auction in the decoder, so that they are written as one batch and
every ln π_gen is that of the law really sampled. ln π_ref and the rewards are of the models' own laws, unshaped: a text
outside the reference's nucleus would have no probability at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from tokenauction.clients.cli.compose import AuctionFailed, submit
from tokenauction.clients.cli.reproduction.drawn import Candidates, DrawnQuery
from tokenauction.clients.cli.reproduction.queries import Query
from tokenauction.engine.decoder import Decoder
from tokenauction.engine.errors import InvalidInput
from tokenauction.engine.finalizer_spec import FinalizerSpec, Proposal
from tokenauction.engine.spec import AgentSpec, AuctionSpec
from tokenauction.engine.weight_sweep import names_in

PROPOSALS: Final[tuple[Proposal, ...]] = ("reference", "context_aware", "token_auction")
TEMPERATURE: Final = 0.8  # the paper's
TOP_P: Final = 0.95  # the paper's
MAX_TOKENS: Final = 64
NUM_TEXTS: Final = 3  # that are kept of each proposal


@dataclass(frozen=True)
class ModelWorldSource:
    """Queries and a decoder; `num_candidates` are drawn from each proposal of each."""

    decoder: Decoder
    queries: tuple[Query, ...]
    num_candidates: int
    seed: int = 0
    name: str = field(default="model")

    @property
    def query_ids(self) -> list[str]:
        return [query.id for query in self.queries]

    def draw(self, query_id: str) -> DrawnQuery:
        """The candidates of one query; raises AuctionFailed if the model cannot write or score them."""
        [query] = [query for query in self.queries if query.id == query_id]
        drawn: dict[str, Candidates] = {name: self._candidates(query, name) for name in PROPOSALS}
        return DrawnQuery(query.id, query.relation, drawn)

    def _candidates(self, query: Query, proposal: Proposal) -> Candidates:
        final = self._finalized(query, self._spec(query, proposal))
        candidates = final["candidates"]
        texts = [candidate["text"] for candidate in candidates]
        names = [[bool(names_in(text, [advertiser.name])) for text in texts] for advertiser in query.advertisers]
        return Candidates(
            torch.tensor([candidate["log_reference"] for candidate in candidates], dtype=torch.float64),
            torch.tensor([candidate["log_proposal"] for candidate in candidates], dtype=torch.float64),
            torch.tensor([agent["rewards"] for agent in final["agents"]], dtype=torch.float64),
            torch.tensor(names),
            tuple(texts[:NUM_TEXTS]),
        )

    def _spec(self, query: Query, proposal: Proposal) -> AuctionSpec:
        key = f"{self.seed}\n{query.id}\n{proposal}"
        return AuctionSpec(
            query.text,
            tuple(AgentSpec(a.name, a.name, a.offer, bid_micros=0) for a in query.advertisers),
            rule="linear",  # which takes top-p; in the log-linear one a zero is a veto
            temperature=TEMPERATURE,
            top_p=TOP_P,
            max_tokens=MAX_TOKENS,
            seed=int.from_bytes(hashlib.sha256(key.encode()).digest()),
            finalizer=FinalizerSpec(
                self.num_candidates, proposal, proposal_reference_weight_micros=0, show_candidates=True
            ),
        )

    def _finalized(self, query: Query, spec: AuctionSpec) -> Mapping[str, Any]:
        submit(self.decoder, spec)
        final: Mapping[str, Any] | None = None
        while self.decoder.has_work:
            for event in self.decoder.step():
                if event.type == "error":
                    raise AuctionFailed(f"{query.id}: {event.fields['message']}", event.fields["code"])
                if event.type == "auction.finalized":
                    final = event.fields
        if final is None:
            raise InvalidInput(f"{query.id}: the auction ended without a choice")
        return final
