"""What an auction is: a frozen description, checked once when it is made; knows no file, no model and no state.

A spec comes from a mapping (a YAML file, a JSON message) whose amounts are decimal currency per token; inside they are
integer micros. Whatever is wrong raises InvalidSpec, InvalidBid or UnsafeCombination, naming the field and the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

from tokenauction.engine.errors import InvalidSpec
from tokenauction.engine.finalizer_spec import FIELDS as FINALIZER_FIELDS
from tokenauction.engine.finalizer_spec import PROPOSAL_ID, FinalizerSpec
from tokenauction.engine.finalizer_spec import TEMPERATURE as FINALIZER_TEMPERATURE
from tokenauction.engine.guarantees import FINALIZER_LIMITS, LIMITS, FinalizerGuarantee, Guarantee, guarantee
from tokenauction.engine.money import MICROS, from_micros, to_micros
from tokenauction.engine.shaping import check_truncation
from tokenauction.engine.spec_fields import (
    MAX_TEXT,
    choice,
    flag,
    has_surrogate,
    integer,
    mapping_of,
    number,
    required,
    text_of,
)

MAX_AGENTS = 64
MAX_TOKENS = 100_000
MAX_SEED = 2**256 - 1
REFERENCE_ID = "reference"  # reserved: the house model's row


_MICROS = MappingProxyType({"bid": "bid_micros", "budget": "budget_micros", "value_per_nat": "value_micros"})


@dataclass(frozen=True)
class AgentSpec:
    """One advertiser: what it sells, what it bids for a token, and what it will spend at most."""

    id: str
    name: str
    offer: str
    bid_micros: int  # per token
    budget_micros: int | None = None  # for the whole text; None for no limit
    system_prompt: str | None = None
    prompt: str | None = None  # verbatim instead of the brief
    own_model: bool = False  # it sends its distributions; the platform's model has no row for it
    value_micros: int | None = None  # per nat of reward, in a softmax auction; None for 1 unit of currency

    @classmethod
    def from_mapping(cls, source: Any, where: str, *, needs_bid: bool = True) -> AgentSpec:
        """Read one agent; InvalidSpec or InvalidBid name the field as `where`.field."""
        names = {f.name for f in fields(cls)} - set(_MICROS.values()) | set(_MICROS)
        values = mapping_of(source, where, names)
        name = text_of(values, "name", where)
        bid = required(values, "bid", where) if needs_bid else values.get("bid", 0)
        budget, value = values.get("budget"), values.get("value_per_nat")
        return cls(
            id=text_of(values, "id", where) if "id" in values else name,
            name=name,
            offer=text_of(values, "offer", where) if "prompt" not in values or "offer" in values else "",
            bid_micros=to_micros(bid, f"{where}.bid"),
            budget_micros=None if budget is None else to_micros(budget, f"{where}.budget"),
            system_prompt=text_of(values, "system_prompt", where) if values.get("system_prompt") is not None else None,
            prompt=text_of(values, "prompt", where, line=False) if values.get("prompt") is not None else None,
            own_model=flag(values.get("own_model", False), f"{where}.own_model"),
            value_micros=None if value is None else to_micros(value, f"{where}.value_per_nat"),
        )

    def to_mapping(self) -> dict[str, Any]:
        """The mapping that `from_mapping` reads back to an equal spec; amounts as decimal strings."""
        mapping: dict[str, Any] = {"id": self.id, "name": self.name, "offer": self.offer}
        mapping["bid"] = from_micros(self.bid_micros)
        mapping["budget"] = None if self.budget_micros is None else from_micros(self.budget_micros)
        mapping |= {k: getattr(self, k) for k in ("system_prompt", "prompt") if getattr(self, k) is not None}
        if self.own_model:
            mapping["own_model"] = True
        if self.value_micros is not None:
            mapping["value_per_nat"] = from_micros(self.value_micros)
        return {k: v for k, v in mapping.items() if not (k == "offer" and v == "")}

    @property
    def value_per_nat_micros(self) -> int:
        return MICROS if self.value_micros is None else self.value_micros


@dataclass(frozen=True)
class AuctionSpec:
    """One auction, whole: the query, who takes part, the mechanism, the shaping, and when it ends.

    With a `finalizer` it is a softmax auction over whole texts; rule, sampler, pricing and bids are then those of the
    token auction that it may be compared with.
    """

    query: str
    agents: tuple[AgentSpec, ...]
    rule: Literal["linear", "log_linear"] = "linear"
    sampler: Literal["coupled", "race"] = "coupled"
    pricing: Literal["critical_bid", "expected", "kl_clarke", "first_price", "free"] = "critical_bid"
    currency: str = "USD"
    reference_weight_micros: int = 0  # weight of the house model per token; it never pays; 0 for no reference
    temperature: float = 0.7  # of every agent's own distribution, before aggregation
    top_k: int | None = None
    top_p: float | None = None
    floor: float | None = None  # share of a uniform distribution mixed into every agent's (log_linear)
    max_tokens: int = 64
    max_sentences: int | None = None
    banned_words: tuple[str, ...] = ()
    top_tokens: int = 0  # most likely tokens of every distribution in each token event
    seed: int | None = None  # None: drawn when the auction starts
    allow_unsafe: bool = False
    finalizer: FinalizerSpec | None = None  # None: the token auction

    @classmethod
    def from_mapping(cls, source: Any) -> AuctionSpec:
        """Read a spec; unknown fields are refused."""
        if isinstance(source, Mapping) and "reference_weight_micros" in source:
            raise InvalidSpec(
                "spec.reference_weight_micros is not a field; give reference_weight in currency per token"
            )
        names = {f.name for f in fields(cls)} - {"reference_weight_micros", "finalizer"} | {"reference_weight"}
        values = dict(mapping_of(source, "spec", names | {"mechanism", *FINALIZER_FIELDS}))
        finalizer = _finalizer(values)
        agents = values.pop("agents", None)
        if not isinstance(agents, Sequence) or isinstance(agents, str):
            raise InvalidSpec("spec.agents must be a list of agents")
        reference_weight = to_micros(values.pop("reference_weight", 0), "spec.reference_weight")
        banned = values.pop("banned_words", ())
        if isinstance(banned, str) or not isinstance(banned, Sequence):
            raise InvalidSpec("spec.banned_words must be a list of words")
        return cls(
            agents=tuple(
                AgentSpec.from_mapping(agent, f"agents[{i}]", needs_bid=finalizer is None)
                for i, agent in enumerate(agents)
            ),
            finalizer=finalizer,
            reference_weight_micros=reference_weight,
            banned_words=tuple(banned),
            query=text_of(values, "query", "spec"),
            **{name: value for name, value in values.items() if name != "query"},
        )

    def to_mapping(self) -> dict[str, Any]:
        """The mapping that `from_mapping` reads back to an equal spec; it is what a receipt holds and commits to."""
        apart = ("reference_weight_micros", "finalizer")
        mapping = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in apart}
        mapping["agents"] = [agent.to_mapping() for agent in self.agents]
        mapping["banned_words"] = list(self.banned_words)
        mapping["reference_weight"] = from_micros(self.reference_weight_micros)
        return mapping if self.finalizer is None else {"mechanism": "softmax", **mapping, **self.finalizer.to_mapping()}

    @property
    def guarantee(self) -> Guarantee | FinalizerGuarantee:
        """What this combination of rule, sampler and pricing, or this proposal, promises."""
        if self.finalizer is not None:
            return self.finalizer.guarantee(allow_unsafe=self.allow_unsafe)
        return guarantee(self.rule, self.sampler, self.pricing, allow_unsafe=self.allow_unsafe)

    @property
    def limits(self) -> tuple[str, ...]:
        """What the guarantee leaves open, in sentences."""
        return LIMITS if self.finalizer is None else FINALIZER_LIMITS

    @property
    def has_reference(self) -> bool:
        """Whether the house model weighs in at every token of the token auction."""
        return self.reference_weight_micros > 0 and self.finalizer is None

    @cached_property
    def row_ids(self) -> tuple[str, ...]:
        """Ids of the rows of this auction's gang: every agent in order, then the reference if there is one."""
        ids = tuple(agent.id for agent in self.agents)
        return (*ids, REFERENCE_ID) if self.has_reference else ids

    @cached_property
    def own_model_ids(self) -> frozenset[str]:
        """Ids of the agents that send their distributions."""
        return frozenset(agent.id for agent in self.agents if agent.own_model)

    @cached_property
    def hosted_ids(self) -> tuple[str, ...]:
        """Ids of the rows that the platform's model computes, each with a prompt: those of `row_ids`, in that order.

        In a softmax auction every agent's, the reference's, and that of a context-aware proposal.
        """
        if self.finalizer is not None:
            writes = (PROPOSAL_ID,) if self.finalizer.proposal == "context_aware" else ()
            return (*self.row_ids, REFERENCE_ID, *writes)
        return tuple(row_id for row_id in self.row_ids if row_id not in self.own_model_ids)

    @property
    def listed_ids(self) -> tuple[str, ...]:
        """Ids of the rows as a receipt's first line lists them."""
        return self.row_ids if self.finalizer is None else self.hosted_ids

    def __post_init__(self) -> None:
        _check_agents(self.agents)
        _check_options(self)
        if self.finalizer is not None:
            _check_softmax(self)
        elif not self.has_reference and not any(agent.bid_micros for agent in self.agents):
            raise InvalidSpec("every bid is 0 and reference_weight is 0: nothing has weight; raise one of them")
        if not self.hosted_ids:
            raise InvalidSpec("every agent runs its own model: when all are silent nobody writes; set reference_weight")
        _ = self.guarantee
        check_truncation(self.rule, self.top_k, self.top_p, self.floor)


