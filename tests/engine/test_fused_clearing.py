"""The compiled clearing against torch's: the same numbers, tokens and errors, the same bits in every batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tokenauction.engine import fused_clearing, stepping
from tokenauction.engine.auction import Bids
from tokenauction.engine.errors import InvalidBid, InvalidDistribution, InvalidInput, NoWeight
from tokenauction.engine.fused_clearing import clear_fused, cleared_by
from tokenauction.engine.outcome import StepOutcome
from tokenauction.engine.policy import Policy
from tokenauction.engine.randomness import step_key
from tokenauction.engine.spec import AgentSpec, AuctionSpec
from tokenauction.engine.stepping import Standing, clear_step
from tokenauction.engine.verification import Verdict, verify
from tokenauction.models.compiler import NotCompiled, find_compiler, load_library

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler is installed")

CPU = torch.device("cpu")
PRICINGS = ("critical_bid", "expected", "first_price", "free")
EPS = 2.0**-52
TINY = 1e-300  # what is below is 0 in one and a number of few digits in the other


def spec_of(num_agents: int, **changes: Any) -> AuctionSpec:
    agents = tuple(AgentSpec(f"agent{i}", f"Name{i}", "offer", 1000) for i in range(num_agents))
    return AuctionSpec("query", agents, **changes)


@dataclass
class Case:
    """One auction's step: what `clear_step` takes of it."""

    spec: AuctionSpec
    weights: tuple[float, ...]
    key: bytes
    logits: Tensor
    banned: tuple[int, ...] = ()

    @property
    def standing(self) -> Standing:
        return Standing(self.spec, (), Policy(sequences=tuple((token,) for token in self.banned)))

    @property
    def bids(self) -> Bids:
        return Bids(self.weights, self.weights, ("bid",) * len(self.weights))  # type: ignore[arg-type]


def clear(cases: list[Case], clearing: Any) -> list[Any]:
    standings, bids, keys = ([getattr(case, name) for case in cases] for name in ("standing", "bids", "key"))
    return clear_step(standings, bids, keys, torch.cat([case.logits for case in cases]), clearing)


