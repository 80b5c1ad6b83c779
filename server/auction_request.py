"""What somebody who creates an auction asks for, checked once: the engine's spec, how long agents may join and think,
how slowly it is written, the holds.

Every agent has a budget for the whole text, which is what is held of its account; who declares none has declared its
bid for each of the most tokens there may be. It must not know the ledger, nor where the request came from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tokenauction.engine.errors import InvalidSpec
from tokenauction.engine.finalizer_spec import FinalizerSpec
from tokenauction.engine.money import MAX_MICROS
from tokenauction.engine.spec import AgentSpec, AuctionSpec

TERMS = ("max_tokens", "currency", "rule", "pricing")  # of a spec: what somebody who thinks of joining must know
MAX_TOKENS = 4_096  # of one text on a server
MAX_CANDIDATES = 64  # of one softmax auction
MAX_JOIN_MS = 60_000
MAX_TOKEN_MS = 10_000
TMAX_TOKEN_MS = 100  # unless it is given
OWN_FIELDS = ("tmax_join_ms", "token_ms", "tmax_token_ms", "own_models", "commit_reveal")  # beside the engine's
NOBODY_YET = {"id": "nobody-yet", "name": "Nobody", "offer": "nothing", "bid": 1}  # stands in for those that may join


@dataclass(frozen=True)
class AuctionRequest:
    """An auction as it was asked for."""

    template: AuctionSpec  # all but the agents, which are those of `agents`
    agents: tuple[AgentSpec, ...]  # that are listed from the start, each with its budget
    tmax_join_ms: int  # 0: the text begins at once, with the agents that are listed
    token_ms: int = 0  # rest behind every token, for people who watch and steer; 0: as fast as it goes
    tmax_token_ms: int = TMAX_TOKEN_MS  # how long the distributions of agents with models of their own are waited for
    own_models: bool = False  # agents that join may bring their own models
    commit_reveal: bool = False  # the hash of a distribution is on the ledger before the draw that it takes part in

    @classmethod
    def from_mapping(cls, source: Mapping[str, Any]) -> AuctionRequest:
        """Read a request; raises InvalidSpec, InvalidBid or UnsafeCombination, which name the field."""
        fields = dict(source)
        join_ms = _milliseconds(fields, "tmax_join_ms", MAX_JOIN_MS)
        token_ms = _milliseconds(fields, "token_ms", MAX_TOKEN_MS)
        tmax_token_ms = _milliseconds(fields, "tmax_token_ms", MAX_TOKEN_MS, 1, TMAX_TOKEN_MS)
        flags = {name: fields.pop(name, False) for name in ("own_models", "commit_reveal")}
        for name, value in flags.items():
            if not isinstance(value, bool):
                raise InvalidSpec(f"spec.{name} is {value!r}; it must be true or false")
        nobody_is_listed = join_ms > 0 and fields.get("agents", []) == []
        spec = AuctionSpec.from_mapping({**fields, "agents": [NOBODY_YET]} if nobody_is_listed else fields)
        if spec.max_tokens > MAX_TOKENS:
            raise InvalidSpec(f"spec.max_tokens is {spec.max_tokens}; a server writes at most {MAX_TOKENS}")
        if spec.finalizer is not None:
            _check_softmax(spec.finalizer, join_ms)
        agents = () if nobody_is_listed else tuple(with_budget(agent, spec) for agent in spec.agents)
        template = replace(spec, agents=agents or spec.agents)
        return cls(template, agents, join_ms, token_ms, tmax_token_ms, **flags)

    @property
    def holds(self) -> dict[str, int]:
        """What is held of each listed agent's account, in micros."""
        return {agent.id: agent.budget_micros or 0 for agent in self.agents}

    def spec_of(self, agents: tuple[AgentSpec, ...]) -> AuctionSpec:
        """The engine's spec with these agents; InvalidSpec where they cannot be in one auction."""
        return replace(self.template, agents=agents)

    def to_mapping(self) -> dict[str, Any]:
        """The mapping that `from_mapping` reads back to an equal request."""
        agents = [agent.to_mapping() for agent in self.agents]
        own = {name: getattr(self, name) for name in OWN_FIELDS}
        return {**self.template.to_mapping(), "agents": agents, **own}


def _milliseconds(fields: dict[str, Any], name: str, most: int, least: int = 0, missing: int = 0) -> int:
    """Take a time out of the fields; `missing` where it is not given."""
    value: Any = fields.pop(name, missing)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidSpec(f"spec.{name} is {value!r}; it must be a whole number from {least} to {most}")
    return value


def _check_softmax(finalizer: FinalizerSpec, join_ms: int) -> None:
    if join_ms:
        raise InvalidSpec("spec.tmax_join_ms: nobody joins a softmax auction, whose candidates name all advertisers")
    if finalizer.num_candidates > MAX_CANDIDATES:
        raise InvalidSpec(f"spec.num_candidates is {finalizer.num_candidates}; a server takes at most {MAX_CANDIDATES}")


def with_budget(agent: AgentSpec, template: AuctionSpec) -> AgentSpec:
    """The agent with a budget: its own, or its bid (under softmax: its value per nat) for every token there may be."""
    if agent.budget_micros is not None:
        return agent
    a_token = agent.bid_micros if template.finalizer is None else agent.value_per_nat_micros
    return replace(agent, budget_micros=min(a_token * template.max_tokens, MAX_MICROS))


def disclosure(agents: Iterable[AgentSpec]) -> dict[str, Any]:
    """What the first and the last event of every stream say: that the text is paid for, and by whom."""
    return {"sponsored": True, "by": [{"id": agent.id, "name": agent.name} for agent in agents]}
