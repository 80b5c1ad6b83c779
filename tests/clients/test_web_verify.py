"""The verification in the browser says of every receipt, genuine or forged, what `verify` says: run by Node."""

from __future__ import annotations

import copy
import json
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.engine.conftest import World, spec_of
from tests.engine.test_awaiting import outside, own_report, run
from tests.engine.test_finalizer_arithmetic import SPECS as SOFTMAX
from tests.engine.test_finalizer_arithmetic import spec_of as softmax_spec

from tokenauction.engine.errors import ReceiptError
from tokenauction.engine.finalizer_spec import FinalizerSpec
from tokenauction.engine.guarantees import TABLE
from tokenauction.engine.policy import Policy
from tokenauction.engine.receipt import canonical, content_hash, parse_receipt
from tokenauction.engine.report import Report
from tokenauction.engine.reward import Callback
from tokenauction.engine.spec import AgentSpec, AuctionSpec
from tokenauction.engine.verification import Verdict, verify

Lines = list[dict[str, Any]]
WEB = Path(__file__).resolve().parents[2] / "clients" / "web"
FINALIZER = FinalizerSpec(num_candidates=3)
NODE = shutil.which("node")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(NODE is None, reason="there is no Node here")]

VERIFY = """
const { verify } = await import(process.argv[1]);
let input = "";
for await (const chunk of process.stdin.setEncoding("utf8")) input += chunk;
const verdicts = [];
for (const { text, head } of JSON.parse(input)) verdicts.push(await verify(text, { head }));
console.log(JSON.stringify(verdicts));
"""


def in_javascript(program: str, module: str, given: Any) -> Any:
    """What a program of JavaScript makes of some JSON."""
    assert NODE is not None
    command = [NODE, "--input-type=module", "-e", program, "--", str(WEB / module)]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def text_of(lines: Lines) -> str:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def read_and_verify(text: str, head: str | None = None) -> Verdict:
    """As the command does it; what is no receipt is at fault as a file."""
    try:
        return verify(parse_receipt([row for row in text.split("\n") if row]), head=head)
    except ReceiptError as error:
        return Verdict(False, "arithmetic", 0, "file", str(error))


def assert_same_verdicts(receipts: list[tuple[str, str | None]]) -> list[dict[str, Any]]:
    """Both say the same of each: whether it holds, and the first line that does not."""
    theirs = in_javascript(VERIFY, "verify.js", [{"text": text, "head": head} for text, head in receipts])
    for (text, head), said in zip(receipts, theirs, strict=True):
        ours = read_and_verify(text, head)
        where = "" if said["failure"] is None else said["failure"]["where"]
        assert (said["ok"], where) == (ours.holds, ours.where), f"{said['failure']}, but {ours}: {text}"
    return list(theirs)


def rehashed(lines: Lines) -> Lines:
    """The same lines with every hash made to fit, as a forger would hand them in."""
    previous = None
    for line in lines:
        if previous is not None:
            line["previous"] = previous
        previous = line["hash"] = content_hash(line)
    return lines


def receipt_of(spec: AuctionSpec, during: Callable[[World, Any], None] = lambda world, auction: None) -> Lines:
    """One auction on the toy world; `during` is called behind its third step."""
    world = World()
    auction = world.submit(spec)
    events = [event for _ in range(4) for event in world.decoder.step()]
    if world.decoder.scheduler.has_work:
        during(world, auction)
    events += world.finish()
    return [dict(line) for line in events[-1].receipt]


def set_bid(world: World, auction: Any) -> None:
    auction.set_bid("agent0", 4321)


def leave(world: World, auction: Any) -> None:
    auction.set_absent("agent1", is_absent=True)


def cancel(world: World, auction: Any) -> None:
    world.decoder.cancel(auction.auction_id)


