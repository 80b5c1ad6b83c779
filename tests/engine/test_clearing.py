"""Clearing: one batch of unlike auctions gives each the bits it gets alone; faults, reference, samplers, vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from tokenauction.engine.aggregation import faults
from tokenauction.engine.clearing import Clearing, clear
from tokenauction.engine.errors import InvalidBid, InvalidDistribution, InvalidInput, NoWeight, UnsafeCombination
from tokenauction.engine.guarantees import TABLE, Guarantee, Pricing, Rule
from tokenauction.engine.randomness import (
    CoupledRandomness,
    RaceRandomness,
    coupled_randomness,
    race_randomness,
    step_key,
)
from tokenauction.engine.sampling import token_at

IDS = [["a", "b", "c"], ["a"], ["x", "b", "c", "d", "e"], ["b", "a"], ["r", "s", "t", "u"]]


def tensor(x: object) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def distributions(num_agents: int, vocab_size: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return (torch.randn(num_agents, vocab_size, generator=rng) * 3).softmax(-1)


def bids(num_agents: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(num_agents, generator=rng, dtype=torch.float64) * 3 + 0.1


def identity(row: Guarantee) -> str:
    return f"{row.rule}-{row.sampler}-{row.pricing}"


def same_bits(a: Clearing, b: Clearing) -> None:
    for field in fields(Clearing):
        x, y = getattr(a, field.name), getattr(b, field.name)
        assert torch.equal(x.nan_to_num(nan=-7.0), y.nan_to_num(nan=-7.0)), field.name


def one(cleared: Clearing, auction: int, num_agents: int) -> Clearing:
    """The auction's own numbers, without padding."""
    per_agent = {f.name for f in fields(Clearing) if getattr(cleared, f.name).dim() == 2} - {"aggregate"}
    row = {f.name: getattr(cleared, f.name)[auction : auction + 1] for f in fields(Clearing)}
    return Clearing(**{name: x[:, :num_agents] if name in per_agent else x for name, x in row.items()})


def run(row: Guarantee, members: list[int], width: int, vocab_size: int) -> Clearing:
    p = torch.full((len(members), width, vocab_size), 0.7)
    weights, pays = (
        torch.zeros(len(members), width, dtype=torch.float64),
        torch.zeros(len(members), width, dtype=torch.bool),
    )
    for place, member in enumerate(members):
        n = len(IDS[member])
        p[place, :n] = distributions(n, vocab_size, member)
        weights[place, :n] = bids(n, member)
        pays[place, : max(1, n - 1)] = True  # the last row is a reference
    keys, ids = [step_key(member, 3) for member in members], [IDS[member] for member in members]
    randomness: CoupledRandomness | RaceRandomness = coupled_randomness(keys, ids, width)
    if row.sampler == "race":
        randomness = race_randomness(keys, ids, vocab_size, width)
    return clear(p, weights, pays, randomness, rule=row.rule, sampler=row.sampler, pricing=row.pricing)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("row", [r for r in TABLE if r.pricing in ("critical_bid", "kl_clarke")], ids=identity)
def test_auction_gets_the_same_bits_on_two_threads_alone_and_padded_among_others(
    row: Guarantee, two_threads: None
) -> None:
    together = run(row, [2, 1], width=19, vocab_size=20_000)
    for place, member in enumerate((2, 1)):
        same_bits(run(row, [member], len(IDS[member]), 20_000), one(together, place, len(IDS[member])))


@pytest.mark.parametrize("vocab_size", [3, 1500])
@pytest.mark.parametrize("row", TABLE, ids=identity)
def test_auction_gets_the_same_bits_alone_and_padded_among_others(row: Guarantee, vocab_size: int) -> None:
    together = run(row, [0, 1, 2, 3, 4], width=19, vocab_size=vocab_size)
    for member, ids in enumerate(IDS):
        same_bits(run(row, [member], len(ids), vocab_size), one(together, member, len(ids)))


@pytest.mark.parametrize("row", TABLE, ids=identity)
def test_every_legal_combination_clears_with_numbers_where_promised(row: Guarantee) -> None:
    cleared = run(row, [0, 2, 4], width=5, vocab_size=300)
    assert bool(cleared.payment.isfinite().all()) and bool((cleared.payment >= 0).all())
    assert torch.allclose(cleared.aggregate.sum(-1), tensor(1.0))
    assert torch.allclose(cleared.influence.sum(-1), tensor(1.0))
    assert torch.equal(cleared.aggregate.gather(-1, cleared.token.unsqueeze(-1)).squeeze(-1), cleared.q_token)
    assert bool(cleared.cdf_below.isnan().all()) == (row.sampler == "race")
    assert bool((cleared.agent_token == -1).all()) == (row.sampler == "coupled")
    assert bool(cleared.critical_bid.isnan().any()) == (row.rule == "log_linear" and row.pricing != "critical_bid")
    assert bool(cleared.kl.isnan().all()) == (row.pricing != "kl_clarke")


