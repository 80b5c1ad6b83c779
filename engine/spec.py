"""What an auction is: a frozen description, checked once when it is made; knows no file, no model and no state.

A spec comes from a mapping (a YAML file, a JSON message) whose amounts are decimal currency per token; inside they are
integer micros. Whatever is wrong raises InvalidSpec, InvalidBid or UnsafeCombination, naming the field and the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal

from tokenauction.engine.errors import InvalidSpec
from tokenauction.engine.guarantees import Guarantee, guarantee
from tokenauction.engine.money import from_micros, to_micros
from tokenauction.engine.shaping import check_truncation

MAX_AGENTS = 64
MAX_TEXT = 4_000  # characters of one field
MAX_TOKENS = 100_000
MAX_SEED = 2**256 - 1
REFERENCE_ID = "reference"  # reserved: the house model's row


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

    @classmethod
    def from_mapping(cls, source: Any, where: str) -> AgentSpec:
        """Read one agent; InvalidSpec or InvalidBid name the field as `where`.field."""
        names = {f.name for f in fields(cls)} - {"bid_micros", "budget_micros"} | {"bid", "budget"}
        values = _mapping(source, where, names)
        name = _text(values, "name", where)
        budget = values.get("budget")
        return cls(
            id=_text(values, "id", where) if "id" in values else name,
            name=name,
            offer=_text(values, "offer", where) if "prompt" not in values or "offer" in values else "",
            bid_micros=to_micros(_required(values, "bid", where), f"{where}.bid"),
            budget_micros=None if budget is None else to_micros(budget, f"{where}.budget"),
            system_prompt=_text(values, "system_prompt", where) if values.get("system_prompt") is not None else None,
            prompt=_text(values, "prompt", where, line=False) if values.get("prompt") is not None else None,
            own_model=_flag(values.get("own_model", False), f"{where}.own_model"),
        )

    def to_mapping(self) -> dict[str, Any]:
        """The mapping that `from_mapping` reads back to an equal spec; amounts as decimal strings."""
        mapping: dict[str, Any] = {"id": self.id, "name": self.name, "offer": self.offer}
        mapping["bid"] = from_micros(self.bid_micros)
        mapping["budget"] = None if self.budget_micros is None else from_micros(self.budget_micros)
        mapping |= {k: getattr(self, k) for k in ("system_prompt", "prompt") if getattr(self, k) is not None}
        if self.own_model:
            mapping["own_model"] = True
        return {k: v for k, v in mapping.items() if not (k == "offer" and v == "")}


@dataclass(frozen=True)
class AuctionSpec:
    """One token auction, whole: the query, who takes part, the mechanism, the shaping, and when it ends."""

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

    @classmethod
    def from_mapping(cls, source: Any) -> AuctionSpec:
        """Read a spec; unknown fields are refused."""
        if isinstance(source, Mapping) and "reference_weight_micros" in source:
            raise InvalidSpec(
                "spec.reference_weight_micros is not a field; give reference_weight in currency per token"
            )
        names = {f.name for f in fields(cls)} - {"reference_weight_micros"} | {"reference_weight"}
        values = dict(_mapping(source, "spec", names))
        agents = values.pop("agents", None)
        if not isinstance(agents, Sequence) or isinstance(agents, str):
            raise InvalidSpec("spec.agents must be a list of agents")
        reference_weight = to_micros(values.pop("reference_weight", 0), "spec.reference_weight")
        banned = values.pop("banned_words", ())
        if isinstance(banned, str) or not isinstance(banned, Sequence):
            raise InvalidSpec("spec.banned_words must be a list of words")
        return cls(
            agents=tuple(AgentSpec.from_mapping(agent, f"agents[{i}]") for i, agent in enumerate(agents)),
            reference_weight_micros=reference_weight,
            banned_words=tuple(banned),
            query=_text(values, "query", "spec"),
            **{name: value for name, value in values.items() if name != "query"},
        )

    def to_mapping(self) -> dict[str, Any]:
        """The mapping that `from_mapping` reads back to an equal spec; it is what a receipt holds and commits to."""
        mapping = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "reference_weight_micros"}
        mapping["agents"] = [agent.to_mapping() for agent in self.agents]
        mapping["banned_words"] = list(self.banned_words)
        mapping["reference_weight"] = from_micros(self.reference_weight_micros)
        return mapping

    @property
    def guarantee(self) -> Guarantee:
        """What this combination of rule, sampler and pricing promises."""
        return guarantee(self.rule, self.sampler, self.pricing, allow_unsafe=self.allow_unsafe)

    @property
    def has_reference(self) -> bool:
        return self.reference_weight_micros > 0

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
        """Ids of the rows that the platform's model computes, in the order of `row_ids`."""
        return tuple(row_id for row_id in self.row_ids if row_id not in self.own_model_ids)

    def __post_init__(self) -> None:
        _check_agents(self.agents)
        _check_options(self)
        if not self.has_reference and not any(agent.bid_micros for agent in self.agents):
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


