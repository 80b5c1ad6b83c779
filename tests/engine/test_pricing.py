"""Payments: the worked vectors of docs/mechanism.md by hand, Monte Carlo means, extreme bids, and exact zeros.

Monte Carlo tests have fixed seeds and allow 5 standard errors: a false alarm below 1e-6 had the seed been free.
"""

from __future__ import annotations

import mpmath
import pytest
import torch
from torch import Tensor

from tokenauction.engine.clearing import Clearing, clear
from tokenauction.engine.guarantees import Pricing, Rule
from tokenauction.engine.pricing import critical_bid_linear, expected_linear
from tokenauction.engine.randomness import CoupledRandomness, RaceRandomness

A = [[0.8, 0.2], [1.0, 0.0], [0.0, 1.0]], [1.0, 2.0, 2.0]
B = [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5]], [1.0, 2.0, 0.5]
D = [[1.0, 0.0], [0.0, 1.0]], [1.0, 1.0]
DRAWS = 200_000


def tensor(x: object) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def settle(
    auction: tuple[list[list[float]], list[float]], rule: Rule, pricing: Pricing, scale: float = 1.0
) -> Clearing:
    p, weights = tensor([auction[0]]), tensor([auction[1]]) * scale
    half = CoupledRandomness(tensor([0.5]), tensor([0.5]), torch.full_like(weights, 0.5))
    return clear(p, weights, torch.ones_like(weights, dtype=torch.bool), half, rule=rule, pricing=pricing)


def settle_many(
    auction: tuple[list[list[float]], list[float]], rule: Rule, num_draws: int = DRAWS, **options: object
) -> Clearing:
    rng = torch.Generator().manual_seed(12)
    p, weights = tensor(auction[0]).expand(num_draws, -1, -1), tensor(auction[1]).expand(num_draws, -1)
    columns = (torch.rand(num_draws, generator=rng, dtype=torch.float64) for _ in range(2))
    randomness = CoupledRandomness(*columns, torch.rand(weights.shape, generator=rng, dtype=torch.float64))
    return clear(p, weights, torch.ones_like(weights, dtype=torch.bool), randomness, rule=rule, **options)  # type: ignore[arg-type]


def assert_mean(samples: Tensor, expected: Tensor) -> None:
    error = samples.std(0) / len(samples) ** 0.5
    assert bool(((samples.mean(0) - expected).abs() <= 5 * error + 1e-12).all())


@pytest.mark.parametrize(
    ("auction", "rule", "pricing", "payments"),
    [
        (A, "linear", "expected", (0.0277722616, 0.2438163723, 0.3103117465)),
        (A, "linear", "kl_clarke", (0.0290093724, 0.5302664965, 1.0528978167)),
        (A, "linear", "first_price", (1, 2, 2)),
        (A, "linear", "free", (0, 0, 0)),
        (B, "linear", "expected", (0.0723300800, 0.1862117700, 0.0090348296)),
        (B, "linear", "kl_clarke", (0.1870653366, 0.2399580185, 0.0119060266)),
        (B, "log_linear", "expected", (0.0565378699, 0.2171472848, 0.0093319511)),
        (B, "log_linear", "kl_clarke", (0.1273332138, 0.3280728028, 0.0107596941)),
        (D, "linear", "expected", (0.1931471806, 0.1931471806)),
    ],
)
def test_payments_give_the_worked_vectors(
    auction: tuple[list[list[float]], list[float]], rule: Rule, pricing: Pricing, payments: tuple[float, ...]
) -> None:
    assert settle(auction, rule, pricing).payment[0].tolist() == pytest.approx(payments, abs=1e-9)


@pytest.mark.parametrize(
    ("u", "v", "z"), [(0.9, 0.2635714286, 0.7651391162), (0.5, 0.1464285714, 0.0741935484), (0.4439, 0.1299992857, 0.0)]
)
def test_critical_bid_under_linear_gives_the_worked_vector(u: float, v: float, z: float) -> None:
    p, weights = tensor([B[0]]), tensor([B[1]])
    randomness = CoupledRandomness(tensor([0.1]), tensor([u]), torch.zeros_like(weights))
    cleared = clear(p, weights, torch.ones_like(weights, dtype=torch.bool), randomness)
    assert cleared.token.item() == 0
    assert cleared.price_threshold.item() == pytest.approx(v, abs=1e-9)
    assert cleared.critical_bid[0, 0].item() == pytest.approx(z, abs=1e-9)
    assert (cleared.r_token[0, 0].item(), cleared.q_token.item()) == pytest.approx((0.13, 0.2928571429), abs=1e-9)


