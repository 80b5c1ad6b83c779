"""What is made of candidates, against sums written out: sets, levels, offsets, and the mean over queries."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tokenauction.clients.cli.reproduction.advertisers import Advertisers
from tokenauction.clients.cli.reproduction.curves import Curves
from tokenauction.clients.cli.reproduction.drawn import Candidates, DrawnQuery
from tokenauction.clients.cli.reproduction.outcomes import Levels, Outcomes, log_partition
from tokenauction.engine.errors import InvalidInput


def candidates(num: int = 12, seed: int = 1) -> Candidates:
    draw = torch.Generator().manual_seed(seed)
    reference, proposal = (-5 * torch.rand(num, dtype=torch.float64, generator=draw) - 1 for _ in range(2))
    rewards = torch.randn(2, num, dtype=torch.float64, generator=draw)
    return Candidates(reference, proposal, rewards, torch.arange(2 * num).reshape(2, num) % 3 == 0, ("a text",))


def query(number: int = 0) -> DrawnQuery:
    proposals = {name: candidates(24, seed) for seed, name in enumerate(("reference", "context_aware"), 7 * number)}
    return DrawnQuery(f"query {number}", "competing", proposals, -1.5, -4.0)


def test_outcomes_are_auctions_over_disjoint_sets() -> None:
    drawn = candidates(11)
    outcomes = Outcomes.of(drawn, 3)
    assert outcomes.rewards.shape == (3, 2, 3)
    for number in range(3):
        chosen = slice(3 * number, 3 * number + 3)
        rewards, weights = drawn.rewards[:, chosen], drawn.log_weight[chosen]
        pi = torch.softmax(rewards.sum(0) + weights, 0)
        for agent in range(2):
            others = rewards[1 - agent] + weights
            without = torch.softmax(others, 0)
            level = torch.logsumexp(others, 0)
            utility = torch.logsumexp(rewards[agent] + others, 0) - level
            place = (number, agent)
            assert outcomes.reward[place].item() == pytest.approx((pi @ rewards[agent]).item())
            assert outcomes.reward_without[place].item() == pytest.approx((without @ rewards[agent]).item())
            assert outcomes.utility[place].item() == pytest.approx(utility.item())
            assert outcomes.utility_without_offset[place].item() == pytest.approx((utility + level).item())
        quality = rewards.sum(0) + drawn.log_reference[chosen]
        assert outcomes.log_probability[number].item() == pytest.approx((pi @ quality).item())
        kept = (pi @ drawn.log_reference[chosen]).item()
        assert outcomes.log_reference_probability[number].item() == pytest.approx(kept)


def test_one_candidate_costs_nothing_and_leaves_no_choice() -> None:
    outcomes = Outcomes.of(candidates(), 1)
    assert torch.equal(outcomes.final.payment, torch.zeros(12, 2, dtype=torch.float64))
    torch.testing.assert_close(outcomes.reward, outcomes.rewards[:, :, 0])


def test_sets_larger_than_what_was_drawn_are_refused() -> None:
    with pytest.raises(ValueError, match="12 candidates make no set of 13"):
        Outcomes.of(candidates(), 13)


def test_levels_are_of_texts_without_brands_and_of_the_reweighted_reference() -> None:
    drawn = candidates()
    levels = Levels.of(drawn)
    free = [number for number in range(12) if not drawn.names[:, number].any()]
    assert levels.brand_free is not None
    torch.testing.assert_close(levels.brand_free, drawn.rewards[:, free].mean(1))
    weights = (drawn.log_reference - drawn.log_proposal).exp()
    torch.testing.assert_close(levels.exact, (drawn.rewards * weights).sum(1) / weights.sum())
    named = Candidates(drawn.log_reference, drawn.log_proposal, drawn.rewards, drawn.names | True, ())
    assert Levels.of(named).brand_free is None


def test_log_partition_is_the_known_one_or_the_best_estimate() -> None:
    assert log_partition(query()) == -1.5
    unknown = DrawnQuery("q", "competing", query().proposals)
    estimates = [(c.rewards.sum(0) + c.log_weight).exp().mean().log().item() for c in unknown.proposals.values()]
    assert log_partition(unknown) == pytest.approx(max(estimates))


def test_queries_are_read_back_as_they_were_written() -> None:
    mapping = query().to_mapping()
    assert DrawnQuery.from_mapping(mapping, "here").to_mapping() == mapping


@pytest.mark.parametrize(
    "broken",
    [
        None,
        {},
        {"query": "q"},
        {**query().to_mapping(), "proposals": {}},
        {**query().to_mapping(), "proposals": {"reference": 3}},
        {**query().to_mapping(), "log_partition": "much"},
        {**query().to_mapping(), "log_partition": math.inf},
        {**query().to_mapping(), "proposals": {"reference": {**candidates().to_mapping(), "log_reference": [1.0]}}},
        {**query().to_mapping(), "proposals": {"reference": {**candidates().to_mapping(), "rewards": [[1.0]]}}},
        {**query().to_mapping(), "proposals": {"reference": {**candidates().to_mapping(), "names": [[None]]}}},
    ],
)
def test_what_is_no_query_is_refused_with_its_place(broken: Any) -> None:
    with pytest.raises(InvalidInput, match="here is no query's candidates"):
        DrawnQuery.from_mapping(broken, "here")


def test_curves_are_means_over_queries_and_differences_are_paired() -> None:
    queries = [query(number) for number in range(3)]
    curves = Curves.of(queries)
    assert list(curves.figures) == ["reference", "context_aware"]
    assert list(curves.figures["reference"]) == [1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20]
    revenues = [Outcomes.of(q.proposals["context_aware"], 4).final.payment.sum(1).mean().item() for q in queries]
    assert curves.estimate("context_aware", 4, "revenue").value == pytest.approx(sum(revenues) / 3)
    others = [Outcomes.of(q.proposals["reference"], 20).final.payment.sum(1).mean().item() for q in queries]
    differences = [more - less for more, less in zip(revenues, others, strict=True)]
    found = curves.difference("revenue", ("context_aware", 4), ("reference", 20))
    assert found.value == pytest.approx(sum(differences) / 3)
    assert found.low == pytest.approx(min(differences)) and found.high == pytest.approx(max(differences))
    assert curves.figures["reference"][1]["off_optimum"][0] == pytest.approx(
        abs(curves.figures["reference"][1]["log_probability"][0] + 4.0)
    )


def test_curves_leave_out_queries_without_a_brand_free_text() -> None:
    drawn = candidates(24)
    named = Candidates(drawn.log_reference, drawn.log_proposal, drawn.rewards, drawn.names | True, ())
    without = DrawnQuery("q", "competing", {"reference": named, "context_aware": candidates(24, 9)})
    curves = Curves.of([query(0), query(1), without])
    one = Curves.of([query(0), query(1)])
    assert curves.estimate("reference", 4, "reward_gain") == one.estimate("reference", 4, "reward_gain")
    assert not Curves.of([without]).has("reward_gain") and not Curves.of([without]).has("off_optimum")
    assert curves.has("reward_gain")


def test_gains_of_advertisers_add_up() -> None:
    """Utility and payment share the reward, and a gain beyond the market without i is never negative."""
    queries = [query(number) for number in range(4)]
    found = Advertisers.of(queries, "context_aware", 6)
    for number, drawn in enumerate(queries):
        payment = Outcomes.of(drawn.proposals["context_aware"], 6).final.payment.flatten().tolist()
        pairs = zip(found.reward_gain[number], found.utility[number], payment, strict=True)
        assert all(reward == pytest.approx(utility + paid) for reward, utility, paid in pairs)
        assert all(-1e-12 <= utility <= reward + 1e-12 for reward, utility in
                   zip(found.own_reward_gain[number], found.own_utility[number], strict=True))  # fmt: skip
    assert len(found.bins()) == 8
    assert [x for x, _ in found.bins()] == sorted(x for x, _ in found.bins())
    small, large = (found.own("slope", is_large=is_large).value for is_large in (False, True))
    assert 0 < small < 1 and 0 < large < 1


def test_halves_of_the_gains_hold_every_point_once() -> None:
    gains = [[1.0, 2.0, 7.0], [9.0], []]
    found = Advertisers(2, gains, gains, gains, gains, [[1.0, 2.0, 30.0], [90.0], []])
    assert found.own("slope", is_large=False).value == pytest.approx(1.0)  # through (1, 1) and (2, 2)
    assert found.own("slope", is_large=True).value == pytest.approx(30.0)  # through (7, 30) and (9, 90)
    tied = Advertisers(2, gains, gains, gains, [[1.0, 1.0, 1.0], [1.0], []], gains)
    assert tied.own("slope", is_large=True).value == 0
