"""Axioms by hypothesis, for every row of the guarantees table: those it promises, and those it must not."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tokenauction.engine.clearing import clear
from tokenauction.engine.guarantees import TABLE, Guarantee, Pricing, Rule
from tokenauction.engine.properties import (
    DIVERGENCES,
    Divergence,
    Verdict,
    at_bids,
    individually_rational,
    kl_from_p,
    kl_to_p,
    monotone_divergence,
    monotone_robust,
    payment_at_most_bid,
    permutation_invariant,
    priced,
    scale_invariant,
    single_threshold,
    splitting_neutral,
    truthful,
    truthful_switch,
    tv,
)
from tokenauction.engine.randomness import coupled_randomness, race_randomness, step_key

pytestmark = pytest.mark.slow
few = settings(max_examples=20, deadline=None, derandomize=True)
GRID = torch.cat([torch.zeros(1), torch.logspace(-4, 4, 17)]).double()
RULES: tuple[Rule, ...] = ("linear", "log_linear")
HUMP = torch.tensor([[0.9899, 0.01, 0.0001], [0.0001, 0.01, 0.9899]], dtype=torch.float64)
EQUAL = torch.ones(2, dtype=torch.float64)

Auction = tuple[Tensor, Tensor, int]


@st.composite
def auctions(draw: st.DrawFn, zeros: bool = True, most_agents: int = 4) -> Auction:
    """Distributions [agents, vocab] (some with zeros), bids from 1e-3 to 1e3, and one agent's place."""
    num_agents, vocab_size = draw(st.integers(2, most_agents)), draw(st.integers(2, 6))
    score = st.floats(-12, 12, allow_subnormal=False)
    rows = draw(
        st.lists(st.lists(score, min_size=vocab_size, max_size=vocab_size), min_size=num_agents, max_size=num_agents)
    )
    p = torch.tensor(rows, dtype=torch.float64).softmax(-1)
    if zeros:
        cut = draw(
            st.lists(st.booleans(), min_size=num_agents * (vocab_size - 1), max_size=num_agents * (vocab_size - 1))
        )
        p[:, 1:] *= ~torch.tensor(cut).view(num_agents, vocab_size - 1)  # the first token stays common to all
        p = p / p.sum(-1, keepdim=True)
    amounts = draw(st.lists(st.floats(-3, 3), min_size=num_agents, max_size=num_agents))
    return p, 10 ** torch.tensor(amounts, dtype=torch.float64), draw(st.integers(0, num_agents - 1))


def identity(row: Guarantee) -> str:
    return f"{row.rule}-{row.sampler}-{row.pricing}"


def loss_of(row: Guarantee) -> Divergence:
    """The loss for which the row promises truthfulness."""
    if "KL(p_i ‖ q)" in row.truthful:
        return kl_from_p
    return kl_to_p if "KL(q ‖ p_i)" in row.truthful else tv


def required(verdict: Verdict) -> None:
    assert verdict, verdict.witness


@given(auctions())
@few
def test_linear_rule_is_monotone_under_robust_preferences(auction: Auction) -> None:
    required(monotone_robust("linear", *auction, GRID))


def test_log_linear_rule_is_not_monotone_under_robust_preferences() -> None:
    verdict = monotone_robust("log_linear", HUMP, EQUAL, 0, torch.tensor([1e-6, 1.0], dtype=torch.float64))
    assert verdict == Verdict(False, "bid 1e-06 -> 1: token 1 goes 0.01 -> 0.3345, p = 0.01")
    assert monotone_robust("linear", HUMP, EQUAL, 0, GRID)
    middle = priced("log_linear", "free", HUMP, at_bids(EQUAL, 0, torch.tensor([1e-12, 1.0, 1e12]).double())).aggregate[
        :, 1
    ]
    assert middle.tolist() == pytest.approx([0.01, 0.3345, 0.01], abs=5e-5)


@given(auctions(zeros=False))
@few
def test_log_linear_rule_is_monotone_under_robust_preferences_with_two_tokens(auction: Auction) -> None:
    p, bids, agent = auction
    two = p[:, :2] / p[:, :2].sum(-1, keepdim=True)
    required(monotone_robust("log_linear", two, bids, agent, GRID))


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("rule", RULES)
@given(auction=auctions())
@few
def test_both_rules_are_monotone_under_every_divergence(rule: Rule, name: str, auction: Auction) -> None:
    required(monotone_divergence(rule, *auction, GRID, DIVERGENCES[name]))


@pytest.mark.parametrize("row", [r for r in TABLE if r.truthful and r.pricing != "critical_bid"], ids=identity)
@given(auction=auctions(most_agents=3))
@few
def test_bid_is_truthful_for_the_promised_value(row: Guarantee, auction: Auction) -> None:
    required(truthful(row.rule, row.pricing, *auction, GRID, loss_of(row)))


@pytest.mark.parametrize("row", [r for r in TABLE if r.truthful and r.pricing != "critical_bid"], ids=identity)
@given(auction=auctions(most_agents=3))
@few
def test_taking_part_is_individually_rational_where_bidding_is_truthful(row: Guarantee, auction: Auction) -> None:
    required(individually_rational(row.rule, row.pricing, *auction, loss_of(row)))