@pytest.mark.slow
def test_critical_bid_is_where_the_token_s_probability_is_the_threshold() -> None:
    for rule in ("linear", "log_linear"):
        cleared = settle_many(B, rule, num_draws=300)
        for auction, agent in cleared.critical_bid.nonzero().tolist():
            z, token = cleared.critical_bid[auction, agent].item(), cleared.token[auction].item()
            bids = [*B[1]]
            bids[agent] = z
            q = settle((B[0], bids), rule, "free").aggregate[0, token]
            assert q.item() == pytest.approx(cleared.price_threshold[auction].item(), rel=1e-11)


def test_critical_bid_under_log_linear_can_be_checked_from_five_numbers() -> None:
    cleared = settle_many(B, "log_linear", num_draws=300)
    paid = cleared.critical_bid > 0
    assert torch.equal(cleared.log_partition.isnan(), ~paid)
    others = tensor(B[1]).sum() - tensor(B[1])
    w = cleared.critical_bid / (cleared.critical_bid + others)
    log_v = w * cleared.p_token.log() + (1 - w) * cleared.r_token.log() - cleared.log_partition
    assert torch.allclose(log_v[paid], cleared.price_threshold.unsqueeze(-1).log().expand_as(paid)[paid], atol=1e-13)


@pytest.mark.slow
def test_chance_to_pay_gives_the_worked_vector() -> None:
    paid = (settle_many(A, "linear").critical_bid > 0).double()
    assert_mean(paid, tensor([0.06, 0.88 / 3, 1.12 / 3]))


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["linear", "log_linear"])
@pytest.mark.parametrize("bids", [[1.0, 2.0, 0.5], [10.0, 0.1, 0.1]])
def test_critical_bids_have_the_expected_payment_as_their_mean(rule: Rule, bids: list[float]) -> None:
    num_draws = DRAWS if rule == "linear" else DRAWS // 2
    cleared = settle_many((B[0], bids), rule, num_draws)
    assert_mean(cleared.critical_bid, settle((B[0], bids), rule, "expected").payment[0])


@pytest.mark.slow
def test_critical_bids_under_log_linear_keep_their_mean_on_the_path_with_a_hump() -> None:
    hump = [[0.9899, 0.01, 0.0001], [0.0001, 0.01, 0.9899]], [1.0, 1.0]
    cleared = settle_many(hump, "log_linear", 50_000)
    assert_mean(cleared.critical_bid, settle(hump, "log_linear", "expected").payment[0])


@pytest.mark.slow
def test_critical_bids_of_the_race_have_the_documented_mean() -> None:
    rng = torch.Generator().manual_seed(5)
    weights = tensor(B[1])
    clocks = [-torch.rand(DRAWS, 3, generator=rng, dtype=torch.float64).log() for _ in range(2)]
    p, pays = tensor(B[0]).expand(DRAWS, -1, -1), torch.ones(DRAWS, 3, dtype=torch.bool)
    cleared = clear(p, weights.expand(DRAWS, -1), pays, RaceRandomness(*clocks), sampler="race")
    assert bool((cleared.payment.count_nonzero(-1) <= 1).all())
    # E_i = P(Y_i ≠ Y_-i) f(b_i, B_-i): the chance that i and a rival drawn by weight have unlike tokens of their own.
    differ = (cleared.agent_token.unsqueeze(-1) != cleared.agent_token.unsqueeze(-2)).double().mean(0)
    others = weights.sum() - weights
    chance = (differ * weights).sum(-1) / others
    assert_mean(cleared.payment, expected_linear(chance.unsqueeze(0), weights.unsqueeze(0), others.unsqueeze(0))[0])


@pytest.mark.parametrize("x", [1e-24, 1e-9, 9.9e-5, 1.01e-4, 0.3, 7.0, 1e12, 1e24])
def test_expected_under_linear_keeps_its_digits_at_any_bid(x: float) -> None:
    with mpmath.workdps(60):
        exact = float(mpmath.log1p(x) - mpmath.mpf(x) / (1 + mpmath.mpf(x)))
    value = expected_linear(tensor([[1.0]]), tensor([[x]]), tensor([[1.0]]))
    assert value.item() == pytest.approx(exact, rel=5e-12)


