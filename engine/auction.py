"""Where one auction stands: its state, its bids, what every agent has been charged; no model, no clock, no randomness.

    action \\ state   created    running    settled, cancelled, failed
    start            running
    set_bid          created    running
    set_absent       created    running
    record, choose              running
    settle                      settled
    cancel           cancelled  cancelled
    fail             failed     failed

An action that its state does not allow raises IllegalTransition and changes nothing. Bids are read once per step, by
`read_bids`; a bid set while a step is computed counts from the next token.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from tokenauction.engine.errors import IllegalTransition, InvalidBid
from tokenauction.engine.money import MAX_MICROS
from tokenauction.engine.sentences import count_sentences
from tokenauction.engine.spec import AuctionSpec


class State(StrEnum):
    """Where an auction stands."""

    CREATED = "created"
    RUNNING = "running"
    SETTLED = "settled"
    CANCELLED = "cancelled"
    FAILED = "failed"


LIVE = frozenset({State.CREATED, State.RUNNING})
LEGAL = MappingProxyType(
    {
        "start": frozenset({State.CREATED}),
        "set_bid": LIVE,
        "set_absent": LIVE,
        "record": frozenset({State.RUNNING}),
        "choose": frozenset({State.RUNNING}),
        "settle": frozenset({State.RUNNING}),
        "cancel": LIVE,
        "fail": LIVE,
    }
)


@dataclass(frozen=True)
class Bids:
    """Every row's bid as one step sees it, in micros per token; the reference, if any, is the last row."""

    submitted: tuple[int, ...]
    effective: tuple[int, ...]  # what counts: min(submitted, what is left of the budget), 0 if absent
    status: tuple[str, ...]  # "bid", "no_bid", "budget_spent", "absent", or "reference"

    @property
    def is_spent(self) -> bool:
        """Whether nothing has weight any more."""
        return not any(self.effective)


@dataclass(frozen=True)
class Charges:
    """What one step costs every row, in micros."""

    payments: tuple[float, ...]  # exact, after clipping to what is left of the budget
    charges: tuple[int, ...]  # the whole micros that became due in this step
    totals: tuple[int, ...]  # the whole micros due so far
    clipped: tuple[bool, ...]  # the payment exceeded what was left: the guarantee is gone