@st.composite
def cases(draw: Any, vocab_size: int | None = None) -> Case:
    """Auctions of every kind that is covered: agents alike and unlike, dropped and leading, flat and near certain."""
    num_agents = draw(st.integers(1, 6))
    has_reference = draw(st.booleans())
    num_rows = num_agents + has_reference
    weight = st.one_of(st.just(0), st.integers(1, 5_000), st.sampled_from([1, 10**6, 10**12]))
    weights = draw(st.lists(weight, min_size=num_rows, max_size=num_rows).filter(any))
    vocab_size = vocab_size or draw(st.one_of(st.integers(2, 40), st.integers(41, 5_000)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = rng.normal(size=(num_rows, vocab_size)) * draw(st.sampled_from([0.0, 1e-3, 1.0, 4.0, 15.0]))
    if draw(st.booleans()):  # near certain, of one token or of unlike ones
        rows = np.where(rng.random(rows.shape) < 2 / vocab_size, 40.0, -40.0) + rows
    if draw(st.booleans()):  # agents that are one another's copy
        rows[:] = rows[:1]
    if draw(st.booleans()):  # tokens without mass, never all
        rows = np.where(rng.random(rows.shape) < 0.3, -np.inf, rows)
        rows[:, rng.integers(vocab_size)] = 0.0
    banned = draw(st.one_of(st.just(()), st.just(tuple(rng.permutation(vocab_size)[: vocab_size // 3].tolist()))))
    if np.isneginf(np.delete(rows, banned, axis=1)).all(axis=1).any():
        banned = ()
    spec = spec_of(
        num_agents,
        reference_weight_micros=700 if has_reference else 0,
        pricing=draw(st.sampled_from(PRICINGS)),
        temperature=draw(st.sampled_from([0.05, 0.7, 1.0, 3.0])),
        floor=draw(st.sampled_from([None, None, 0.01, 1.0])),
        top_p=draw(st.sampled_from([None, 1.0])),
    )
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    key = step_key(draw(st.integers(0, 10**6)), draw(st.integers(0, 100)))
    return Case(spec, tuple(weights), key, torch.tensor(rows, dtype=dtype), banned)


def close(mine: float, theirs: float, slack: float) -> None:
    assert abs(mine - theirs) <= slack, (mine, theirs, slack)


def assert_agree(case: Case, mine: StepOutcome, theirs: StepOutcome) -> None:
    """Equal tokens; equal numbers but for rounding: of a logit over its temperature, and what that moves."""
    finite = case.logits[case.logits.isfinite()].abs().double()
    rel = 1e-12 + 4 * EPS * float(finite.max()) / case.spec.temperature
    assert rel < 1e-11
    torch.testing.assert_close(mine.distributions, theirs.distributions, rtol=rel, atol=TINY)
    torch.testing.assert_close(mine.aggregate, theirs.aggregate, rtol=rel, atol=TINY)
    assert (mine.token, mine.counterfactual_tokens) == (theirs.token, theirs.counterfactual_tokens)
    close(mine.q, theirs.q, rel * theirs.q)
    assert mine.cdf_below is not None and theirs.cdf_below is not None
    close(mine.cdf_below, theirs.cdf_below, rel)
    v_most = theirs.q  # of the price threshold
    for row, weight in enumerate(case.weights):
        p, r, tv = theirs.p[row], theirs.r[row], theirs.tv[row]
        others = sum(case.weights) - weight
        close(mine.p[row], p, rel * p + TINY)
        close(mine.r[row], r, rel * r + 4 * EPS * p + TINY)  # r is what is left of a sum without p's share
        close(mine.tv[row], tv, rel * tv + 8 * EPS)
        close(mine.influence[row], theirs.influence[row], rel)
        z, at_least = theirs.critical_bids[row], mine.critical_bids[row]
        assert z is not None and at_least is not None
        gap = max(p - v_most, rel * p) + TINY
        steepness = rel * (others * (r + v_most) + weight * (p + v_most)) / gap
        close(at_least, z, min(steepness + rel * z, weight))
        slack = {"critical_bid": min(steepness + rel * z, weight), "expected": (rel * tv + 8 * EPS) * weight}
        close(mine.owed[row], theirs.owed[row], slack.get(case.spec.pricing, 0.0))
    for name in ("log_partitions", "own_tokens"):
        assert getattr(mine, name) == getattr(theirs, name)
    assert mine.divergences == (mine.tv if case.spec.pricing == "expected" else theirs.divergences)


def same_bits(a: StepOutcome, b: StepOutcome) -> None:
    for field in fields(StepOutcome):
        mine, theirs = getattr(a, field.name), getattr(b, field.name)
        assert torch.equal(mine, theirs) if isinstance(mine, Tensor) else mine == theirs, field.name


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(case=cases())
def test_fused_agrees_with_torch(case: Case) -> None:
    [mine], [theirs] = clear([case], "fused"), clear([case], "torch")
    assert_agree(case, mine, theirs)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(many=st.lists(cases(vocab_size=333), min_size=2, max_size=8))
def test_fused_gives_an_auction_the_same_bits_in_every_batch(many: list[Case]) -> None:
    many = [replace(case, logits=case.logits.double()) for case in many]
    for case, outcome in zip(many, clear(many, "fused"), strict=True):
        same_bits(outcome, clear([case], "fused")[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("place", [0, 13, 31])
def test_fused_gives_an_auction_alone_the_bits_it_gets_among_31_others(place: int, dtype: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(place)

    def case(number: int, num_agents: int) -> Case:
        spec = spec_of(num_agents, pricing=PRICINGS[number % 4], reference_weight_micros=number % 3)
        logits = torch.randn(len(spec.row_ids), 1_237, generator=rng, dtype=dtype) * 5
        return Case(spec, tuple(range(1, 1 + len(spec.row_ids))), step_key(number, 1), logits)

    mine = case(40, 3)
    crowd = [case(number, 1 + number % 7) for number in range(31)]
    among = clear([*crowd[:place], mine, *crowd[place:]], "fused")[place]
    same_bits(among, clear([mine], "fused")[0])


def test_covered_and_uncovered_auctions_of_one_step_get_what_they_get_alone() -> None:
    rng = torch.Generator().manual_seed(3)
    specs = [
        spec_of(2),
        spec_of(2, sampler="race"),
        spec_of(2, pricing="free"),
        spec_of(2, top_k=5),
        spec_of(2, rule="log_linear"),
    ]
    many = [Case(spec, (1, 2), step_key(n, 0), torch.randn(2, 50, generator=rng)) for n, spec in enumerate(specs)]
    for case, outcome in zip(many, clear(many, "auto"), strict=True):
        same_bits(outcome, clear([case], "auto")[0])


# --- Tables -------------------------------------------------------------------------------------------------------

A = [[0.8, 0.2], [1.0, 0.0], [0.0, 1.0]], (1.0, 2.0, 2.0)  # docs/mechanism.md, section 7
B = [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5]], (1.0, 2.0, 0.5)
D = [[1.0, 0.0], [0.0, 1.0]], (1.0, 1.0)
Table = tuple[list[list[float]], tuple[float, ...]]


def settle(table: Table, pricing: Any, token: float = 0.5, price: float = 0.5, other: float = 0.5) -> StepOutcome:
    """The table's auction cleared by compiled code with these uniforms."""
    p, weights = table
    spec = spec_of(len(p), pricing=pricing, temperature=1.0)
    logits = torch.tensor(p, dtype=torch.float64).log()
    [outcome] = clear_fused([spec], [weights], [[token, price, *[other] * len(p)]], [None], logits)
    assert isinstance(outcome, StepOutcome)
    return outcome


@pytest.mark.parametrize(
    ("table", "pricing", "payments"),
    [
        (A, "expected", (0.0277722616, 0.2438163723, 0.3103117465)),
        (A, "first_price", (1, 2, 2)),
        (A, "free", (0, 0, 0)),
        (B, "expected", (0.0723300800, 0.1862117700, 0.0090348296)),
        (D, "expected", (math.log(2) - 0.5,) * 2),
    ],
)
def test_fused_charges_the_worked_vectors(table: Table, pricing: str, payments: tuple[float, ...]) -> None:
    assert settle(table, pricing).owed == pytest.approx(payments, abs=1e-9)


@pytest.mark.parametrize("clearing", ["fused", "torch"])
@pytest.mark.parametrize(
    ("table", "payments"),
    [
        (A, (0.0277722616, 0.2438163723, 0.3103117465)),
        (B, (0.0723300800, 0.1862117700, 0.0090348296)),
        (D, (0.1931471806, 0.1931471806)),
    ],
)
def test_step_charges_the_worked_vectors_either_way(table: Table, payments: tuple[float, ...], clearing: str) -> None:
    logits = torch.tensor(table[0], dtype=torch.float64).log()
    spec = spec_of(len(logits), pricing="expected", temperature=1.0)
    [outcome] = clear([Case(spec, tuple(1e6 * b for b in table[1]), step_key(1, 2), logits)], clearing)
    assert outcome.owed == pytest.approx([1e6 * payment for payment in payments], abs=1e-3)


@pytest.mark.parametrize(("u", "z"), [(0.9, 0.7651391162), (0.5, 0.0741935484), (0.4439, 0.0), (0.0, 0.0)])
def test_fused_finds_the_critical_bids_of_the_worked_vector(u: float, z: float) -> None:
    outcome = settle(B, "critical_bid", token=0.1, price=u)
    assert outcome.token == 0
    assert outcome.r[0] == pytest.approx(0.13)
    assert outcome.critical_bids[0] == outcome.owed[0] == pytest.approx(z, abs=1e-9)
    assert (outcome.counterfactual_tokens[0] is None) == (z == 0)


@pytest.mark.parametrize(("u", "token"), [(0.0, 1), (0.5, 3), (1 - 2.0**-53, 3)])
def test_fused_never_draws_a_token_without_mass(u: float, token: int) -> None:
    half: Table = [[0.0, 0.5, 0.0, 0.5, 0.0, *[0.0] * 3000]], (1.0,)
    assert settle(half, "critical_bid", token=u).token == token


def test_fused_leaves_nothing_to_the_others_where_they_have_no_mass() -> None:
    rng = torch.Generator().manual_seed(0)
    p = torch.rand(3, 999, generator=rng, dtype=torch.float64)
    p[1:, :600] = 0
    for u in torch.rand(200, generator=rng, dtype=torch.float64).tolist():
        outcome = settle((p.tolist(), (3.0, 7.0, 11.0)), "critical_bid", token=u)
        assert (outcome.r[0] == 0) == (outcome.token < 600)


def test_fused_charges_an_agent_alone_and_one_without_weight_exactly_nothing() -> None:
    for weights in ((3.0, 0.0, 0.0), (0.0, 3.0, 0.0)):
        for pricing in ("critical_bid", "expected"):
            outcome = settle((B[0], weights), pricing, price=0.99)
            assert outcome.owed == outcome.tv == (0, 0, 0)
            assert outcome.influence == tuple(float(weight > 0) for weight in weights)
            assert outcome.r == (outcome.q,) * 3


# --- Errors -------------------------------------------------------------------------------------------------------

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("weights", "row", "error"),
    [
        ((0, 0), None, NoWeight),
        ((-1, 2), None, InvalidBid),
        ((NAN, 2), None, InvalidBid),
        ((INF, 2), None, InvalidBid),
        ((1e-101, 2), None, InvalidBid),
        ((1, 2), [0.0, NAN, 0.0], InvalidDistribution),
        ((1, 2), [0.0, INF, 0.0], InvalidDistribution),
        ((1, 2), [-INF] * 3, InvalidDistribution),
        ((0, 2), [-INF, NAN, -INF], InvalidDistribution),  # also where nobody looks at it
        ((0, 2), [-INF] * 3, None),
        ((-1, 0), [NAN] * 3, InvalidBid),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fault_gives_its_auction_alone_the_error_that_torch_gives(
    weights: tuple[float, ...], row: list[float] | None, error: type[Exception] | None, dtype: torch.dtype
) -> None:
    sound = Case(spec_of(2), (1, 2), step_key(0, 0), torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.5, 0.0]], dtype=dtype))
    faulty = replace(sound, weights=weights, logits=sound.logits.clone())
    if row is not None:
        faulty.logits[0] = torch.tensor(row, dtype=dtype)
    mine, theirs = (clear([sound, faulty, sound], way) for way in ("fused", "torch"))
    for place in (0, 2):
        same_bits(mine[place], clear([sound], "fused")[0])
    if error is None:
        assert_agree(faulty, mine[1], theirs[1])
    else:
        assert type(mine[1]) is type(theirs[1]) is error
        assert str(mine[1]) == str(theirs[1])


@pytest.mark.parametrize("clearing", ["fused", "torch"])
def test_policy_that_leaves_no_token_fails_its_auction_alone(clearing: str) -> None:
    logits = torch.zeros(2, 4)
    free = Case(spec_of(2), (1, 2), step_key(0, 0), logits)
    stuck = replace(free, banned=(0, 1, 2, 3))
    outcomes = clear([stuck, free], clearing)
    assert isinstance(outcomes[0], InvalidInput) and isinstance(outcomes[1], StepOutcome)


# --- Who clears ---------------------------------------------------------------------------------------------------


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CXX", "/nowhere/c++")
    for cached in (load_library, fused_clearing._library, fused_clearing._function):
        cached.cache_clear()
    yield
    for cached in (load_library, fused_clearing._library, fused_clearing._function):
        cached.cache_clear()


def test_without_a_compiler_torch_clears_and_insisting_says_why(no_compiler: None) -> None:
    case = Case(spec_of(2), (1, 2), step_key(0, 0), torch.randn(2, 30, generator=torch.Generator().manual_seed(0)))
    assert cleared_by(case.spec, CPU) == "torch"
    same_bits(clear([case], "auto")[0], clear([case], "torch")[0])
    with pytest.raises(NotCompiled, match="which is not there"):
        clear([case], "fused")


@pytest.mark.parametrize(
    ("changes", "way"),
    [
        ({}, "fused"),
        ({"pricing": "expected"}, "fused"),
        ({"top_p": 1.0, "floor": 0.1, "banned_words": ("free",)}, "fused"),
        ({"pricing": "kl_clarke"}, "torch"),
        ({"sampler": "race"}, "torch"),
        ({"rule": "log_linear"}, "torch"),
        ({"top_k": 3}, "torch"),
        ({"top_p": 0.9}, "torch"),
    ],
)
def test_spec_and_machine_decide_who_clears(changes: dict[str, Any], way: str) -> None:
    assert cleared_by(spec_of(2, **changes), CPU) == way
    assert cleared_by(spec_of(2, **changes), CPU, "torch") == "torch"
    assert cleared_by(spec_of(2, **changes), torch.device("cuda")) == "torch"


def test_receipts_of_both_hold_and_say_which_it_was_and_tell_the_same_text(world: Any) -> None:
    spec = replace(spec_of(3), seed=11, max_tokens=10)
    receipts = []
    for way in ("fused", "torch"):
        receipts.append([dict(line) for line in world.run(spec, clearing=way, store_distributions=True)[-1].receipt])
        assert receipts[-1][0]["clearing"] == way
        assert verify(receipts[-1]) == Verdict(True, "distributions", len(receipts[-1]) - 2)
    fused, torch_ = (lines[-1] for lines in receipts)
    assert fused["token_ids"] == torch_["token_ids"]
    assert fused["exact_micros"] == pytest.approx(torch_["exact_micros"], rel=1e-12)


def test_logits_of_any_precision_and_stride_are_cleared_as_they_are() -> None:
    wide = torch.randn(2, 60, generator=torch.Generator().manual_seed(1)).bfloat16()
    case = Case(spec_of(2), (1, 2), step_key(5, 5), wide)
    same_bits(clear([case], "fused")[0], clear([replace(case, logits=wide.float())], "fused")[0])
    strided = Case(spec_of(2), (1, 2), step_key(5, 5), wide.float()[:, ::2])
    [outcome] = stepping.clear_step([strided.standing], [strided.bids], [strided.key], strided.logits)
    same_bits(outcome, clear([replace(strided, logits=strided.logits.contiguous())], "fused")[0])  # type: ignore[arg-type]
