"""What is promised for each (rule, sampler, pricing): a table as data, and the refusal of what is not in it.

It knows no tensor and no formula: why each row holds is in docs/mechanism.md, and the property tests run over this very
table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from tokenauction.engine.errors import InvalidSpec, UnsafeCombination

Rule = Literal["linear", "log_linear"]
Sampler = Literal["coupled", "race"]
Pricing = Literal["critical_bid", "expected", "kl_clarke", "first_price", "free"]

LIMITS = (
    "Truthfulness is per token: it does not lift to one fixed bid for a whole text.",
    "Not false-name-proof: splitting a bid between two identities leaves the text as it was but lowers what is paid; "
    "allow one account per advertiser.",
    "'Without agent i' means had i bid 0: i's name stays in the others' prompts.",
    "Misreporting the distribution can pay, so the platform hosts the agents' models by default.",
    "A bid changed in mid-text, a budget that runs out and a refund each void the clean theorem.",
)


FINALIZER_LIMITS = (
    "Truthful for the candidates that were drawn, in expectation over which of them wins.",
    "Not false-name-proof: splitting a reward between two identities leaves the choice as it was but lowers what is "
    "paid; allow one account per advertiser.",
    "'Without agent i' means had i wanted nothing: candidates were drawn with i's name in their prompts.",
    "Where rewards are negative a utility can be: whoever wants nothing pays exactly nothing.",
    "A budget that cuts a payment voids the theorem, and so do rewards that an agent can bend.",
)


@dataclass(frozen=True)
class FinalizerGuarantee:
    """What holds for the softmax auction over candidates of one proposal."""

    proposal: str
    safe: bool = True  # False: the candidates depend on bids or values, because the caller insisted
    monotone_robust: bool = False  # robust preferences are over tokens
    payment_at_most_bid: bool = False  # there is no bid

    @property
    def truthful(self) -> str:
        """The value for which the true report is optimal; "" when nothing is promised."""
        return "the value E[reward] - payment, candidates fixed" if self.safe else ""

    @property
    def summary(self) -> str:
        """One line for receipts."""
        if not self.safe:
            return f"softmax/{self.proposal}: UNSAFE, no guarantee: the candidates depend on what agents say"
        truth = f"truthful for {self.truthful}"
        return f"softmax/{self.proposal}: {truth}; payment τ·KL(π ‖ π_-i), exactly 0 for who moves nothing"


@dataclass(frozen=True)
class Guarantee:
    """One row of the table: what holds for one token, with the reported distributions taken as given."""

    rule: Rule
    sampler: Sampler
    pricing: Pricing
    monotone_robust: bool  # q never gets worse under robust preferences as an agent's own bid rises
    truthful: str  # the value for which bidding it is optimal, and in which sense; "" when nothing is promised
    payment_at_most_bid: bool
    safe: bool = True  # False: not in the table, and run only because the caller insisted

    @property
    def summary(self) -> str:
        """One line for receipts."""
        if not self.safe:
            return f"{self.rule}/{self.sampler}/{self.pricing}: UNSAFE, no guarantee"
        monotone = "monotone" if self.monotone_robust else "not monotone"
        truthful = f"truthful for {self.truthful}" if self.truthful else "no incentive guarantee"
        payment = "payment never above the bid" if self.payment_at_most_bid else "payment can exceed the bid"
        name = f"{self.rule}/{self.sampler}/{self.pricing}"
        return f"{name}: {monotone} under robust preferences; {truthful}; {payment}"


def _row(rule: Rule, sampler: Sampler, pricing: Pricing, truthful: str, payment_at_most_bid: bool = True) -> Guarantee:
    return Guarantee(rule, sampler, pricing, rule == "linear", truthful, payment_at_most_bid)


_TV_DRAW = "value -v·TV, in expectation over the draw"
_TV = "value -v·TV"
_SWITCH = "the value of the switch Y_-i -> Y_i, for every seed"

TABLE: tuple[Guarantee, ...] = (
    _row("linear", "coupled", "critical_bid", _TV_DRAW),
    _row("linear", "coupled", "expected", _TV),
    _row("linear", "coupled", "kl_clarke", "value -v·KL(p_i ‖ q)"),
    _row("linear", "coupled", "first_price", ""),
    _row("linear", "coupled", "free", ""),
    _row("linear", "race", "critical_bid", _SWITCH),
    _row("linear", "race", "expected", _TV),
    _row("linear", "race", "kl_clarke", "value -v·KL(p_i ‖ q)"),
    _row("linear", "race", "first_price", ""),
    _row("linear", "race", "free", ""),
    _row("log_linear", "coupled", "critical_bid", _TV_DRAW),
    _row("log_linear", "coupled", "expected", _TV_DRAW),
    _row("log_linear", "coupled", "kl_clarke", "value -v·KL(q ‖ p_i)", payment_at_most_bid=False),
    _row("log_linear", "coupled", "first_price", ""),
    _row("log_linear", "coupled", "free", ""),
)
_BY_NAME = {(row.rule, row.sampler, row.pricing): row for row in TABLE}


def guarantee(rule: Rule, sampler: Sampler, pricing: Pricing, *, allow_unsafe: bool = False) -> Guarantee:
    """Return what is promised for a combination.

    The only ones outside the table are log_linear with the race sampler: with `allow_unsafe` the token clocks race over
    the aggregate itself (the law is right, the token switches more than once as a bid rises); its critical bid does not
    exist and is refused in any case. Raises InvalidSpec for an unknown name, UnsafeCombination for the rest.
    """
    for name, kind, known in ((rule, "rule", Rule), (sampler, "sampler", Sampler), (pricing, "pricing", Pricing)):
        if name not in get_args(known):
            raise InvalidSpec(f"{kind} {name!r} is unknown: use one of {', '.join(get_args(known))}")
    row = _BY_NAME.get((rule, sampler, pricing))
    if row is not None:
        return row
    legal = ", ".join(f"{row.rule}/{row.sampler}/{row.pricing}" for row in TABLE if row.pricing == pricing)
    if pricing == "critical_bid":
        raise UnsafeCombination(
            f"{rule}/{sampler}/{pricing} has no single critical bid: as a bid rises, the race over a log-linear "
            f"aggregate changes its token more than once. Use one of {legal}"
        )
    if not allow_unsafe:
        raise UnsafeCombination(
            f"{rule}/{sampler}/{pricing} carries no guarantee: the race sampler's thresholds are those of the linear "
            f"rule. Use one of {legal}, or set allow_unsafe"
        )
    return Guarantee(rule, sampler, pricing, False, "", pricing != "kl_clarke", safe=False)
