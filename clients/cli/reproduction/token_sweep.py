"""The token auction's own experiment: weight moves from one advertiser to the other, under both rules.

For every query and rule the share of texts that name the first brand alone, both, the second alone or none, at each
weight; advertisers that sell what goes together and such that sell the same are kept apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tokenauction.clients.cli.compose import settle_all
from tokenauction.clients.cli.reproduction.queries import Query
from tokenauction.clients.cli.reproduction.statistics import Estimate, mean
from tokenauction.clients.cli.sweep import OUTCOMES, RULES, mention_shares
from tokenauction.engine.decoder import Decoder
from tokenauction.engine.errors import InvalidInput
from tokenauction.engine.spec import AgentSpec, AuctionSpec
from tokenauction.engine.weight_sweep import at_weight

TEMPERATURE: Final = 0.7  # the engine's own
MAX_TOKENS: Final = 64


@dataclass(frozen=True)
class TokenSweep:
    """How finely weights move, and how many texts are written at each."""

    num_points: int
    num_texts: int

    @property
    def weights(self) -> list[float]:
        return [point / (self.num_points - 1) for point in range(self.num_points)]

    def find(self, decoder: Decoder, query: Query) -> dict[str, Any]:
        """One query's line of a run."""
        first, second = query.advertisers
        agents = (AgentSpec("first", first.name, first.offer, 1), AgentSpec("second", second.name, second.offer, 1))
        spec = AuctionSpec(query.text, agents, pricing="free", temperature=TEMPERATURE, max_tokens=MAX_TOKENS)
        cells = [(rule, weight) for rule in RULES for weight in self.weights]
        seeds = [int.from_bytes(hashlib.sha256(f"{query.id}\n{i}".encode()).digest()) for i in range(self.num_texts)]
        specs = [at_weight(spec, rule, weight, seed) for rule, weight in cells for seed in seeds]
        texts = [str(fields["text"]) for fields in settle_all(decoder, specs, lambda: None)]
        rows = []
        for number, (rule, weight) in enumerate(cells):
            written = texts[number * self.num_texts : (number + 1) * self.num_texts]
            shares = mention_shares(written, first.name, second.name)
            rows.append({"rule": rule, "weight": weight, **shares, "example": written[0]})
        return {"query": query.id, "relation": query.relation, "rows": rows}


def shares(lines: Sequence[Mapping[str, Any]], rule: str, relation: str) -> dict[float, dict[str, Estimate]]:
    """By weight of the first advertiser and outcome, the share over queries of a relation; {} where there are none."""
    try:
        chosen = [line["rows"] for line in lines if line["relation"] == relation]
        by_weight: dict[float, dict[str, list[float]]] = {}
        for row in (row for rows in chosen for row in rows if row["rule"] == rule):
            found = by_weight.setdefault(row["weight"], {outcome: [] for outcome in OUTCOMES})
            for outcome in OUTCOMES:
                found[outcome].append(float(row[outcome]))
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"a line of the sweep cannot be read ({error}); remove its file") from None
    return {weight: {outcome: mean(found[outcome]) for outcome in OUTCOMES} for weight, found in by_weight.items()}
