"""The decoder takes any bytes and gives a message or a typed error; what is encoded is decoded to the same."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.server.hostile import CASES, HASH, LOG_HALF, bid, dense, join, sparse, text

from tokenauction.engine import spec as engine_spec
from tokenauction.server import client_messages, wire
from tokenauction.server.dense_frame import HEADER, read_frame
from tokenauction.server.wire_error import DECODER_CODES, MAX_ERROR_TEXT

IDS = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=128)
LINES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=200)
MICROS = st.integers(0, 10**15)
OPTIONAL_ID = st.none() | IDS
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
PLAIN = st.dictionaries(st.text(max_size=9), st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text())
AGENT = {"request_id": OPTIONAL_ID, "auction_id": IDS, "agent_id": IDS}
MESSAGES: st.SearchStrategy[Any] = st.one_of(
    st.builds(wire.AuctionCreate, request_id=OPTIONAL_ID, spec=PLAIN, idempotency_key=OPTIONAL_ID),
    st.builds(wire.AuctionCancel, request_id=OPTIONAL_ID, auction_id=IDS),
    st.builds(
        wire.Subscribe,
        request_id=OPTIONAL_ID,
        auction_id=IDS,
        after_seq=st.integers(-1, 2**53 - 1),
        epoch=st.none() | st.integers(0, 2**53 - 1),
    ),
    st.builds(wire.Unsubscribe, request_id=OPTIONAL_ID, auction_id=IDS),
    st.builds(
        wire.AgentJoin,
        **AGENT,
        bid_micros=MICROS,
        budget_micros=st.none() | MICROS,
        brief=st.none() | st.builds(wire.Brief, name=LINES, offer=LINES),
    ),
    st.builds(wire.BidUpdate, **AGENT, bid_micros=MICROS, bid_id=OPTIONAL_ID),
    st.builds(wire.AgentLeave, **AGENT),
    st.builds(
        wire.DistributionSubmit,
        **AGENT,
        step=st.integers(0, 100_000),
        vocabulary_hash=st.just(HASH),
        ids=st.just([5, 7]),
        log_probs=st.just([LOG_HALF, -2.0]),
        tail_mass=st.just(1 - 0.5 - np.exp(-2.0).item()),
    ),
    st.builds(wire.Ping, id=OPTIONAL_ID),
)
ENVELOPE = {"event_id": "evt_1", "time": 1.5}


def outcome(data: str | bytes) -> str:
    """The type of the message, or the code of the error; anything else that is raised fails the test."""
    try:
        return type(wire.decode(data)).__name__
    except wire.WireError as error:
        assert error.code in DECODER_CODES
        assert error.message.isprintable() and 0 < len(error.message) <= MAX_ERROR_TEXT
        return error.code


@pytest.mark.slow
@given(MESSAGES)
def test_message_comes_back_as_it_was_sent(message: Any) -> None:
    assert wire.decode(wire.encode(message).decode()) == message


@given(st.text(st.characters(), max_size=200) | st.binary(max_size=200))
def test_decoder_takes_anything(data: str | bytes) -> None:
    assert outcome(data)


@pytest.mark.slow
@given(JSON.map(json.dumps))
def test_decoder_takes_any_json(data: str) -> None:
    assert outcome(data)


@pytest.mark.slow
@given(st.sampled_from(wire.JSON_MESSAGES), st.data())
def test_decoder_takes_any_value_in_any_field(kind: type[msgspec.Struct], data: st.DataObject) -> None:
    names = [field.encode_name for field in msgspec.structs.fields(kind)]
    fields = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(names, JSON)))
    assert outcome(json.dumps({"type": kind.__struct_config__.tag, **fields}))


@given(
    st.sampled_from([case.sent for case in CASES if len(case.sent) < 2_000] + [bid(), join(), sparse(), dense()]),
    st.data(),
)
def test_decoder_takes_messages_with_other_bytes_in_them(sent: str | bytes, data: st.DataObject) -> None:
    start, end = sorted((data.draw(st.integers(0, len(sent))), data.draw(st.integers(0, len(sent)))))
    if isinstance(sent, bytes):
        assert outcome(sent[:start] + data.draw(st.binary(max_size=9)) + sent[end:])
    else:
        assert outcome(sent[:start] + data.draw(st.text(st.characters(), max_size=9)) + sent[end:])


@pytest.mark.parametrize("sent", [bid(bid_id="b"), join(brief={"name": "n", "offer": "o"}), sparse()])
def test_half_a_message_is_refused_wherever_it_is_cut(sent: str) -> None:
    assert {outcome(sent[:length]) for length in range(len(sent))} == {"invalid_json"}


def test_half_a_frame_is_refused_wherever_it_is_cut() -> None:
    assert {outcome(dense()[:length]) for length in range(len(dense()))} == {"invalid_frame"}


@pytest.mark.parametrize(
    "sent",
    [
        bid(bid_id=None, request_id=None),
        bid(bid_micros=0),
        bid(bid_micros=10**15),
        bid(agent_id='Ägent, {["quoted: colon"]}'),
        join(budget_micros=None, brief=None),
        text("auction.create", spec={"seed": 2**256 - 1, "agents": [{"id": "a", "bid": "0.1"}]}),
        text("subscribe", auction_id="a", after_seq=-1, epoch=None),
        sparse(ids=[], log_probs=[], tail_mass=1),
        sparse(ids=[1], log_probs=[0], tail_mass=1e-120),
        ' \n{ "type" : "ping" }\r\n',
        text("ping", id="NaN 1e999 [[[[[[[[[[[[ {{ : : " + "9" * 90),
    ],
)
def test_decoder_accepts_what_is_right(sent: str) -> None:
    assert outcome(sent)[0].isupper(), outcome(sent)


def test_error_says_which_message_it_answers() -> None:
    with pytest.raises(wire.WireError) as caught:
        wire.decode(bid(bid_micros=-1, request_id="mine"))
    assert (caught.value.request, caught.value.request_id) == ("bid.update", "mine")


def test_error_quotes_no_request_id_that_is_none() -> None:
    with pytest.raises(wire.WireError) as caught:
        wire.decode(bid(bid_micros=-1, request_id=["mine"]))
    assert caught.value.request_id is None


def test_limits_are_parameters() -> None:
    with pytest.raises(wire.WireError, match="at most 10 bytes"):
        wire.decode('{"type":"ping"}', wire.Limits(message_bytes=10))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_frame_comes_back_as_it_was_sent(dtype: str) -> None:
    log_probs = np.log(np.array([0.5, 0.25, 0.25], dtype))
    read = read_frame(wire.write_frame("auc_ä", "alpha", 7, HASH, log_probs))
    assert (read.auction_id, read.agent_id, read.step) == ("auc_ä", "alpha", 7)
    assert read.vocabulary_hash_prefix == HASH[:16]
    assert read.log_probs.dtype == dtype and read.log_probs.tolist() == log_probs.tolist()


def test_frame_has_the_layout_that_is_documented() -> None:
    frame = wire.write_frame("auc", "me", 258, "0123456789abcdef" + "0" * 48, np.array([0.0], "float32"))
    header = b"TADF\x01\x02\0\0\x03\0\x02\0\x02\x01\0\0\x01\0\0\0\x01\x23\x45\x67\x89\xab\xcd\xef"
    assert frame == header + b"aucme" + bytes(4)
    assert HEADER.size == 28


@pytest.mark.parametrize("vocabulary", [32_000, 151_936, 2**18])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_frame_of_a_flat_distribution_over_a_real_vocabulary_is_normalised(vocabulary: int, dtype: str) -> None:
    frame = wire.write_frame("a", "b", 0, HASH, np.full(vocabulary, -np.log(vocabulary), dtype))
    assert len(frame) <= wire.MAX_FRAME_BYTES and len(read_frame(frame).log_probs) == vocabulary


def test_frame_of_another_dtype_is_not_written() -> None:
    with pytest.raises(ValueError, match="convert them to float16 or float32"):
        wire.write_frame("a", "b", 0, HASH, np.array([0.0]))


def test_client_does_not_mind_types_and_fields_that_it_does_not_know() -> None:
    assert wire.decode_server(json.dumps({"type": "auction.renamed", **ENVELOPE})) is None
    pong = wire.decode_server(json.dumps({"type": "pong", "id": "a", "colour": "red", **ENVELOPE}))
    assert pong == wire.Pong(id="a", **ENVELOPE)


def test_client_tells_the_error_of_a_stream_from_the_answer_to_a_message() -> None:
    error = {"type": "error", "code": "no_weight", "message": "every bid is 0", **ENVELOPE}
    assert isinstance(wire.decode_server(json.dumps(error)), wire.Error)
    assert isinstance(wire.decode_server(json.dumps({**error, "auction_id": "a", "seq": 3})), wire.StreamError)


@pytest.mark.slow
@given(st.binary(max_size=99) | JSON.map(json.dumps))
def test_client_takes_anything(data: str | bytes) -> None:
    try:
        assert wire.decode_server(data) is None
    except wire.WireError as error:
        assert error.code == "invalid_json"


def test_limits_are_the_engines_own() -> None:
    assert (client_messages.MAX_TEXT, client_messages.MAX_TOKENS) == (engine_spec.MAX_TEXT, engine_spec.MAX_TOKENS)


def test_every_type_is_one_struct_and_error_two() -> None:
    tags = [str(kind.__struct_config__.tag) for kind in (*wire.JSON_MESSAGES, *wire.STREAM_EVENTS, *wire.ANSWERS)]
    assert {tag for tag in tags if tags.count(tag) > 1} == {"error"}


@pytest.mark.slow
def test_clients_need_not_load_torch() -> None:
    program = "import sys, tokenauction.server.wire; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