@pytest.mark.parametrize("row", TABLE, ids=identity)
def test_reference_shapes_the_text_and_never_pays(row: Guarantee) -> None:
    for members in ([0], [2], [4]):
        n = len(IDS[members[0]])
        cleared = run(row, members, width=n, vocab_size=40)
        assert cleared.payment[0, n - 1] == 0
        assert cleared.influence[0, n - 1] > 0


def test_coupled_draw_holds_its_uniform_between_the_cumulated_probabilities() -> None:
    keys = [step_key(1, step) for step in range(200)]
    randomness = coupled_randomness(keys, [IDS[0]] * 200)
    p = torch.stack([distributions(3, 500, step) for step in range(200)])
    weights = torch.ones(200, 3, dtype=torch.float64)
    cleared = clear(p, weights, weights > 0, randomness)
    assert bool((cleared.cdf_below <= randomness.token + 1e-12).all())
    assert bool((randomness.token < cleared.cdf_below + cleared.q_token + 1e-12).all())


def test_token_at_the_bid_itself_is_the_drawn_token_and_below_the_critical_bid_the_counterfactual() -> None:
    num_draws, weights = 500, tensor([[1.0, 2.0, 0.5]])
    keys = [step_key(9, step) for step in range(num_draws)]
    p = distributions(3, 6, 0).expand(num_draws, -1, -1)
    cleared = clear(
        p,
        weights.expand(num_draws, -1),
        torch.ones(num_draws, 3, dtype=torch.bool),
        coupled_randomness(keys, [IDS[0]] * 500),
    )
    token = cleared.token.unsqueeze(-1).expand_as(cleared.critical_bid)
    at_bid = token_at(
        weights.expand_as(cleared.critical_bid), token, cleared.critical_bid, cleared.counterfactual_token
    )
    assert torch.equal(at_bid, token)
    due = cleared.critical_bid > 0
    just_below = token_at(cleared.critical_bid * (1 - 1e-12), token, cleared.critical_bid, cleared.counterfactual_token)
    assert torch.equal(just_below[due], cleared.counterfactual_token[due])
    assert bool((cleared.counterfactual_token[~due] == -1).all())
    assert bool((cleared.counterfactual_token[due] != token[due]).all())


@pytest.mark.slow
@pytest.mark.parametrize("agent", [0, 1, 2])
def test_law_of_token_at_is_the_aggregate_at_every_lower_bid(agent: int) -> None:
    num_draws, weights, rng = 200_000, tensor([1.0, 2.0, 0.5]), torch.Generator().manual_seed(agent)
    p = distributions(3, 6, 0)
    randomness = CoupledRandomness(
        *(torch.rand(num_draws, generator=rng, dtype=torch.float64) for _ in range(2)),
        torch.rand(num_draws, 3, generator=rng, dtype=torch.float64),
    )
    everyone = torch.ones(num_draws, 3, dtype=torch.bool)
    cleared = clear(p.expand(num_draws, -1, -1), weights.expand(num_draws, -1), everyone, randomness)
    for share in (0.0, 0.2, 0.6, 1.0):
        bid = torch.full((num_draws,), share, dtype=torch.float64) * weights[agent]
        token = token_at(bid, cleared.token, cleared.critical_bid[:, agent], cleared.counterfactual_token[:, agent])
        lower = weights.clone()
        lower[agent] = bid[0]
        q = clear(
            p[None], lower[None], everyone[:1], CoupledRandomness(*(x[:1] for x in vars(randomness).values()))
        ).aggregate[0]
        frequency = torch.bincount(token, minlength=6) / num_draws
        assert bool(
            ((frequency - q).abs() < 5.2 * (q * (1 - q) / num_draws).sqrt()).all()
        )  # false alarm 6 tokens: 1e-6


