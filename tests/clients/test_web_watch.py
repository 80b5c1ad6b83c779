"""A watch sees every event exactly once, whatever a connection repeats, leaves out or takes back: against a model."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.clients.test_web_verify import NODE, in_javascript

pytestmark = [pytest.mark.slow, pytest.mark.skipif(NODE is None, reason="there is no Node here")]

# Each script is a list of what the server does; the program says what the watch handed out, and what it asked for.
RUN = """
const { Watch } = await import(process.argv[1]);
const { Transcript } = await import(process.argv[1].replace("watch.js", "transcript.js"));
let input = "";
for await (const chunk of process.stdin.setEncoding("utf8")) input += chunk;
const told = [];
for (const script of JSON.parse(input)) {
  const [events, asked, states] = [[], [], []];
  const transcript = new Transcript();
  const onEvent = (event) => { events.push(event); transcript.apply(event); };
  const onState = (state) => states.push(state);
  const say = (message) => asked.push(message) > 0;
  const watch = new Watch("auc", { afterSeq: -1, epoch: null, onEvent, onState }, say);
  for (const act of script) {
    if (act.connect) watch.subscribe({});
    else watch.take(act);
  }
  const { afterSeq, epoch } = watch.position;
  const { text, totals, missing } = transcript;
  told.push({ events, asked, states, afterSeq, epoch, state: watch.state, text, totals, missing });
}
console.log(JSON.stringify(told));
"""


def run(scripts: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = in_javascript(RUN, "watch.js", scripts)
    return told


def stream(choice: random.Random) -> list[dict[str, Any]]:
    """What a ledger ends up with: epochs, each but the first beginning with a reset; and what each epoch lost."""
    kept: list[dict[str, Any]] = [{"type": "auction.created", "auction_id": "auc", "seq": 0, "epoch": 1}]
    lost: list[dict[str, Any]] = []
    for epoch in range(1, choice.randint(1, 4) + 1):
        if epoch > 1:
            reset = {"type": "stream.reset", "auction_id": "auc", "seq": len(kept), "epoch": epoch}
            kept.append({**reset, "after_seq": len(kept) - 1})
        for _ in range(choice.randint(1, 8)):
            kept.append(token(len(kept), epoch, choice))
        lost += [token(len(kept) + place, epoch, choice) for place in range(choice.randint(0, 3))]
    settled = {"type": "auction.settled", "auction_id": "auc", "seq": len(kept), "epoch": kept[-1]["epoch"]}
    text = "".join(event.get("text", "") for event in kept)
    return [*lost, {**settled, "text": text, "agents": [{"id": "a", "total_micros": 5}]}, *reversed(kept)]


def token(seq: int, epoch: int, choice: random.Random) -> dict[str, Any]:
    return {
        "type": "auction.token",
        "auction_id": "auc",
        "seq": seq,
        "epoch": epoch,
        "text": choice.choice("abc"),
        "agents": [],
    }


def served(kept: list[dict[str, Any]], lost: list[dict[str, Any]], choice: random.Random) -> list[dict[str, Any]]:
    """Connections over which the stream comes: each starts where the last one broke off, repeats some, may skip some.

    Behind an epoch's last durable event come tokens that its crash takes back, seen by who was connected then.
    """
    script: list[dict[str, Any]] = [{"connect": True}]
    for place, event in enumerate(kept):
        script.append(event)
        if choice.random() < 0.2:  # a repetition
            script.append(kept[choice.randrange(place + 1)])
        ends_epoch = place + 1 < len(kept) and kept[place + 1]["epoch"] > event["epoch"]
        if ends_epoch and choice.random() < 0.7:
            script += [each for each in lost if each["epoch"] == event["epoch"]]
        if ends_epoch or choice.random() < 0.1:
            script.append({"connect": True})
    return script


@pytest.mark.parametrize("start", [0, 200])
def test_every_event_comes_once_through_repetitions_breaks_and_crashes(start: int) -> None:
    scripts, expected = [], []
    for seed in range(start, start + 200):
        choice = random.Random(seed)
        events = stream(choice)
        settled = next(place for place, event in enumerate(events) if event["type"] == "auction.settled")
        lost, kept = events[:settled], [*reversed(events[settled + 1 :]), events[settled]]
        scripts.append(served(kept, lost, choice))
        expected.append(kept)
    for told, kept in zip(run(scripts), expected, strict=True):
        seen: list[dict[str, Any]] = []
        for event in told["events"]:
            if event["type"] == "stream.reset":  # what a reader drops
                seen = [each for each in seen if each["seq"] <= event["after_seq"]]
            assert event["seq"] == len(seen), "dense, each once"
            seen.append(event)
        assert seen == kept
        assert (told["state"], told["text"], told["totals"]) == ("over", kept[-1]["text"], {"a": 5})


def test_hole_is_asked_for_again_and_what_came_behind_it_is_not_handed_out() -> None:
    choice = random.Random(0)
    created = {"type": "auction.created", "auction_id": "auc", "seq": 0, "epoch": 1}
    [told] = run([[{"connect": True}, created, token(3, 1, choice), token(1, 1, choice)]])
    assert [event["seq"] for event in told["events"]] == [0, 1]
    asked = [(message["type"], message.get("after_seq"), message.get("epoch")) for message in told["asked"]]
    assert asked == [("subscribe", -1, None), ("unsubscribe", None, None), ("subscribe", 0, 1)]


def test_gap_shows_the_snapshot_until_what_was_missed_has_come() -> None:
    choice = random.Random(0)
    created = {"type": "auction.created", "auction_id": "auc", "seq": 0, "epoch": 1}
    tokens = [token(seq, 1, choice) for seq in range(1, 4)]
    text = "".join(event["text"] for event in tokens)
    gap = {"type": "stream.gap", "auction_id": "auc", "after_seq": 1, "last_seq": 3}
    snapshot = {"type": "stream.snapshot", "auction_id": "auc", "last_seq": 3, "epoch": 1, "state": "running"}
    missed = [{"connect": True}, created, tokens[0], gap, {**snapshot, "num_tokens": 3, "text": text}]
    before, after = run([missed, [*missed, {"connect": True}, *tokens[1:]]])
    assert (before["text"], before["missing"]) == (text, 2)
    assert (after["text"], after["missing"], after["afterSeq"]) == (text, None, 3)
    assert [event["type"] for event in before["events"][2:]] == ["stream.gap", "stream.snapshot"]
    assert after["asked"][-1]["after_seq"] == 1, "it goes on behind what it has seen"


def test_payment_is_billed_once_however_often_it_is_told() -> None:
    bill = {"type": "payment.posted", "event_id": "e/a", "auction_id": "auc", "agent_id": "a", "total_micros": 5}
    [told] = run([[{"connect": True}, bill, bill, {"connect": True}, bill, {**bill, "event_id": "e/b"}]])
    assert [event["event_id"] for event in told["events"]] == ["e/a", "e/b"]


def test_watch_that_is_over_takes_nothing_in() -> None:
    settled = {"type": "auction.settled", "auction_id": "auc", "seq": 0, "epoch": 1, "text": "", "agents": []}
    [told] = run([[{"connect": True}, settled, {**settled, "seq": 1}, {"connect": True}]])
    assert len(told["events"]) == 1 and len(told["asked"]) == 1 and told["states"] == ["live", "over"]