def _check_agents(agents: tuple[AgentSpec, ...]) -> None:
    if not 1 <= len(agents) <= MAX_AGENTS:
        raise InvalidSpec(f"an auction has 1 to {MAX_AGENTS} agents, not {len(agents)}")
    ids = [agent.id for agent in agents]
    for agent in agents:
        if agent.own_model and (agent.prompt is not None or agent.system_prompt is not None):
            raise InvalidSpec(f"agent {agent.id!r} runs its own model: a prompt for it would be read by nobody")
    for agent_id in ids:
        if ids.count(agent_id) > 1:
            raise InvalidSpec(f"two agents have the id {agent_id!r}; one account per advertiser")
    if REFERENCE_ID in ids:
        raise InvalidSpec(f"the id {REFERENCE_ID!r} belongs to the house model; choose another")


def _finalizer(values: dict[str, Any]) -> FinalizerSpec | None:
    """Take what belongs to a softmax auction out of the fields; None for a token auction."""
    mechanism = values.pop("mechanism", "token")
    choice(mechanism, "spec.mechanism", ("token", "softmax"))
    given = {name: values.pop(name) for name in FINALIZER_FIELDS if name in values}
    if mechanism == "softmax":
        values.setdefault("temperature", FINALIZER_TEMPERATURE)
        return FinalizerSpec.from_fields(given)
    if given:
        raise InvalidSpec(f"spec.{next(iter(given))} belongs to a softmax auction: set mechanism to softmax")
    return None