def genuine() -> Iterator[Lines]:
    """Receipts of every combination there is, and of everything that can happen to an auction."""
    for row in TABLE:
        options: dict[str, Any] = {"rule": row.rule, "sampler": row.sampler, "pricing": row.pricing}
        for seed in (1, 2):
            yield receipt_of(spec_of(1000, 2500, 700, reference_weight_micros=300, seed=seed, **options))
        yield receipt_of(spec_of(1000, 0, 700, seed=3, **options), set_bid)
        yield receipt_of(spec_of(1000, 2500, seed=4, **options), leave)
    for pricing in ("expected", "kl_clarke", "free"):
        unsafe: dict[str, Any] = {"rule": "log_linear", "sampler": "race", "pricing": pricing, "allow_unsafe": True}
        yield receipt_of(spec_of(1000, 2500, seed=5, **unsafe))
    yield receipt_of(spec_of(1000, 2500, seed=6), cancel)
    yield receipt_of(spec_of(1000, 2500, seed=None, max_tokens=40, top_k=5, temperature=1.25), set_bid)
    yield receipt_of(spec_of(5, 2500, seed=8, max_sentences=1, max_tokens=60))
    yield receipt_of(spec_of(10**15, 1, seed=9))
    yield receipt_of(spec_of(1000, seed=10))
    yield receipt_of(spec_of(1000, 900, seed=11, rule="log_linear", top_k=3, floor=0.01))
    for budget, reference, pricing in ((700, 0, "first_price"), (1500, 400, "critical_bid"), (3000, 0, "kl_clarke")):
        agents = tuple(AgentSpec(f"agent{i}", f"Näme {i} 😀", "offer", 1000, budget) for i in range(2))
        rule: Any = "log_linear" if pricing == "kl_clarke" else "linear"
        spec = AuctionSpec(
            "qüery", agents, rule=rule, pricing=pricing, reference_weight_micros=reference, seed=12, max_tokens=40
        )  # type: ignore[arg-type]
        yield receipt_of(spec)


def with_own_models() -> Iterator[Lines]:
    """Receipts of auctions whose agents report: dense, sparse, silent."""
    spec = outside(spec_of(1000, 2500, 700, reference_weight_micros=300, seed=13), "agent0", "agent2")
    yield [dict(line) for line in run(World(), spec)[-1].receipt]
    world = World()

    def says(step: int, text: Any) -> dict[str, Report]:
        dense = np.exp(own_report(world, spec, "agent0", text).log_probs.astype(np.float64))
        dense /= dense.sum()
        ids = tuple(int(i) for i in np.argsort(-dense)[:4])
        sparse = Report(np.log(dense[list(ids)]), ids, float(1 - dense[list(ids)].sum()))
        return {"agent0": sparse} if step % 3 else {}

    yield [dict(line) for line in run(world, spec, says)[-1].receipt]


def with_candidates() -> Iterator[Lines]:
    """Receipts of softmax auctions: every proposal, a budget that clips, one that was cancelled, a reward of -∞."""
    unsafe = softmax_spec(finalizer={"proposal": "token_auction", "proposal_weights": "values"}, allow_unsafe=True)
    worthless = AuctionSpec("query", (AgentSpec("agent0", "Name0", "offer", 0, value_micros=0),), finalizer=FINALIZER)
    for spec in (*SOFTMAX.values(), unsafe, worthless):
        yield finalized(spec)
    yield finalized(SOFTMAX["banned"], num_steps=5)
    yield finalized(SOFTMAX["token_auction"], rewards=Callback(lambda *_: float("-inf")))


def finalized(spec: AuctionSpec, num_steps: int | None = None, **options: Any) -> Lines:
    """One softmax auction, to its end or cancelled behind so many steps."""
    world, events, num_done = World(), [], 0
    prompts = [world.decoder.model.tokenizer.encode_prompt(f"query for {row_id}") for row_id in spec.hosted_ids]
    world.decoder.enqueue(world.decoder.prepare(spec, prompts, Policy(), "auction", **options))
    while world.decoder.has_work:
        if num_done == num_steps:
            world.decoder.cancel("auction")
        events += world.decoder.step()
        num_done += 1
    return [dict(line) for line in events[-1].receipt]


@pytest.fixture(scope="module")
def receipts() -> list[Lines]:
    return [*genuine(), *with_own_models(), *with_candidates()]


