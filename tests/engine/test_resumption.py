"""An interrupted auction goes on as it would have gone on, or is settled as it stands; what does not fit is refused."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
from tests.server.toy_server import SYMBOLS, PacedModel

from tokenauction.engine.decoder import Decoder
from tokenauction.engine.errors import ReceiptError
from tokenauction.engine.events import Event
from tokenauction.engine.policy import Policy
from tokenauction.engine.resumption import settle_as_recorded
from tokenauction.engine.seed import Seed
from tokenauction.engine.spec import AgentSpec, AuctionSpec
from tokenauction.engine.verification import verify
from tokenauction.models.toy import ToyWorld

SEED = Seed(11, bytes(32), "drawn")
NUM_TOKENS = 14


def decoder_of(world: int = 3) -> Decoder:
    count = itertools.count()
    model = PacedModel(ToyWorld(world, SYMBOLS))
    return Decoder(model, stamp=lambda: (f"evt_{next(count)}", 0.0), entropy=lambda n: bytes(n))


def spec_of(**changes: Any) -> AuctionSpec:
    agents = (AgentSpec("a", "A", "offer", 2_000, 9_000), AgentSpec("b", "B", "offer", 1_000))
    return AuctionSpec("query", agents, max_tokens=NUM_TOKENS, **changes)


def prepared(decoder: Decoder, spec: AuctionSpec) -> Any:
    prompts = [decoder.model.tokenizer.encode_prompt(f"for {row}") for row in spec.row_ids]
    return decoder.prepare(spec, prompts, Policy(), "auction", SEED)


def finish(decoder: Decoder) -> list[Event]:
    events: list[Event] = []
    while decoder.scheduler.has_work:
        events += decoder.step()
    return events


def whole(spec: AuctionSpec) -> Event:
    """The last event of an auction that nothing interrupts."""
    decoder = decoder_of()
    decoder.enqueue(prepared(decoder, spec))
    return finish(decoder)[-1]


@pytest.mark.parametrize("changes", [{}, {"rule": "log_linear"}, {"reference_weight_micros": 500}])
@pytest.mark.parametrize("num_steps", [0, 1, 7, NUM_TOKENS - 1, NUM_TOKENS])
def test_auction_that_is_taken_up_gives_the_receipt_of_one_that_was_not_interrupted(
    changes: dict[str, Any], num_steps: int
) -> None:
    spec = spec_of(**changes)
    expected = whole(spec)
    decoder = decoder_of()
    ended = decoder.resume(prepared(decoder, spec), expected.receipt[: num_steps + 1])
    [*_, settled] = ended or finish(decoder)
    assert list(settled.receipt) == list(expected.receipt)
    assert verify(list(settled.receipt)).holds


def test_every_event_brings_the_line_of_the_receipt_that_came_with_it() -> None:
    decoder = decoder_of()
    decoder.enqueue(prepared(decoder, spec_of()))
    events = finish(decoder)
    assert [event.receipt[-1] for event in events] == list(events[-1].receipt)


def test_another_model_is_refused() -> None:
    decoder = decoder_of(world=4)
    with pytest.raises(ReceiptError, match="begins differently"):
        decoder.resume(prepared(decoder, spec_of()), whole(spec_of()).receipt[:5])
    assert not decoder.scheduler.has_work


@pytest.mark.parametrize(
    ("field", "value"), [("step", 1), ("charges", [9, 9]), ("text", "other"), ("previous", "0" * 64)]
)
def test_receipt_that_does_not_follow_is_refused(field: str, value: Any) -> None:
    lines = copy.deepcopy(list(whole(spec_of()).receipt[:5]))
    lines[3][field] = value
    decoder = decoder_of()
    with pytest.raises(ReceiptError):
        decoder.resume(prepared(decoder, spec_of()), lines)


@pytest.mark.parametrize("num_steps", [0, 6])
def test_auction_that_cannot_go_on_is_settled_as_recorded(num_steps: int) -> None:
    lines = whole(spec_of()).receipt[: num_steps + 1]
    settled = settle_as_recorded(spec_of(), "auction", SEED, lines, lambda: ("evt", 0.0), has_failed=False)
    assert verify(list(settled.receipt)).holds
    assert settled.fields["finish_reason"] == "cancelled" and settled.fields["num_tokens"] == num_steps
    assert settled.fields["posted"]


def test_auction_that_had_failed_is_settled_without_charges() -> None:
    lines = whole(spec_of()).receipt[:7]
    settled = settle_as_recorded(spec_of(), "auction", SEED, lines, lambda: ("evt", 0.0), has_failed=True)
    assert verify(list(settled.receipt)).holds
    assert not settled.fields["posted"] and settled.fields["total_micros"] == 0


def test_nothing_recorded_is_nothing_to_settle() -> None:
    with pytest.raises(ReceiptError, match="no line"):
        settle_as_recorded(spec_of(), "auction", SEED, [], lambda: ("evt", 0.0))