@pytest.mark.parametrize(
    ("rule", "pricing"), [("linear", "critical_bid"), ("linear", "expected"), ("log_linear", "critical_bid")]
)
def test_disjoint_supports_and_large_vocabularies_clear(rule: Rule, pricing: Pricing) -> None:
    p = distributions(3, 151_936, 1).unsqueeze(0)
    weights = tensor([[1.0, 2.0, 0.5]])
    cleared = clear(p, weights, weights > 0, coupled_randomness([step_key(0, 0)], [IDS[0]]), rule=rule, pricing=pricing)
    assert cleared.aggregate.sum().item() == pytest.approx(1, abs=1e-12)
    assert bool((cleared.payment <= weights).all())
    apart = torch.eye(3).unsqueeze(0)
    if rule == "linear":
        cleared = clear(apart, weights, weights > 0, coupled_randomness([step_key(0, 0)], [IDS[0]]), pricing=pricing)
        assert torch.allclose(cleared.tv, tensor(1.0), rtol=1e-15)


def test_clear_refuses_what_faults_finds_and_clears_the_rest() -> None:
    p = distributions(3, 10, 0).expand(4, -1, -1).clone()
    p[1, 0, 0] = float("nan")
    weights = tensor([[1.0, 2.0, 0.5]] * 4)
    weights[3] = 0
    pays, randomness = weights >= 0, coupled_randomness([step_key(0, s) for s in range(4)], [IDS[0]] * 4)
    with pytest.raises(InvalidDistribution, match=r"^auction 1: "):
        clear(p, weights, pays, randomness)
    found = faults(p, weights, "linear")
    assert {i: type(e) for i, e in found.items()} == {1: InvalidDistribution, 3: NoWeight}
    sound = torch.tensor([i for i in range(4) if i not in found])
    rest = CoupledRandomness(*(x[sound] for x in vars(randomness).values()))
    cleared = clear(p[sound], weights[sound], pays[sound], rest)
    unchecked = clear(p, weights, pays, randomness, validate=False)
    assert torch.equal(cleared.payment, unchecked.payment[sound]) and torch.equal(cleared.token, unchecked.token[sound])


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -1.0])
def test_clear_refuses_a_bid_that_is_no_amount(weight: float) -> None:
    p, weights = distributions(2, 5, 0).unsqueeze(0), tensor([[1.0, weight]])
    with pytest.raises(InvalidBid, match="give 0 or more"):
        clear(p, weights, weights == weights, coupled_randomness([step_key(0, 0)], [["a", "b"]]))


def test_clear_refuses_randomness_of_the_other_sampler() -> None:
    p, weights = distributions(2, 5, 0).unsqueeze(0), tensor([[1.0, 2.0]])
    with pytest.raises(InvalidInput, match="'race' cannot use a CoupledRandomness"):
        clear(p, weights, weights > 0, coupled_randomness([step_key(0, 0)], [["a", "b"]]), sampler="race")
    with pytest.raises(InvalidInput, match="'coupled' cannot use a RaceRandomness"):
        clear(p, weights, weights > 0, race_randomness([step_key(0, 0)], [["a", "b"]], 5))


def test_log_linear_race_runs_when_the_caller_insists_and_only_then() -> None:
    p, weights = distributions(2, 5, 0).unsqueeze(0), tensor([[1.0, 2.0]])
    randomness = race_randomness([step_key(0, 0)], [["a", "b"]], 5)
    with pytest.raises(UnsafeCombination):
        clear(p, weights, weights > 0, randomness, rule="log_linear", sampler="race", pricing="expected")
    cleared = clear(
        p, weights, weights > 0, randomness, rule="log_linear", sampler="race", pricing="expected", allow_unsafe=True
    )
    expected = clear(
        p,
        weights,
        weights > 0,
        coupled_randomness([step_key(0, 0)], [["a", "b"]]),
        rule="log_linear",
        pricing="expected",
    )
    assert torch.equal(cleared.payment, expected.payment)
    assert cleared.winner.item() == -1


def test_race_gives_the_winner_s_rival_token_as_its_counterfactual() -> None:
    n = 300
    keys = [step_key(4, step) for step in range(n)]
    weights = tensor([[1.0, 2.0, 0.5]]).expand(n, -1)
    p = distributions(3, 6, 2).expand(n, -1, -1)
    cleared = clear(p, weights, weights > 0, race_randomness(keys, [IDS[0]] * n, 6), sampler="race")
    due = cleared.critical_bid > 0
    assert torch.equal(due.nonzero()[:, 1], cleared.winner[due.any(-1)])
    rival = cleared.agent_token.gather(-1, cleared.runner_up.unsqueeze(-1)).expand_as(due)
    assert torch.equal(cleared.counterfactual_token[due], rival[due])
    assert torch.equal(due.any(-1), rival[:, 0] != cleared.token)