def test_genuine_receipts_hold_in_both_and_the_head_is_pinned(receipts: list[Lines]) -> None:
    texts = [text_of(lines) for lines in receipts]
    verdicts = assert_same_verdicts([(text, None) for text in texts])
    assert all(verdict["ok"] for verdict in verdicts)
    counted = [sum(line["kind"] in ("step", "candidate") for line in lines) for lines in receipts]
    assert [verdict["num_steps"] for verdict in verdicts] == counted
    heads = [lines[-1]["hash"] for lines in receipts[:3]]
    pinned = [(text, head) for text in texts[:3] for head in (*heads, "0" * 64)]
    assert sum(verdict["ok"] for verdict in assert_same_verdicts(pinned)) == 3


def test_what_the_browser_cannot_see_is_said(receipts: list[Lines]) -> None:
    tokens = [lines for lines in receipts if lines[1]["kind"] == "step"]
    verdicts = assert_same_verdicts([(text_of(lines), None) for lines in tokens])
    for lines, verdict in zip(tokens, verdicts, strict=True):
        spec, unchecked = lines[0]["spec"], " ".join(verdict["unchecked"])
        has_critical_bids = spec["rule"] == "linear" or spec["pricing"] == "critical_bid"
        assert "what a model said" in unchecked and "published" in unchecked
        assert ("log-linear q" in unchecked) == (spec["rule"] == "log_linear")
        assert ("critical bids" in verdict["checks"]) == has_critical_bids
        assert ("distances" in unchecked) == (spec["pricing"] in ("expected", "kl_clarke"))
        assert ("agents with models of their own" in unchecked) == any("own_model" in a for a in spec["agents"])


def test_stored_distributions_are_hashed_and_not_said_to_be_recomputed() -> None:
    stored = [dict(line) for line in World.run(spec_of(1000, 2500, seed=5), store_distributions=True)[-1].receipt]
    swapped = copy.deepcopy(stored)
    swapped[2]["distributions"].reverse()
    genuine, forged = assert_same_verdicts([(text_of(stored), None), (text_of(swapped), None)])
    assert genuine["level"] == "arithmetic" and "stored distributions" in " ".join(genuine["unchecked"])
    assert forged["failure"]["step"] == 1


def changed_leaf(value: Any, choice: random.Random) -> Any:
    """A value of the same kind, and another one."""
    if isinstance(value, bool) or value is None:
        return choice.choice([None, True, False, 0])
    if isinstance(value, int):
        return choice.choice([value + 1, value - 1, value * 2 + 1, float(value), -value, 10 ** choice.randrange(30)])
    if isinstance(value, float):
        factor = choice.choice([1 + 1e-6, 1 + 1e-12, 1.01, 0.5, 2.0])
        return choice.choice([value * factor, value + 1e-6, -value, value + 1.0, 0.0, 1, 5e-324, 1e300])
    return choice.choice([value + "x", value[1:], "", value.upper(), "😀", "abc"])


def forged(lines: Lines, choice: random.Random) -> Lines:
    """One number, text or entry is another one, or something is missing, doubled or out of place."""
    lines = copy.deepcopy(lines)
    kind = choice.randrange(12)
    number = choice.randrange(len(lines))
    if kind == 0:
        return lines[:number] + lines[number + 1 :]
    if kind == 1:
        return lines[:number] + lines[number - 1 :]
    line = lines[number]
    holder: Any = line
    name = choice.choice(list(line))
    while isinstance(holder[name], dict | list) and len(holder[name]) and (kind < 9):
        holder = holder[name]
        name = choice.choice(list(holder)) if isinstance(holder, dict) else choice.randrange(len(holder))
    if kind == 2:
        del holder[name]
    elif kind == 3:
        holder[name] = choice.choice([None, [], {}, "x", 0, -1, 0.5, True, [[]], {"a": None}])
    elif isinstance(holder[name], dict | list):
        holder[name] = copy.deepcopy(holder[name]) * 2 if isinstance(holder[name], list) else {}
    else:
        holder[name] = changed_leaf(holder[name], choice)
    return lines


@pytest.mark.parametrize("start", [0, 1_000])
def test_forged_receipts_part_at_the_same_line_in_both(receipts: list[Lines], start: int) -> None:
    texts = []
    for number in range(start, start + 1_000):
        choice = random.Random(number)
        lines = forged(choice.choice(receipts), choice)
        if choice.random() < 0.8:  # a forger who hashes the chain again
            lines = rehashed(lines) if all(line.get("kind") for line in lines) else lines
        texts.append((text_of(lines), None))
    verdicts = assert_same_verdicts(texts)
    assert sum(not verdict["ok"] for verdict in verdicts) > 700