@pytest.mark.parametrize("share", [1e-9, 1e-4, 0.3, 1 - 1e-9])
@pytest.mark.parametrize("rule", ["linear", "log_linear"])
def test_kl_clarke_keeps_its_digits_at_any_bid(rule: Rule, share: float) -> None:
    auction = [B[0][0], B[0][1]], [share, 1 - share]
    with mpmath.workdps(60):
        p, r = ([mpmath.mpf(x) for x in row] for row in auction[0])
        b, rest = (mpmath.mpf(x) for x in auction[1])
        p, r = [x / mpmath.fsum(p) for x in p], [x / mpmath.fsum(r) for x in r]
        lam = b / (b + rest)
        if rule == "linear":
            q = [lam * x + (1 - lam) * y for x, y in zip(p, r, strict=True)]
            loss = mpmath.fsum(y * mpmath.log(y / x) for x, y in zip(q, r, strict=True))
        else:
            raw = [x**lam * y ** (1 - lam) for x, y in zip(p, r, strict=True)]
            q = [x / mpmath.fsum(raw) for x in raw]
            loss = mpmath.fsum(x * mpmath.log(x / y) for x, y in zip(q, r, strict=True))
        exact = float(rest * loss)
    assert settle(auction, rule, "kl_clarke").payment[0, 0].item() == pytest.approx(
        exact, rel=1e-6 if share < 1e-8 else 1e-10
    )


def test_kl_clarke_counts_tokens_that_one_side_lacks() -> None:
    lacking = [[0.5, 0.5, 0.0], [0.0, 0.4, 0.6]], [1.0, 1.0]
    linear = settle(lacking, "linear", "kl_clarke")
    r, q = tensor([0.4, 0.6]), tensor([0.45, 0.3])
    assert linear.kl[0, 0].item() == pytest.approx((r * (r / q).log()).sum().item(), rel=1e-12)
    log_linear = settle(lacking, "log_linear", "kl_clarke")
    assert log_linear.kl[0].tolist() == pytest.approx([-torch.tensor(0.4).log().item(), torch.tensor(2.0).log().item()])


@pytest.mark.parametrize("rule", ["linear", "log_linear"])
@pytest.mark.parametrize("pricing", ["expected", "kl_clarke", "first_price", "critical_bid"])
def test_payments_come_in_the_unit_of_the_bids(rule: Rule, pricing: Pricing) -> None:
    whole, micros = (settle(B, rule, pricing, scale) for scale in (1.0, 1e6))
    assert torch.allclose(micros.payment, whole.payment * 1e6, rtol=1e-9, atol=0)


@pytest.mark.parametrize("rule", ["linear", "log_linear"])
@pytest.mark.parametrize("pricing", ["expected", "kl_clarke", "critical_bid", "free"])
def test_agent_alone_or_without_weight_pays_exactly_nothing(rule: Rule, pricing: Pricing) -> None:
    alone = settle(([B[0][0], B[0][1]], [3.0, 0.0]), rule, pricing)
    assert alone.payment.tolist() == [[0, 0]]
    assert alone.influence.tolist() == [[1, 0]]
    dropped = settle((B[0], [1.0, 0.0, 2.0]), rule, pricing)
    assert dropped.payment[0, 1] == 0 and dropped.influence[0, 1] == 0 and dropped.tv[0, 1] == 0


@pytest.mark.parametrize("bids", [(1e-12, 1.0, 1e12), (1e12, 1e-12, 1e-12), (1e-100, 1e100, 1.0), (1e-12,) * 3])
@pytest.mark.parametrize("rule", ["linear", "log_linear"])
@pytest.mark.parametrize("pricing", ["critical_bid", "expected", "kl_clarke"])
def test_payments_are_finite_and_not_negative_at_extreme_bids(
    rule: Rule, pricing: Pricing, bids: tuple[float, ...]
) -> None:
    payment = settle((B[0], list(bids)), rule, pricing).payment
    assert bool(payment.isfinite().all()) and bool((payment >= 0).all())
    if pricing != "kl_clarke":
        assert bool((payment <= tensor([bids])).all())


def test_critical_bid_does_not_exceed_the_bid_when_rounding_lifts_the_threshold_to_p() -> None:
    z = critical_bid_linear(tensor([[0.5]]), tensor([[0.25]]), tensor([0.5]), tensor([[3.0]]), tensor([[1.0]]))
    assert z.item() == 3.0
