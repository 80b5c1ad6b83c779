"""A receipt holds as written, and no longer after any change, also when the chain is hashed again over the change."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenauction.engine.auction import Auction
from tokenauction.engine.clearing import clear
from tokenauction.engine.errors import ReceiptError
from tokenauction.engine.policy import Policy
from tokenauction.engine.randomness import coupled_randomness
from tokenauction.engine.receipt import content_hash, header_line, parse_receipt, read_receipt, write_receipt
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
    "spent": lambda line: line.update(finish_reason="budget_spent"),
    "sentences": lambda line: line.update(finish_reason="sentences"),
    "no bid": lambda line: line.update(finish_reason="no_bid"),  # the reference had weight to the end
    "text": lambda line: line.update(text=line["text"] + " Better: call 555."),
    "voids": lambda line: line.update(voids=["a bid changed in mid-text"]),
}


@pytest.mark.parametrize("name", SETTLEMENT_FORGERIES)
def test_verify_notices_a_forged_settlement_though_the_chain_was_hashed_again(lines: Lines, name: str) -> None:
    forged = copy.deepcopy(lines)
    SETTLEMENT_FORGERIES[name](forged[-1])
    assert verify(rehashed(forged)).where == "settlement"


def test_verify_notices_that_a_text_did_not_run_to_its_limit(world: World, spec_of: Spec) -> None:
    """A receipt cut off behind a step, with a settlement that fits it but for the reason."""
    runs = (world.run(spec_of(1000, 2500, seed=seed, max_tokens=12))[-1] for seed in range(99))
    whole = next([dict(line) for line in run.receipt] for run in runs if run.fields["num_tokens"] > 6)
    kept = whole[:5]
    steps = kept[1:]
    settlement = copy.deepcopy(whole[-1])
    settlement.update(
        num_tokens=4,
        token_ids=[line["token"] for line in steps],
        text="".join(line["text"] for line in steps),
        exact_micros=[sum(line["payments"][row] for line in steps) for row in range(2)],
        totals_micros=[sum(line["charges"][row] for line in steps) for row in range(2)],
    )
    for reason, holds in (("max_tokens", False), ("budget_spent", False), ("cancelled", True)):
        settlement["finish_reason"] = reason
        assert verify(rehashed(copy.deepcopy([*kept, settlement]))).holds == holds


def test_verify_names_the_step_that_follows_a_text_that_had_ended(world: World, spec_of: Spec) -> None:
    runs = ([dict(line) for line in world.run(spec_of(1000, 2500, seed=seed))[-1].receipt] for seed in range(99))
    dotted = next(run for run in runs if any("." in line["text"] for line in run[1:-3]))
    assert verify(dotted).holds
    [limit, *_] = [line["step"] + 1 for line in dotted[1:-1] if "." in line["text"]]
    header = copy.deepcopy(dotted[0])
    header["spec"]["max_sentences"] = 1
    seed = int(dotted[-1]["seed"], 16)
    header = header_line(
        {k: v for k, v in header.items() if k not in ("kind", "version", "commitment", "hash")},
        seed,
        bytes.fromhex(dotted[-1]["nonce"]),
    )
    verdict = verify(rehashed([header, *copy.deepcopy(dotted[1:])]))
    assert not verdict.holds
    assert int(verdict.where.split()[1]) >= limit


@pytest.mark.parametrize("source", ["drawn by me", "platform", None, ["caller"]])
def test_verify_refuses_a_seed_of_unknown_source(lines: Lines, source: object) -> None:
    forged = copy.deepcopy(lines)
    forged[0]["seed_source"] = source
    assert verify(rehashed(forged)).where == "auction"


def test_verify_names_the_changed_step_however_far_the_chain_was_hashed_again(lines: Lines) -> None:
    for num_rehashed in range(1, len(lines)):
        forged = copy.deepcopy(lines)
        forged[1]["payments"][0] += 1
        rehashed(forged[: 1 + num_rehashed])
        assert verify(forged).where == "step 0"


@pytest.mark.parametrize("name", ["hash", "previous", "step", "key", "text"])
def test_verify_names_the_step_that_lacks_a_field(lines: Lines, name: str) -> None:
    forged = copy.deepcopy(lines)
    del forged[4][name]
    assert verify(forged).where == "step 3"


@pytest.mark.parametrize("depth", [10, 900, 960, 975, 990, 2000])
def test_verify_refuses_what_is_nested_too_deeply(lines: Lines, depth: int) -> None:
    nested: object = 0
    for _ in range(depth):
        nested = [nested]
    forged = copy.deepcopy(lines[:3])
    forged[2]["text"] = nested
    assert verify([*forged, *lines[3:]]).where == "step 1"


DIVERGENCE_FORGERIES = [
    ("linear", "expected", [-0.1, 0.0, 1.01, 3.0]),
    ("log_linear", "expected", [-0.1, 1.01, 1e18]),
    ("linear", "kl_clarke", [-0.1, 50.0]),
    ("log_linear", "kl_clarke", [-0.1]),
]


@pytest.mark.parametrize(("rule", "pricing", "forged"), DIVERGENCE_FORGERIES)
def test_verify_refuses_a_divergence_outside_its_bounds(
    world: World, spec_of: Spec, rule: Any, pricing: Any, forged: list[float]
) -> None:
    settled = world.run(spec_of(1000, 2500, 700, rule=rule, pricing=pricing, seed=5))[-1]
    genuine = [dict(line) for line in settled.receipt]
    assert verify(genuine).holds
    for divergence in forged:
        lines = copy.deepcopy(genuine)
        lines[2]["divergences"][1] = divergence
        assert verify(rehashed(lines)).where == "step 1", divergence


def test_verify_refuses_an_expected_payment_beyond_what_the_distance_allows(world: World, spec_of: Spec) -> None:
    settled = world.run(spec_of(1000, 2500, 700, rule="log_linear", pricing="expected", seed=5))[-1]
    lines = [copy.deepcopy(dict(line)) for line in settled.receipt]
    lines[2]["owed"][1] = lines[2]["payments"][1] = 2500 * lines[2]["divergences"][1] + 1
    assert verify(rehashed(lines)).where == "step 1"


@pytest.mark.parametrize("field", ["seed", "nonce"])
def test_verify_refuses_a_seed_that_is_not_written_as_its_bytes(lines: Lines, field: str) -> None:
    for value in ("", "0_7", "AB" * 32, "ab" * 33):
        forged = copy.deepcopy(lines)
        forged[-1][field] = value
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
    assert verdict.where == "step 1", "an expected log-linear payment follows from whole distributions only"
    swapped = copy.deepcopy(stored)
    swapped[2]["distributions"].reverse()
    assert verify(swapped).where == "step 1"


COMBINATIONS: list[tuple[Any, Any, Any]] = [
    ("linear", "coupled", "critical_bid"),
    ("linear", "coupled", "expected"),
    ("linear", "race", "critical_bid"),
    ("linear", "race", "kl_clarke"),
    ("log_linear", "coupled", "critical_bid"),
    ("log_linear", "coupled", "expected"),
    ("log_linear", "coupled", "kl_clarke"),
]


class Recorded:
    """An auction on the toy world, with all that a replay needs."""

    def __init__(self, world: World, spec: AuctionSpec, *, absent: str | None = None) -> None:
        self.here = world()
        auction = self.here.submit(spec)
        if absent is not None:
            auction.set_absent(absent, is_absent=True)
        self.lines: Lines = [dict(line) for line in self.here.finish()[-1].receipt]
        self.prompts, self.model = self.here.prompts(spec), self.here.decoder.model

    def replay(self, lines: Lines) -> Any:
        assert verify(lines).holds, "a forgery that the arithmetic already catches shows nothing here"
        verdict = replay(lines, self.model, self.prompts, Policy())
        assert self.model.free_rows == self.model.max_rows
        return verdict


@pytest.mark.parametrize(("rule", "sampler", "pricing"), COMBINATIONS)
def test_replay_holds_for_what_was_recorded(world: World, spec_of: Spec, rule: Any, sampler: Any, pricing: Any) -> None:
    spec = spec_of(1000, 2500, 700, rule=rule, sampler=sampler, pricing=pricing, reference_weight_micros=300, seed=11)
    for absent in (None, "agent1"):
        recorded = Recorded(world, spec, absent=absent)
        verdict = recorded.replay(recorded.lines)
        assert verdict.holds, verdict
        assert verdict.level == "model"


def test_replay_names_the_step_whose_token_was_chosen_by_a_forger(world: World, spec_of: Spec) -> None:
    """Everything but the cdf is as the model has it for the forged token, and the cdf fits the uniform."""
    spec = spec_of(1000, 2500, pricing="free", seed=11)
    recorded = Recorded(world, spec)
    forged = copy.deepcopy(recorded.lines)
    line = forged[3]
    gang = recorded.model.admit(recorded.prompts, 9)
    logits = recorded.model.prefill([gang])
    for earlier in forged[1:3]:
        logits = recorded.model.step([gang], torch.tensor([earlier["token"]]))
    recorded.model.release(gang)
    rows = logits.double().softmax(-1)
    token = (line["token"] + 1) % (len(world.symbols) - 1)
    weights = torch.tensor([line["effective"]], dtype=torch.float64)
    randomness = coupled_randomness([bytes.fromhex(line["key"])], [spec.row_ids])
    q = (weights[0] / weights.sum()) @ rows
    forced = replace(randomness, token=(q[:token].sum() + q[token] / 2)[None])
    clearing = clear(rows[None], weights, torch.ones_like(weights, dtype=torch.bool), forced, pricing="free")
    assert int(clearing.token) == token
    line.update(
        token=token,
        text=recorded.model.tokenizer.decode([token]),
        p=clearing.p_token[0].tolist(),
        r=clearing.r_token[0].tolist(),
        q=float(clearing.q_token),
        cdf_below=float(randomness.token) - float(clearing.q_token) / 2,
        critical_bids=clearing.critical_bid[0].tolist(),
    )
    forged[-1]["token_ids"][2] = token
    forged[-1]["text"] = "".join(step["text"] for step in forged[1:-1])
    verdict = recorded.replay(rehashed(forged))
    assert verdict.where == "step 2", verdict


def test_replay_names_the_step_whose_text_is_not_its_token(world: World, spec_of: Spec) -> None:
    recorded = Recorded(world, spec_of(1000, 2500, seed=11))
    forged = copy.deepcopy(recorded.lines)
    forged[3]["text"] = "~"
    forged[-1]["text"] = "".join(step["text"] for step in forged[1:-1])
    assert recorded.replay(rehashed(forged)).where == "step 2"


@pytest.mark.parametrize(
    ("rule", "pricing"), [("log_linear", "expected"), ("linear", "expected"), ("linear", "kl_clarke")]
)
def test_replay_recomputes_what_a_payment_follows_from(world: World, spec_of: Spec, rule: Any, pricing: Any) -> None:
    """A divergence and payment that keep to the arithmetic and its bounds, and are not the model's."""
    spec = spec_of(1000, 2500, rule=rule, pricing=pricing, seed=5)
    recorded = Recorded(world, spec)
    forged = copy.deepcopy(recorded.lines)
    line = forged[2]
    scale = 0.999
    if pricing == "expected" and rule == "log_linear":
        change = line["owed"][1] * (scale - 1)
    else:
        change = line["owed"][1] * (1 / scale - 1)
        line["divergences"][1] /= scale
    line["owed"][1] += change
    auction = Auction(spec, "forged")
    auction.start()
    for step in forged[1:-1]:
        charges = auction.record(step["token"], step["text"], tuple(step["owed"]))
        step.update(payments=list(charges.payments), charges=list(charges.charges))
    forged[-1].update(exact_micros=auction.exact_micros, totals_micros=list(auction.totals_micros))
    assert recorded.replay(rehashed(forged)).where == "step 1"


def test_replay_refuses_another_model_prompt_or_precision(world: World, spec_of: Spec) -> None:
    recorded = Recorded(world, spec_of(1000, 2500, seed=11))
    model, prompts = recorded.model, recorded.prompts
    assert replay(recorded.lines, model, prompts[::-1], Policy()).where == "auction"
    for field, value in (
        ("model", {"name": "toy", "hash": "0" * 64}),
        ("numerics", "int3"),
        ("numerics", "bf16"),
        ("tokenizer_hash", "0"),
    ):
        forged = copy.deepcopy(recorded.lines)
        forged[0][field] = value
        assert replay(forged, model, prompts, Policy()).where == "auction"


def test_replay_names_the_settlement_whose_end_the_model_did_not_write(world: World, spec_of: Spec) -> None:
    runs = (Recorded(world, spec_of(1000, 2500, seed=seed, max_tokens=4)) for seed in range(99))
    recorded = next(run for run in runs if run.lines[-1]["finish_reason"] == "max_tokens")
    forged = copy.deepcopy(recorded.lines)
    forged[-1]["finish_reason"] = "end"
    assert recorded.replay(rehashed(forged)).where == "step 3"


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
