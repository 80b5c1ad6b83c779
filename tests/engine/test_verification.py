"""A receipt holds as written, and no longer after any change, also when the chain is hashed again over the change."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenauction.engine.errors import ReceiptError
from tokenauction.engine.policy import Policy
from tokenauction.engine.receipt import content_hash, parse_receipt, read_receipt, write_receipt
from tokenauction.engine.replay import replay
from tokenauction.engine.spec import AuctionSpec
from tokenauction.engine.verification import verify

World = Any  # tests/engine/conftest.py
Spec = Callable[..., AuctionSpec]
Lines = list[dict[str, Any]]


@pytest.fixture
def lines(world: World, spec_of: Spec) -> Lines:
    """A receipt of a three-agent auction with a reference, twelve steps at most."""
    settled = world.run(spec_of(1000, 2500, 700, reference_weight_micros=300, seed=11))[-1]
    return [dict(line) for line in settled.receipt]


def rehashed(lines: Lines) -> Lines:
    """The same lines with every hash made to fit: what a forger would hand in."""
    previous = None
    for line in lines:
        if previous is not None:
            line["previous"] = previous
        previous = line["hash"] = content_hash(line)
    return lines


def test_verify_says_the_level_it_reached(lines: Lines) -> None:
    verdict = verify(lines)
    assert verdict.holds
    assert str(verdict) == f"holds: {len(lines) - 2} steps, checked at the level of arithmetic"


def test_verify_holds_after_a_file(lines: Lines, tmp_path: Path) -> None:
    write_receipt(tmp_path / "receipt.jsonl", lines)
    assert read_receipt(tmp_path / "receipt.jsonl") == lines


def test_read_receipt_stops_at_its_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: Lines) -> None:
    file = tmp_path / "receipt.jsonl"
    write_receipt(file, lines)
    monkeypatch.setattr("tokenauction.engine.receipt.MAX_LINES", len(lines))
    assert read_receipt(file) == lines
    monkeypatch.setattr("tokenauction.engine.receipt.MAX_LINES", len(lines) - 1)
    with pytest.raises(ReceiptError, match=f"more than {len(lines) - 1} lines"):
        read_receipt(file)
    monkeypatch.setattr("tokenauction.engine.receipt.MAX_LINE", 100)
    with pytest.raises(ReceiptError, match="line 1 is longer than the limit of 100"):
        read_receipt(file)
    with pytest.raises(ReceiptError, match="line 1 is longer"):
        read_receipt(Path("/dev/zero"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(choice=st.randoms(use_true_random=False))
def test_verify_notices_any_changed_digit_and_names_the_line(lines: Lines, choice: Any) -> None:
    number = choice.randrange(len(lines))
    text = json.dumps(lines[number])
    place = choice.choice([i for i, c in enumerate(text) if c.isdigit()])
    digit = choice.choice([d for d in "0123456789" if d != text[place]])
    try:
        changed = json.loads(text[:place] + digit + text[place + 1 :])
    except ValueError:
        return  # a leading zero: the file is no longer JSON, which reading refuses
    if changed == lines[number]:
        return  # the digit was below float64's precision, or inside an exponent of zero
    forged = [*lines[:number], changed, *lines[number + 1 :]]
    verdict = verify(forged)
    assert not verdict.holds
    named = {"auction": 0, "settlement": len(lines) - 1}.get(verdict.where)
    named = named if named is not None else int(verdict.where.split()[1]) + 1
    assert named in (number, number + 1)


FORGERIES: dict[str, tuple[str, Callable[[dict[str, Any]], None]]] = {
    "token": ("step 2", lambda line: line.update(token=(line["token"] + 1) % 12)),
    "text": ("step 2", lambda line: line.update(text="~")),
    "key": ("step 2", lambda line: line.update(key="0" * 64)),
    "bid": ("step 2", lambda line: line["bids"].__setitem__(0, 999)),
    "effective": ("step 2", lambda line: line["effective"].__setitem__(0, 999)),
    "status": ("step 2", lambda line: line["status"].__setitem__(0, "absent")),
    "q": ("step 2", lambda line: line.update(q=line["q"] * 1.001)),
    "cdf": ("step 2", lambda line: line.update(cdf_below=line["cdf_below"] + 1.01)),
    "p": ("step 2", lambda line: line["p"].__setitem__(1, line["p"][1] * 1.001)),
    "r": ("step 2", lambda line: line["r"].__setitem__(1, line["r"][1] * 1.001)),
    "critical bid": ("step 2", lambda line: line["critical_bids"].__setitem__(1, line["critical_bids"][1] + 0.01)),
    "owed": ("step 2", lambda line: line["owed"].__setitem__(1, line["owed"][1] + 0.01)),
    "payment": ("step 2", lambda line: line["payments"].__setitem__(1, line["payments"][1] + 0.01)),
    "charge": ("step 2", lambda line: line["charges"].__setitem__(1, line["charges"][1] + 1)),
    "clipped": ("step 2", lambda line: line["clipped"].__setitem__(1, True)),
    "step": ("step 2", lambda line: line.update(step=9)),
    "missing": ("step 2", lambda line: line.pop("p")),
    "short": ("step 2", lambda line: line["p"].pop()),
    "kind": ("step 2", lambda line: line.update(q="much")),
    "nan": ("step 2", lambda line: line.update(q=[])),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_verify_names_a_forged_step_though_the_chain_was_hashed_again(lines: Lines, name: str) -> None:
    where, forge = FORGERIES[name]
    forged = copy.deepcopy(lines)
    forge(forged[3])
    verdict = verify(rehashed(forged))
    assert not verdict.holds
    assert verdict.where == where, verdict


SETTLEMENT_FORGERIES: dict[str, Callable[[dict[str, Any]], None]] = {
    "totals": lambda line: line["totals_micros"].__setitem__(0, line["totals_micros"][0] + 1),
    "exact": lambda line: line["exact_micros"].__setitem__(0, line["exact_micros"][0] + 0.1),
    "tokens": lambda line: line.update(num_tokens=99),
    "posted": lambda line: line.update(posted=False),
    "reason": lambda line: line.update(finish_reason="because"),
}


@pytest.mark.parametrize("name", SETTLEMENT_FORGERIES)
def test_verify_notices_a_forged_settlement_though_the_chain_was_hashed_again(lines: Lines, name: str) -> None:
    forged = copy.deepcopy(lines)
    SETTLEMENT_FORGERIES[name](forged[-1])
    assert verify(rehashed(forged)).where == "settlement"


@pytest.mark.parametrize("field", ["seed", "nonce"])
def test_verify_notices_another_seed_or_nonce(lines: Lines, field: str) -> None:
    forged = copy.deepcopy(lines)
    forged[-1][field] = "ab" * 32
    assert verify(rehashed(forged)).where == "auction"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("numerics", "bf16"),
        ("rows", ["x"]),
        ("commitment", "0" * 64),
        ("guarantee", "the best"),
        ("version", 2),
        ("spec", {}),
    ],
)
def test_verify_notices_a_forged_header_though_the_chain_was_hashed_again(
    lines: Lines, name: str, value: object
) -> None:
    forged = copy.deepcopy(lines)
    forged[0][name] = value
    assert verify(rehashed(forged)).where == "auction"


def test_verify_notices_a_missing_a_doubled_and_a_swapped_step(lines: Lines) -> None:
    for forged in (
        lines[:2] + lines[3:],
        lines[:3] + lines[2:],
        [lines[0], lines[2], lines[1], *lines[3:]],
        lines[:-1],
        lines[1:],
        lines[:1],
    ):
        assert not verify(copy.deepcopy(forged)).holds
        assert not verify(rehashed(copy.deepcopy(forged))).holds


def test_verify_pins_the_published_head(lines: Lines) -> None:
    assert verify(lines, head=lines[-1]["hash"]).holds
    assert verify(lines, head="0" * 64).where == "settlement"


def test_verify_recomputes_everything_from_stored_distributions(world: World, spec_of: Spec) -> None:
    settled = world.run(spec_of(1000, 2500, rule="log_linear", pricing="expected", seed=5), store_distributions=True)[
        -1
    ]
    stored = [dict(line) for line in settled.receipt]
    assert verify(stored).level == "distributions"
    forged = copy.deepcopy(stored)
    forged[2]["owed"][0] *= 0.99
    forged[2]["payments"][0] *= 0.99
    verdict = verify(rehashed(forged))
    assert not verdict.holds, "an expected log-linear payment follows from whole distributions only"
    swapped = copy.deepcopy(stored)
    swapped[2]["distributions"].reverse()
    assert verify(swapped).where == "step 1"


def test_replay_names_the_first_step_that_parts_from_the_model(world: World, spec_of: Spec) -> None:
    spec = spec_of(1000, 2500, 700, reference_weight_micros=300, seed=11)
    here = world()
    here.submit(spec)
    recorded = [dict(line) for line in here.finish()[-1].receipt]
    prompts, model = here.prompts(spec), here.decoder.model
    assert replay(recorded, model, prompts, Policy()).level == "model"
    assert replay(recorded, model, prompts, Policy()).holds
    changed = copy.deepcopy(recorded)
    changed[3]["p"][0] += 0.01
    assert replay(changed, model, prompts, Policy()).where == "step 2"
    assert replay(recorded, model, prompts[::-1], Policy()).where == "auction"
    assert model.free_rows == model.max_rows


@pytest.mark.parametrize(
    "rows",
    [[], [""], ["{"], ["[]"], ["3"], ['{"kind": "other"}'], ['{"kind": "step", "q": NaN}'], ["[" * 100_000], ["\x00"]],
)
def test_parse_receipt_refuses_what_is_no_receipt(rows: list[str]) -> None:
    with pytest.raises(ReceiptError):
        parse_receipt(rows)


def test_read_receipt_refuses_a_missing_or_binary_file(tmp_path: Path) -> None:
    with pytest.raises(ReceiptError, match="cannot be read"):
        read_receipt(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReceiptError, match="UTF-8"):
        read_receipt(tmp_path / "binary")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(
    place=st.integers(0, 20),
    junk=st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
        lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x, max_size=3),
        max_leaves=4,
    ),
    choice=st.randoms(use_true_random=False),
)
def test_verify_never_raises_whatever_a_field_holds(lines: Lines, place: int, junk: object, choice: Any) -> None:
    forged = copy.deepcopy(lines)
    line = forged[place % len(forged)]
    name = choice.choice([key for key in line if key != "kind"])
    line[name] = junk
    with contextlib.suppress(TypeError, ValueError):  # junk that cannot be hashed is wrong as it is
        forged = rehashed(forged)
    assert not verify(forged).holds or junk == lines[place % len(lines)].get(name) or name in ("hash", "previous")