@dataclass
class Auction:
    """One auction in progress."""

    spec: AuctionSpec
    auction_id: str
    state: State = State.CREATED
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: str | None = None
    exact_micros: list[float] = field(init=False)  # per row, the running float64 sum of payments
    _bids: list[int] = field(init=False)
    _absent: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.exact_micros = [0.0] * len(self.spec.row_ids)
        self._bids = [agent.bid_micros for agent in self.spec.agents]

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def limit_reached(self) -> str:
        """The finish reason ("sentences" or "max_tokens") for which no token may follow; empty where one may."""
        spec = self.spec
        if spec.max_sentences is not None and count_sentences(self.text) >= spec.max_sentences:
            return "sentences"
        return "max_tokens" if self.num_tokens >= spec.max_tokens else ""

    @property
    def totals_micros(self) -> tuple[int, ...]:
        """Whole micros due per row: the exact sum rounded down, so never above it and less than one micro below."""
        return tuple(math.floor(exact) for exact in self.exact_micros)

    def start(self) -> None:
        """The prompts are read; tokens may follow."""
        self._move("start", State.RUNNING)

    def set_bid(self, agent_id: str, bid_micros: int) -> None:
        """Replace an agent's bid, in micros per token; it counts from the next token that is drawn."""
        self._check("set_bid")
        if not isinstance(bid_micros, int) or isinstance(bid_micros, bool) or not 0 <= bid_micros <= MAX_MICROS:
            raise InvalidBid(f"a bid is a whole number of micros from 0 to {MAX_MICROS}, not {bid_micros!r}")
        self._bids[self._row(agent_id)] = bid_micros

    def set_absent(self, agent_id: str, *, is_absent: bool) -> None:
        """Leave an agent out (weight 0, no payment, said so on the receipt) until it is back."""
        self._check("set_absent")
        self._row(agent_id)
        (self._absent.add if is_absent else self._absent.discard)(agent_id)

    def read_bids(self, told: Collection[str] = ()) -> Bids:
        """The bids that the next step uses: the one place where a step reads them.

        Agents with models of their own that have not `told` what they want are absent for this step.
        """
        return self._weigh(self._bids, self._absent | (self.spec.own_model_ids - set(told)))

    def reweigh(self, bids: Bids) -> Bids:
        """The same bids against what budgets hold now: of a step that began before the one in front was recorded."""
        names = zip(self.spec.agents, bids.status, strict=False)
        return self._weigh(
            bids.submitted[: len(self.spec.agents)], {agent.id for agent, status in names if status == "absent"}
        )

    def _weigh(self, bids: Sequence[int], absent: Collection[str]) -> Bids:
        submitted = list(bids)
        effective, status = [], []
        for agent, bid, total in zip(self.spec.agents, submitted, self.totals_micros, strict=False):
            left = bid if agent.budget_micros is None else min(bid, agent.budget_micros - total)
            is_absent = agent.id in absent
            effective.append(0 if is_absent else left)
            status.append("absent" if is_absent else "no_bid" if bid == 0 else "budget_spent" if left == 0 else "bid")
        if self.spec.has_reference:
            for column in (submitted, effective):
                column.append(self.spec.reference_weight_micros)
            status.append("reference")
        return Bids(tuple(submitted), tuple(effective), tuple(status))

    def record(self, token_id: int, text: str, payments: tuple[float, ...]) -> Charges:
        """Take in one step: its token, the text that became readable with it, every row's payment in micros."""
        self._check("record")
        self.token_ids.append(token_id)
        self.text += text
        return self._charge(payments)

    def choose(self, token_ids: Sequence[int], text: str, payments: tuple[float, ...]) -> Charges:
        """Take in a whole text that was chosen among candidates, and every row's payment for that, in micros."""
        self._check("choose")
        self.token_ids, self.text = list(token_ids), text
        return self._charge(payments)

    def _charge(self, payments: tuple[float, ...]) -> Charges:
        """Add payments to what is owed, none beyond its budget."""
        before = self.totals_micros
        left = [
            math.inf if budget is None else budget - total
            for budget, total in zip(self._budgets(), before, strict=True)
        ]
        paid = tuple(float(min(payment, rest)) for payment, rest in zip(payments, left, strict=True))
        self.exact_micros = [exact + payment for exact, payment in zip(self.exact_micros, paid, strict=True)]
        totals = self.totals_micros
        charges = tuple(after - earlier for after, earlier in zip(totals, before, strict=True))
        return Charges(paid, charges, totals, tuple(a != b for a, b in zip(paid, payments, strict=True)))

    def settle(self, finish_reason: str, text: str = "") -> None:
        """The text is complete; `text` is what the last tokens still owed."""
        self._move("settle", State.SETTLED)
        self.text += text
        self.finish_reason = finish_reason

    def cancel(self) -> None:
        """Stop here: what was written is charged, nothing more is written."""
        self._move("cancel", State.CANCELLED)
        self.finish_reason = "cancelled"

    def fail(self) -> None:
        """The text cannot go on: nothing is charged."""
        self._move("fail", State.FAILED)
        self.finish_reason = "error"

    def _budgets(self) -> tuple[int | None, ...]:
        budgets = tuple(agent.budget_micros for agent in self.spec.agents)
        return (*budgets, None) if self.spec.has_reference else budgets

    def _row(self, agent_id: str) -> int:
        for row, agent in enumerate(self.spec.agents):
            if agent.id == agent_id:
                return row
        raise InvalidBid(
            f"no agent has the id {agent_id!r}; the agents are {', '.join(a.id for a in self.spec.agents)}"
        )

    def _check(self, action: str) -> None:
        if self.state not in LEGAL[action]:
            legal = ", ".join(sorted(name for name, states in LEGAL.items() if self.state in states)) or "nothing"
            raise IllegalTransition(f"{action} is not legal in an auction that is {self.state}; legal is {legal}")

    def _move(self, action: str, state: State) -> None:
        self._check(action)
        self.state = state
