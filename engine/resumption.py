"""An auction that was interrupted goes on from what its receipt says of it; knows no model and no file.

Draws depend on (seed, step) alone, so that a text that is taken up behind its last recorded token is the text that
would have been written without the interruption, as long as bids and model are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenauction.engine.auction import Auction
from tokenauction.engine.candidate import Candidate
from tokenauction.engine.errors import ReceiptError
from tokenauction.engine.events import Event
from tokenauction.engine.provenance import Provenance
from tokenauction.engine.reading import added_text
from tokenauction.engine.receipt import Line
from tokenauction.engine.recorder import Recorder, Stamp
from tokenauction.engine.seed import Seed
from tokenauction.engine.spec import AuctionSpec
from tokenauction.models.base import TextStream, Tokenizer


def take_up(recorder: Recorder, tokenizer: Tokenizer, stream: TextStream, lines: Sequence[Line]) -> None:
    """Bring the record of an auction that has not begun to where these lines leave it, its bids included.

    Raises ReceiptError where the first line is not the one that this auction would write: then the model, its numbers
    or its prompts are others than they were, and the text would not go on as it began.
    """
    recorder.created()
    if not lines or recorder.receipt[0]["hash"] != lines[0]["hash"]:
        raise ReceiptError("the receipt begins differently: another model, precision, prompt or version wrote it")
    _follow(recorder, lines)
    text = ""
    for line in lines[1:]:
        text += added_text(tokenizer, stream, line["token"], text)
    if text != recorder.auction.text:
        raise ReceiptError("the receipt's text is not that of its tokens")


def settle_as_recorded(
    spec: AuctionSpec,
    auction_id: str,
    seed: Seed,
    lines: Sequence[Line],
    stamp: Stamp,
    *,
    has_failed: bool = False,
) -> Event:
    """The last event of an auction that cannot go on: cancelled behind its last recorded token, which is paid for.

    A softmax auction whose choice is recorded is settled by it. One that `has_failed` charges nothing.
    Raises ReceiptError where the lines do not follow from each other.
    """
    if not lines:
        raise ReceiptError("the receipt has no line, so there is nothing to settle")
    auction = Auction(spec, auction_id)
    provenance = Provenance.from_mapping(lines[0])
    recorder = Recorder(auction, seed, provenance, stamp, lambda ids: "")
    recorder.receipt.append(dict(lines[0]))
    winner = None
    if spec.finalizer is None:
        _follow(recorder, lines)
    else:
        _, winner = follow_candidates(recorder, lines)
    if has_failed:
        auction.fail()
    elif winner is not None:
        auction.settle(winner.finish_reason)
    else:
        auction.cancel()
    return recorder.settled()


def follow_candidates(recorder: Recorder, lines: Sequence[Line]) -> tuple[list[Candidate], Candidate | None]:
    """Take in a softmax auction's lines behind the first: its candidates, and the winner if the choice is among them.

    What the choice charges is charged. Raises ReceiptError where the lines do not follow from each other.
    """
    auction = recorder.auction
    candidates: list[Candidate] = []
    winner: Candidate | None = None
    auction.start()
    for line in lines[1:]:
        if winner is not None or line["previous"] != recorder.receipt[-1]["hash"]:
            raise ReceiptError("the receipt's lines do not follow from each other")
        recorder.receipt.append(dict(line))
        if line["kind"] == "choice":
            winner = candidates[line["chosen"]]
            auction.choose(winner.token_ids, winner.text, tuple(line["owed"]))
            continue
        candidates.append(Candidate.from_line(line))
        if candidates[-1].index != len(candidates) - 1:
            raise ReceiptError(f"candidate {candidates[-1].index} of the receipt is out of place")
    return candidates, winner


def _follow(recorder: Recorder, lines: Sequence[Line]) -> None:
    """Take in the steps as they were recorded, behind the first line."""
    auction = recorder.auction
    auction.start()
    for line in lines[1:]:
        previous = recorder.receipt[-1]["hash"]
        if line["kind"] != "step" or line["step"] != auction.num_tokens or line["previous"] != previous:
            raise ReceiptError(f"step {auction.num_tokens} of the receipt does not follow from the line before it")
        charges = auction.record(line["token"], line["text"], tuple(line["owed"]))
        if list(charges.charges) != line["charges"]:
            raise ReceiptError(f"step {line['step']} of the receipt charges {line['charges']}: its payments do not")
        recorder.receipt.append(dict(line))
    if len(lines) > 1:
        for agent, bid, status in zip(auction.spec.agents, lines[-1]["bids"], lines[-1]["status"], strict=False):
            auction.set_bid(agent.id, bid)
            if not agent.own_model:  # which is absent for every step that it says nothing of, and not longer
                auction.set_absent(agent.id, is_absent=status == "absent")