def _check_options(spec: AuctionSpec) -> None:
    choices = {
        "rule": ("linear", "log_linear"),
        "sampler": ("coupled", "race"),
        "pricing": ("critical_bid", "expected", "kl_clarke", "first_price", "free"),
    }
    for name, allowed in choices.items():
        if getattr(spec, name) not in allowed:
            raise InvalidSpec(f"spec.{name} is {getattr(spec, name)!r}; choose one of {', '.join(allowed)}")
    _number(spec, "temperature", 1e-3, 100.0)
    _number(spec, "top_p", 0.0, 1.0, optional=True, above_low=True)
    _number(spec, "floor", 0.0, 1.0, optional=True, above_low=True)
    _integer(spec, "top_k", 1, 10**9, optional=True)
    _integer(spec, "max_tokens", 1, MAX_TOKENS)
    _integer(spec, "max_sentences", 1, MAX_TOKENS, optional=True)
    _integer(spec, "top_tokens", 0, 100)
    _integer(spec, "seed", 0, MAX_SEED, optional=True)
    _flag(spec.allow_unsafe, "spec.allow_unsafe")
    if not isinstance(spec.currency, str) or not (
        spec.currency.isascii() and spec.currency.isalpha() and len(spec.currency) == 3
    ):
        raise InvalidSpec(f"spec.currency is {spec.currency!r}; give an ISO 4217 code such as USD")
    for word in spec.banned_words:
        if not isinstance(word, str) or not word.strip() or len(word) > MAX_TEXT or _has_surrogate(word):
            raise InvalidSpec(f"spec.banned_words holds {word!r}; each must be a word or phrase")


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidSpec(f"{where} is {value!r}; it must be true or false")
    return value


def _number(
    spec: AuctionSpec, name: str, low: float, high: float, *, optional: bool = False, above_low: bool = False
) -> None:
    value = getattr(spec, name)
    if value is None and optional:
        return
    good = isinstance(value, int | float) and not isinstance(value, bool)  # NaN is in no range
    if not good or not low <= value <= high or (above_low and value <= low):
        raise InvalidSpec(
            f"spec.{name} is {value!r}; it must be a number {'above' if above_low else 'from'} {low} to {high}"
        )


def _integer(spec: AuctionSpec, name: str, low: int, high: int, *, optional: bool = False) -> None:
    value = getattr(spec, name)
    if value is None and optional:
        return
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        limit = "2^256 - 1" if high == MAX_SEED else str(high)
        raise InvalidSpec(f"spec.{name} is {value!r}; it must be a whole number from {low} to {limit}")


def _mapping(source: Any, where: str, allowed: set[str]) -> Mapping[str, Any]:
    if not isinstance(source, Mapping):
        raise InvalidSpec(f"{where} must be a mapping of fields, not {type(source).__name__}")
    for name in source:
        if name not in allowed:
            raise InvalidSpec(f"{where}.{name} is not a field; the fields are {', '.join(sorted(allowed))}")
    return source


def _required(values: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in values:
        raise InvalidSpec(f"{where}.{name} is missing")
    return values[name]


def _text(values: Mapping[str, Any], name: str, where: str, *, line: bool = True) -> str:
    """A text field: not empty, not endless; one line (no control characters) unless `line` is False."""
    value = _required(values, name, where)
    if not isinstance(value, str) or not value.strip():
        raise InvalidSpec(f"{where}.{name} is {value!r}; it must be text")
    if len(value) > MAX_TEXT:
        raise InvalidSpec(f"{where}.{name} has {len(value)} characters; the limit is {MAX_TEXT}")
    if line and any(ord(c) < 32 or c in "\x7f\u2028\u2029" for c in value):
        raise InvalidSpec(f"{where}.{name} holds a line break or control character; give one line")
    if _has_surrogate(value):
        raise InvalidSpec(f"{where}.{name} holds a lone surrogate, which is not text")
    return value.strip() if line else value


def _has_surrogate(text: str) -> bool:
    """Whether it holds half of a UTF-16 pair, which no encoding can write."""
    return any(0xD800 <= ord(c) < 0xE000 for c in text)