@pytest.mark.parametrize(("pricing", "better"), [("first_price", "less"), ("free", "more")])
def test_baselines_are_not_truthful(pricing: Pricing, better: str) -> None:
    p = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
    for rule in RULES:
        verdict = truthful(rule, pricing, p, EQUAL, 0, GRID, tv)
        assert not verdict
        instead = float(verdict.witness.split()[1])
        assert instead < 1 if better == "less" else instead > 1


def test_expected_price_is_not_truthful_for_the_other_rule_s_loss() -> None:
    p = torch.tensor([[0.98, 0.01, 0.01], [0.01, 0.01, 0.98]], dtype=torch.float64)
    near = torch.linspace(0.2, 3.0, 57, dtype=torch.float64)
    assert not truthful("linear", "expected", p, EQUAL, 0, near, kl_from_p)
    assert not truthful("linear", "kl_clarke", p, EQUAL, 0, near, tv)


@pytest.mark.parametrize("row", [r for r in TABLE if r.sampler == "race" and r.pricing == "critical_bid"], ids=identity)
@given(auction=auctions(), seed=st.integers(0, 2**64))
@few
def test_race_is_truthful_and_switches_once_for_every_seed(row: Guarantee, auction: Auction, seed: int) -> None:
    p, bids, agent = auction
    randomness = race_randomness([step_key(seed, 0)], [[f"agent {i}" for i in range(len(bids))]], p.shape[-1])
    required(single_threshold(p, bids, agent, GRID, randomness))
    required(truthful_switch(p, bids, agent, GRID, randomness))


@pytest.mark.parametrize("row", [r for r in TABLE if r.payment_at_most_bid], ids=identity)
@given(auction=auctions(), seed=st.integers(0, 2**64))
@few
def test_payment_is_at_most_the_bid_where_promised(row: Guarantee, auction: Auction, seed: int) -> None:
    p, bids, _ = auction
    keys, ids = [step_key(seed, 0)], [[f"agent {i}" for i in range(len(bids))]]
    randomness = coupled_randomness(keys, ids) if row.sampler == "coupled" else race_randomness(keys, ids, p.shape[-1])
    everyone = torch.ones(1, len(bids), dtype=torch.bool)
    cleared = clear(p[None], bids[None], everyone, randomness, rule=row.rule, sampler=row.sampler, pricing=row.pricing)
    required(payment_at_most_bid(cleared, bids[None]))
    assert bool((cleared.payment >= 0).all())


def test_kl_clarke_under_log_linear_can_exceed_the_bid() -> None:
    p = torch.tensor([[1 - 2e-9, 1e-9, 1e-9], [1e-9, 1e-9, 1 - 2e-9]], dtype=torch.float64)
    bids = torch.tensor([[2.0, 1.0]], dtype=torch.float64)
    assert not payment_at_most_bid(priced("log_linear", "kl_clarke", p, bids), bids)


@pytest.mark.parametrize(
    "row", [r for r in TABLE if r.sampler == "coupled" and r.pricing != "critical_bid"], ids=identity
)
@given(auction=auctions(), factor=st.floats(-6, 6), shift=st.integers(1, 3))
@few
def test_order_and_currency_change_nothing(row: Guarantee, auction: Auction, factor: float, shift: int) -> None:
    p, bids, _ = auction
    required(permutation_invariant(row.rule, row.pricing, p, bids, torch.arange(len(bids)).roll(shift)))
    required(scale_invariant(row.rule, row.pricing, p, bids, 10**factor))


@pytest.mark.parametrize("rule", RULES)
@given(auction=auctions(), share=st.floats(0.01, 0.99))
@few
def test_splitting_a_bid_between_duplicates_leaves_the_aggregate(rule: Rule, auction: Auction, share: float) -> None:
    required(splitting_neutral(rule, *auction, share))


@pytest.mark.parametrize("rule", RULES)
def test_splitting_a_bid_between_duplicates_lowers_what_is_paid(rule: Rule) -> None:
    p = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
    whole = priced(rule, "expected", p, torch.tensor([[2.0, 1.0]]).double()).payment[0, 0]
    split = priced(rule, "expected", p[[0, 0, 1]], torch.tensor([[1.0, 1.0, 1.0]]).double()).payment[0, :2].sum()
    assert split < 0.8 * whole


@given(auctions())
@few
def test_expected_payment_under_linear_is_at_most_0_2162_of_the_bid_times_the_distance(auction: Auction) -> None:
    p, bids, _ = auction
    assume(len(bids) > 1)
    cleared = priced("linear", "expected", p, bids[None])
    assert bool((cleared.payment <= 0.2163 * bids * cleared.tv).all())
    assert math.isclose(
        max((math.log1p(x) - x / (1 + x)) / x for x in torch.linspace(1, 4, 3001).tolist()), 0.2162, abs_tol=5e-5
    )