def _check_softmax(spec: AuctionSpec) -> None:
    for agent in spec.agents:
        if agent.own_model:
            raise InvalidSpec(f"agent {agent.id!r} runs its own model, which a softmax auction does not ask")
        if agent.id == PROPOSAL_ID:
            raise InvalidSpec(f"the id {PROPOSAL_ID!r} belongs to the proposal; choose another")


def _check_options(spec: AuctionSpec) -> None:
    choices = {
        "rule": ("linear", "log_linear"),
        "sampler": ("coupled", "race"),
        "pricing": ("critical_bid", "expected", "kl_clarke", "first_price", "free"),
    }
    for name, allowed in choices.items():
        choice(getattr(spec, name), f"spec.{name}", allowed)
    number(spec.temperature, "spec.temperature", 1e-3, 100.0)
    number(spec.top_p, "spec.top_p", 0.0, 1.0, optional=True, above_low=True)
    number(spec.floor, "spec.floor", 0.0, 1.0, optional=True, above_low=True)
    integer(spec.top_k, "spec.top_k", 1, 10**9, optional=True)
    integer(spec.max_tokens, "spec.max_tokens", 1, MAX_TOKENS)
    integer(spec.max_sentences, "spec.max_sentences", 1, MAX_TOKENS, optional=True)
    integer(spec.top_tokens, "spec.top_tokens", 0, 100)
    integer(spec.seed, "spec.seed", 0, MAX_SEED, optional=True)
    flag(spec.allow_unsafe, "spec.allow_unsafe")
    if not isinstance(spec.currency, str) or not (
        spec.currency.isascii() and spec.currency.isalpha() and len(spec.currency) == 3
    ):
        raise InvalidSpec(f"spec.currency is {spec.currency!r}; give an ISO 4217 code such as USD")
    for word in spec.banned_words:
        if not isinstance(word, str) or not word.strip() or len(word) > MAX_TEXT or has_surrogate(word):
            raise InvalidSpec(f"spec.banned_words holds {word!r}; each must be a word or phrase")
