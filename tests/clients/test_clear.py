"""`clear` gives the published numbers, from a file and from standard input, in the format of docs/protocol.md."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]

TOLERANCE = 1e-9

Vector = tuple[list[list[float]], list[float]]  # every agent's distribution and bid

# Vectors of docs/mechanism.md. A is the example of the token auction's authors, D two agents who share no token.
A: Vector = ([[0.8, 0.2], [1.0, 0.0], [0.0, 1.0]], [1, 2, 2])
B: Vector = ([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5]], [1, 2, 0.5])
D: Vector = ([[1.0, 0.0], [0.0, 1.0]], [1, 1])


def request(vector: Vector, **fields: Any) -> dict[str, Any]:
    """What `clear` reads: agents a, b, c, … of a vector."""
    agents = [
        {"id": "abc"[i], "bid": bid, "distribution": row} for i, (row, bid) in enumerate(zip(*vector, strict=True))
    ]
    return {"agents": agents, **fields}


@pytest.fixture
def clear(cli: Cli) -> Callable[..., dict[str, Any]]:
    """`clear(vector, field=value)`: what the command answers to a request on standard input."""

    def run(vector: Vector, **fields: Any) -> dict[str, Any]:
        answer = cli("clear", stdin=json.dumps(request(vector, **fields)).encode()).json
        assert isinstance(answer, dict)
        return answer

    return run


Clear = Callable[..., dict[str, Any]]


def column(answer: dict[str, Any], name: str) -> list[Any]:
    return [agent[name] for agent in answer["agents"]]


def close(*expected: float) -> Any:
    """Equal to within 1e-9, and no looser for large numbers."""
    return pytest.approx(list(expected), abs=TOLERANCE, rel=0)


AGGREGATES: list[tuple[str, Vector, str, tuple[float, ...]]] = [
    ("A", A, "linear", (0.56, 0.44)),
    ("B", B, "linear", (0.2928571429, 0.4357142857, 0.2714285714)),
    ("B", B, "log_linear", (0.2419793767, 0.4709645281, 0.2870560952)),
    ("D", D, "linear", (0.5, 0.5)),
]

PAYMENTS: list[tuple[str, Vector, str, str, tuple[float, ...]]] = [
    ("A", A, "linear", "first_price", (1, 2, 2)),
    ("A", A, "linear", "free", (0, 0, 0)),
    ("A", A, "linear", "expected", (0.0277722616, 0.2438163723, 0.3103117465)),
    ("A", A, "linear", "kl_clarke", (0.0290093724, 0.5302664965, 1.0528978167)),
    ("B", B, "linear", "expected", (0.0723300800, 0.1862117700, 0.0090348296)),
    ("B", B, "linear", "kl_clarke", (0.1870653366, 0.2399580185, 0.0119060266)),
    ("B", B, "log_linear", "expected", (0.0565378699, 0.2171472848, 0.0093319511)),
    ("B", B, "log_linear", "kl_clarke", (0.1273332138, 0.3280728028, 0.0107596941)),
    ("B", B, "log_linear", "first_price", (1, 2, 0.5)),
    ("D", D, "linear", "expected", (math.log(2) - 0.5, math.log(2) - 0.5)),
]


@pytest.mark.parametrize(("vector", "rule", "expected"), [row[1:] for row in AGGREGATES])
def test_clear_gives_the_published_aggregate(
    clear: Clear, vector: Vector, rule: str, expected: tuple[float, ...]
) -> None:
    assert clear(vector, rule=rule, pricing="free")["aggregate"] == close(*expected)


@pytest.mark.parametrize(
    ("vector", "rule", "pricing", "expected"),
    [row[1:] for row in PAYMENTS],
    ids=[f"{name}-{rule}-{pricing}" for name, _, rule, pricing, _ in PAYMENTS],
)
def test_clear_gives_the_published_payments(
    clear: Clear, vector: Vector, rule: str, pricing: str, expected: tuple[float, ...]
) -> None:
    answer = clear(vector, rule=rule, pricing=pricing)
    assert column(answer, "payment") == close(*expected)


@pytest.mark.parametrize(("vector", "expected"), [(B, (0.57, 0.45, 0.2666666667)), (D, (1.0, 1.0))])
def test_clear_gives_the_published_distances(clear: Clear, vector: Vector, expected: tuple[float, ...]) -> None:
    assert column(clear(vector), "tv") == close(*expected)


def test_clear_gives_the_published_chance_to_pay(clear: Clear) -> None:
    """P(pay > 0) of agent i is TV(q, r_i), and r_i is what the command gives without i."""
    distributions, bids = A
    q = clear(A)["aggregate"]
    chances = []
    for i in range(3):
        others = [distributions[:i] + distributions[i + 1 :], bids[:i] + bids[i + 1 :]]
        r = clear((others[0], others[1]))["aggregate"]
        chances.append(math.fsum(max(0.0, a - b) for a, b in zip(q, r, strict=True)))
    assert chances == pytest.approx([0.06, 0.2933333333, 0.3733333333], abs=TOLERANCE)


@pytest.mark.parametrize(
    ("price", "expected"), [(0.9, 0.7651391162), (0.5, 0.0741935484), (0.4439, 0.0), (0.2, 0.0), (0.0, 0.0)]
)
def test_clear_prices_the_published_draw(clear: Clear, price: float, expected: float) -> None:
    answer = clear(B, uniforms={"token": 0.1, "price": price})
    first = answer["agents"][0]
    assert answer["token"] == 0
    assert answer["probability"] == pytest.approx(0.2928571429, abs=TOLERANCE)
    assert (first["probability"], first["probability_without"]) == pytest.approx((0.7, 0.13), abs=TOLERANCE)
    assert first["payment"] == first["critical_bid"] == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 0), (0.2928, 0), (0.2929, 1), (0.72, 1), (0.73, 2), (0.9999, 2)])
def test_clear_draws_by_the_inverse_of_the_cdf(clear: Clear, uniform: float, token: int) -> None:
    assert clear(B, uniforms={"token": uniform})["token"] == token


def test_clear_names_the_token_that_would_have_come(clear: Clear) -> None:
    """Agent 1 over-weights token 0 alone: below its critical bid token 1 or 2 comes, as the third uniform says."""
    chosen = [
        clear(B, uniforms={"token": 0.1, "price": 0.9, "counterfactual": x})["agents"][0] for x in (0.0, 0.5, 0.9999)
    ]
    assert {agent["counterfactual_token"] for agent in chosen} == {1, 2}
    assert clear(B, uniforms={"token": 0.1, "price": 0.1})["agents"][0]["counterfactual_token"] is None


def test_clear_shares_out_influence(clear: Clear) -> None:
    answer = clear(B, uniforms={"token": 0.1})
    assert column(answer, "influence") == close(*[x / 1.025 for x in (0.7, 0.2, 0.125)])


def test_clear_refuses_log_linear_on_a_in_one_line(cli: Cli) -> None:
    code, message = cli("clear", stdin=json.dumps(request(A, rule="log_linear")).encode()).refusal
    assert code == "no_common_support"
    assert "floor" in message


def test_clear_gives_log_linear_a_floor(clear: Clear) -> None:
    answer = clear(A, rule="log_linear", floor=0.01)
    assert math.fsum(answer["aggregate"]) == pytest.approx(1, abs=TOLERANCE)
    assert min(answer["aggregate"]) > 0


def test_clear_reads_a_file_and_standard_input_alike(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    content = json.dumps(request(B, seed=3))
    path.write_text(content, encoding="utf-8")
    from_file = cli("clear", path).json
    assert from_file == cli("clear", stdin=content.encode()).json == cli("clear", "-", stdin=content.encode()).json
    path.write_text(content, encoding="utf-8-sig")  # some editors put a byte order mark in front
    assert cli("clear", path).json == from_file


def test_clear_answers_with_exactly_the_documented_fields(clear: Clear) -> None:
    answer = clear(B)
    assert set(answer) == {"aggregate", "token", "probability", "guarantee", "agents"}
    assert set(answer["agents"][0]) == {
        "id",
        "status",
        "payment",
        "critical_bid",
        "influence",
        "tv",
        "probability",
        "probability_without",
        "kl",
        "counterfactual_token",
    }
    assert column(answer, "id") == ["a", "b", "c"]
    assert isinstance(answer["token"], int)
    assert answer["guarantee"].startswith("linear/coupled/critical_bid: monotone")


def test_clear_has_defaults_for_everything_but_the_agents(clear: Clear) -> None:
    assert clear(B) == clear(
        B, rule="linear", sampler="coupled", pricing="critical_bid", seed=0, step=0, allow_unsafe=False
    )
    assert clear(B) == clear(B, reference=None, uniforms=None, floor=None)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["coupled", "race"])
def test_clear_repeats_a_seed_and_changes_with_seed_and_step(clear: Clear, sampler: str) -> None:
    def tokens(**fields: int) -> list[int]:
        return [
            clear(B, sampler=sampler, **{"seed": 5, "step": 5, name: k})["token"] for name in fields for k in range(4)
        ]

    assert tokens(seed=1) == tokens(seed=1)
    assert tokens(step=1) == tokens(step=1)
    assert len(set(tokens(seed=1))) > 1 < len(set(tokens(step=1)))


def test_clear_takes_the_largest_seed_and_step(clear: Clear) -> None:
    assert clear(B, seed=2**256 - 1, step=2**64 - 1)["token"] in (0, 1, 2)


@pytest.mark.slow
def test_clear_charges_at_most_one_agent_in_a_race(clear: Clear) -> None:
    paid = [column(clear(B, sampler="race", seed=seed), "payment") for seed in range(12)]
    assert all(sum(payment > 0 for payment in row) <= 1 for row in paid)
    assert all(payment <= bid for row in paid for payment, bid in zip(row, B[1], strict=True))
    assert any(sum(row) > 0 for row in paid)


def test_clear_prices_the_race_in_expectation_as_the_coupled_draw(clear: Clear) -> None:
    coupled, race = (
        column(clear(B, sampler=sampler, pricing="expected"), "payment") for sampler in ("coupled", "race")
    )
    assert coupled == race


def test_clear_never_charges_the_reference(clear: Clear) -> None:
    """A reference in the place of an agent leaves q as it was, and is not among those who pay."""
    distributions, bids = B
    reference = {"weight": bids[2], "distribution": distributions[2]}
    with_reference = clear((distributions[:2], bids[:2]), reference=reference, pricing="expected")
    assert with_reference["aggregate"] == close(*clear(B)["aggregate"])
    assert column(with_reference, "id") == ["a", "b"]
    assert column(with_reference, "payment") == close(0.0723300800, 0.1862117700)


def test_clear_charges_one_agent_nothing_unless_a_reference_takes_part(clear: Clear) -> None:
    alone: Vector = ([[0.7, 0.2, 0.1]], [1])
    assert column(clear(alone, pricing="expected"), "payment") == [0.0]
    reference = {"weight": 1, "distribution": [0.1, 0.1, 0.8]}
    assert column(clear(alone, pricing="expected", reference=reference), "payment")[0] > 0


def test_clear_lets_a_reference_stand_in_where_nobody_bids(clear: Clear) -> None:
    nobody: Vector = (B[0], [0, 0, 0])
    answer = clear(nobody, reference={"weight": 2, "distribution": [0.25, 0.5, 0.25]})
    assert answer["aggregate"] == close(0.25, 0.5, 0.25)
    assert column(answer, "payment") == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_clear_scales_payments_with_the_bids(clear: Clear, scale: float) -> None:
    scaled = clear((B[0], [bid * scale for bid in B[1]]), pricing="expected")
    assert scaled["aggregate"] == close(*clear(B)["aggregate"])
    assert [payment / scale for payment in column(scaled, "payment")] == close(0.07233008, 0.18621177, 0.0090348296)


def test_clear_marks_what_it_was_told_to_allow(clear: Clear) -> None:
    answer = clear(B, rule="log_linear", sampler="race", pricing="first_price", allow_unsafe=True)
    assert "UNSAFE" in answer["guarantee"]


def test_clear_keeps_an_identifier_in_any_script(cli: Cli) -> None:
    content = request(D)
    content["agents"][0]["id"] = "Ålpha 航空 🛫"
    assert cli("clear", stdin=json.dumps(content).encode()).json["agents"][0]["id"] == "Ålpha 航空 🛫"


@pytest.mark.slow
def test_clear_takes_a_large_vocabulary(clear: Clear) -> None:
    size = 50_000
    even = [1 / size] * size
    answer = clear(([even, even[::-1]], [1, 3]), pricing="expected")
    assert len(answer["aggregate"]) == size
    assert column(answer, "payment") == close(0, 0)
