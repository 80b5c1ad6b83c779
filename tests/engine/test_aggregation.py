"""Aggregation: the worked vectors, leave-one-out at extreme bids against exact fractions, and every refusal."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from tokenauction.engine.aggregation import aggregate, check, faults, influence, normalised, weight_of_others
from tokenauction.engine.errors import InvalidBid, InvalidDistribution, NoCommonSupport, NoWeight
from tokenauction.engine.guarantees import Rule

B = [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5]]


def tensor(x: object) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def close(a: Tensor, b: object, tolerance: float = 1e-10) -> bool:
    return bool(torch.allclose(a, tensor(b), rtol=0, atol=tolerance))


def test_linear_aggregate_gives_the_worked_vector() -> None:
    q, r = aggregate(tensor([B]), tensor([[1, 2, 0.5]]), "linear")
    assert close(q, [[0.2928571429, 0.4357142857, 0.2714285714]])
    assert close(r[0, 0], [0.13, 0.53, 0.34])
    assert close((r - tensor([B])).abs().sum(-1) / 2, [[0.57, 0.45, 0.2666666667]])


def test_log_linear_aggregate_gives_the_worked_vector() -> None:
    q, r = aggregate(tensor([B]), tensor([[1, 2, 0.5]]), "log_linear")
    assert close(q, [[0.2419793767, 0.4709645281, 0.2870560952]])
    product = tensor(B[1]) ** (2 / 2.5) * tensor(B[2]) ** (0.5 / 2.5)
    assert close(r[0, 0], (product / product.sum()).tolist(), 1e-14)


@pytest.mark.parametrize("bids", [(1e-12, 1.0, 1e12), (1e12, 1e-12, 1e-12), (1.0, 1.0, 1.0), (1e-100, 1e100, 3.0)])
def test_leave_one_out_is_exact_at_extreme_bids(bids: tuple[float, ...]) -> None:
    p = normalised(tensor([B]), tensor([bids]))
    q, r = aggregate(p, tensor([bids]), "linear")
    exact_p = [[Fraction(x) for x in row] for row in p[0].tolist()]
    exact_b = [Fraction(x) for x in bids]
    for i in range(3):
        rest = [j for j in range(3) if j != i]
        total = sum(exact_b[j] for j in rest)
        expected = [float(sum(exact_b[j] * exact_p[j][t] for j in rest) / total) for t in range(3)]
        assert torch.allclose(r[0, i], tensor(expected), rtol=1e-14, atol=0)
        assert weight_of_others(tensor([bids]))[0, i].item() == pytest.approx(float(total), rel=1e-15)
    assert bool(q.isfinite().all())


def test_log_linear_stays_finite_and_right_at_extreme_bids() -> None:
    q, r = aggregate(tensor([B]), tensor([[1e12, 1e-12, 1e-12]]), "log_linear")
    assert close(q[0], B[0], 1e-14)
    product = (tensor(B[1]) * tensor(B[2])).sqrt()
    assert close(r[0, 0], (product / product.sum()).tolist(), 1e-14)
    assert close(r[0, 1], B[0], 1e-14)


@pytest.mark.parametrize("rule", ["linear", "log_linear"])
def test_agent_without_weight_changes_nothing_whatever_its_row_holds(rule: Rule) -> None:
    p = tensor([[*B, [5.0, -3.0, 0.0]]])
    weights = tensor([[1, 2, 0.5, 0]])
    q, r = aggregate(normalised(p, weights), weights, rule)
    alone_q, alone_r = aggregate(normalised(tensor([B]), weights[:, :3]), weights[:, :3], rule)
    assert torch.equal(q, alone_q)
    assert torch.equal(r[:, :3], alone_r)
    assert torch.allclose(r[0, 3], q[0], rtol=0, atol=1e-15)


@pytest.mark.parametrize("rule", ["linear", "log_linear"])
def test_agent_alone_is_its_own_aggregate_with_and_without(rule: Rule) -> None:
    weights = tensor([[0, 3, 0]])
    p = normalised(tensor([[B[0], [0.0, 0.6, 0.4], B[2]]]), weights)
    q, r = aggregate(p, weights, rule)
    assert close(q[0], [0, 0.6, 0.4], 1e-15)
    assert torch.equal(r[0], q.expand(3, 3))
    assert weight_of_others(weights)[0, 1] == 0


def test_log_linear_keeps_a_zero_that_others_do_not_share() -> None:
    p = tensor([[[0.5, 0.5, 0.0], [0.2, 0.4, 0.4], [0.3, 0.0, 0.7]]])
    q, r = aggregate(p, tensor([[1, 1, 1]]), "log_linear")
    assert q.tolist() == [[1, 0, 0]]
    assert (r[0] > 0).tolist() == [[True, False, True], [True, False, False], [True, True, False]]


def test_float32_softmaxes_are_accepted_and_renormalised() -> None:
    logits = torch.randn(2, 3, 151_936, generator=torch.Generator().manual_seed(1)) * 4
    p = logits.softmax(-1)
    weights = tensor([[1, 2, 3], [1, 0, 1]])
    check(p, weights, "linear")
    assert torch.allclose(normalised(p, weights).sum(-1), (weights > 0).double(), rtol=0, atol=1e-14)


SOUND = B
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("distributions", "weights", "error"),
    [
        ([[NAN, 0.5, 0.5], B[1], B[2]], (1, 1, 1), InvalidDistribution),
        ([[INF, 0.5, 0.5], B[1], B[2]], (1, 1, 1), InvalidDistribution),
        ([[-0.1, 0.6, 0.5], B[1], B[2]], (1, 1, 1), InvalidDistribution),
        ([[0.5, 0.5, 0.001], B[1], B[2]], (1, 1, 1), InvalidDistribution),
        ([[0, 0, 0], B[1], B[2]], (1, 1, 1), InvalidDistribution),
        ([[NAN, 0.5, 0.5], B[1], B[2]], (0, 1, 1), InvalidDistribution),
        (B, (1, -1, 1), InvalidBid),
        (B, (1, NAN, 1), InvalidBid),
        (B, (1, INF, 1), InvalidBid),
        (B, (1, 1e-101, 1), InvalidBid),
        (B, (1, 1e101, 1), InvalidBid),
        (B, (0, 0, 0), NoWeight),
    ],
)
@pytest.mark.parametrize("rule", ["linear", "log_linear"])
def test_faults_names_the_auction_and_spares_the_rest(
    distributions: list[list[float]], weights: tuple[float, ...], error: type[Exception], rule: Rule
) -> None:
    batch = tensor([SOUND, distributions, SOUND])
    bids = tensor([(1, 2, 0.5), weights, (0, 1, 0)])
    found = faults(batch, bids, rule)
    assert {auction: type(fault) for auction, fault in found.items()} == {1: error}
    with pytest.raises(error, match=r"^auction 1: "):
        check(batch, bids, rule)


def test_disjoint_supports_have_no_common_support_under_log_linear_alone() -> None:
    apart = tensor([[[1, 0], [0, 1]], [[0.5, 0.5], [0, 1]], [[1, 0], [0, 1]]])
    weights = tensor([[1, 1], [1, 1], [1, 0]])
    assert faults(apart, weights, "linear") == {}
    assert {a: type(e) for a, e in faults(apart, weights, "log_linear").items()} == {0: NoCommonSupport}


def test_check_names_every_auction_with_the_first_kind_of_fault() -> None:
    with pytest.raises(NoWeight, match=r"^auction 0, 2: "):
        check(tensor([B, B, B]), tensor([[0, 0, 0], [1, -1, 1], [0, 0, 0]]), "linear")


def test_check_names_no_auction_where_there_is_one_alone() -> None:
    with pytest.raises(NoWeight, match=r"^every weight is 0"):
        check(tensor([B]), tensor([[0, 0, 0]]), "linear")


def test_influence_is_the_share_of_weighted_probability() -> None:
    share = influence(tensor([[0.7, 0.1, 0.25]]), tensor([[1, 2, 0.5]]))
    assert close(share, [[0.7 / 1.025, 0.2 / 1.025, 0.125 / 1.025]])
    extreme = influence(tensor([[0.7, 0.1, 0.25]]), tensor([[1e100, 1e-100, 0]]))
    assert extreme.sum() == 1 and extreme[0, 2] == 0


def test_influence_under_linear_is_the_weight_share_plus_the_slope_of_ln_q() -> None:
    weights, token, step = tensor([[1, 2, 0.5]]), 1, 1e-6
    p = tensor([B])
    for agent in range(3):
        up, down = weights.clone(), weights.clone()
        up[0, agent] *= 1 + step
        down[0, agent] *= 1 - step
        high, low = (aggregate(p, w, "linear")[0][0, token].log() for w in (up, down))
        slope = (high - low) / (2 * step)
        expected = weights[0, agent] / weights.sum() + slope
        assert influence(p[:, :, token], weights)[0, agent].item() == pytest.approx(expected.item(), abs=1e-8)