def test_settlement_that_is_made_to_fit_is_looked_at_in_both(receipts: list[Lines]) -> None:
    """Totals that follow from forged steps, reasons that could be, texts with a tail."""
    texts = []
    for lines in receipts[::3]:
        for reason in ("end", "max_tokens", "sentences", "budget_spent", "no_bid", "cancelled", "error", "because", ""):
            other = copy.deepcopy(lines)
            other[-1]["finish_reason"] = reason
            texts.append((text_of(rehashed(other)), None))
        for tail in ("�", "��", "ab", "😀", "é" * 3):
            other = copy.deepcopy(lines)
            other[-1]["text"] += tail
            texts.append((text_of(rehashed(other)), None))
    assert_same_verdicts(texts)


def test_what_is_no_receipt_is_none_in_both() -> None:
    lines = [dict(line) for line in World.run(spec_of(1000, 2500, seed=5))[-1].receipt]
    good = text_of(lines)
    spoilt = [
        "",
        "\n",
        "{",
        "[]",
        '{"kind": "other"}',
        '{"kind": "step", "q": NaN}',
        '{"kind": "step", "q": 01}',
        '{"kind": "auction"}',
        '{"kind": "settlement"}',
        '{"kind": "auction", "kind": "step"}',
        "\x00",
        good[:-3],
        good.replace('"q": ', '"q": +', 1),
        good.replace('"q": ', '"q": -', 1),
        good.replace('"text": "', '"text": "\\ud83d', 1),
        good.replace('"text": "', '"text": "\\u0000\\u2028', 1),
        good.replace('"key": "', '"key": "\t', 1),
        good + "{}",
        good + good,
        good.replace("\n", "\r\n"),
        "".join(json.dumps(line, separators=(" ,\t", "\r:  ")) + "\n" for line in lines),
    ]
    verdicts = assert_same_verdicts([(text, None) for text in spoilt])
    assert [verdict["ok"] for verdict in verdicts].count(True) == 2, "spaces between values change nothing"


def test_canonical_json_is_python_s_to_the_byte() -> None:
    choice = random.Random(5)
    floats = [choice.uniform(-1, 1) * 10.0 ** choice.randint(-320, 300) for _ in range(2_000)]
    floats += [10.0**power for power in range(-30, 40)] + [5e-324, 1.7976931348623157e308, -0.0, 2.0, 1 / 3, 1e15, 1e16]
    alphabet = ["a", "Z", "é", "😀", "ﬁ", '"', "\\", "\n", "\x7f", "\x01", "\u2028", "/", "\ud7ff", "\ue000"]
    texts = ["".join(choice.choices(alphabet, k=6)) for _ in range(500)]
    values: list[Any] = [*floats, *texts, 0, -1, 10**60, {text: number for number, text in enumerate(texts)}]
    program = """
    const { parse, canonical } = await import(process.argv[1]);
    let input = "";
    for await (const chunk of process.stdin.setEncoding("utf8")) input += chunk;
    console.log(JSON.stringify(JSON.parse(input).map((text) => canonical(parse(text)))));
    """
    written = in_javascript(program, "verification/exact_json.js", [json.dumps(value) for value in values])
    assert written == [canonical(value).decode() for value in values]


def test_spec_with_every_field_is_read(receipts: list[Lines]) -> None:
    """Whatever the engine adds to a spec the browser must know, or it would call genuine receipts forged."""
    known = {name for lines in receipts for name in AuctionSpec.from_mapping(lines[0]["spec"]).to_mapping()}
    sources = (WEB / "verification" / name for name in ("spec.js", "finalizer_spec.js"))
    source = "".join(path.read_text(encoding="utf-8") for path in sources)
    assert [name for name in known if f"{name}:" not in source and f'"{name}"' not in source] == []


def test_softmax_receipts_are_counted_in_candidates_and_say_what_was_not_seen() -> None:
    lines = finalized(SOFTMAX["context_aware"])
    [verdict] = assert_same_verdicts([(text_of(lines), lines[-1]["hash"])])
    assert verdict["num_steps"] == 4 and "published head" in verdict["checks"]
    assert "what models said" in verdict["unchecked"][0]
