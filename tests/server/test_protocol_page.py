"""docs/protocol.md says of the stream what the code says."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import msgspec
import pytest

from tokenauction.server import wire
from tokenauction.server.dense_frame import HEADER
from tokenauction.server.legality import CLOSE_CODES, LEGAL
from tokenauction.server.protocol_tables import ANSWERED_BY, TABLES, filled

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
TRANSCRIPT = re.findall(r"^([<>]) (\{.*\})$", PAGE, re.MULTILINE)


def test_tables_are_those_of_the_code() -> None:
    remedy = "put there what this prints: python -m tokenauction.server.protocol_tables < docs/protocol.md"
    assert filled(PAGE) == PAGE, remedy


def test_page_has_every_table() -> None:
    assert set(re.findall(r"<!-- table ([a-z ]+) -->", PAGE)) == set(TABLES)


def test_every_message_has_an_answer() -> None:
    assert set(ANSWERED_BY) == set(LEGAL)


def test_transcript_is_there_with_both_sides() -> None:
    assert [side for side, _ in TRANSCRIPT].count(">") >= 4 and len(TRANSCRIPT) >= 12


@pytest.mark.parametrize("sent", [line for side, line in TRANSCRIPT if side == ">"])
def test_client_of_the_transcript_is_understood(sent: str) -> None:
    if "1e999" in sent:
        with pytest.raises(wire.WireError) as caught:
            wire.decode(sent)
        assert caught.value.code == "invalid_number" and caught.value.message in PAGE
    else:
        message = wire.decode(sent)
        assert isinstance(message, msgspec.Struct)
        assert msgspec.to_builtins(message).items() <= json.loads(sent).items()


@pytest.mark.parametrize("line", [line for side, line in TRANSCRIPT if side == "<"])
def test_server_of_the_transcript_sends_what_there_is(line: str) -> None:
    said = json.loads(line.replace(", …}", "}"))
    if "…}" not in line:
        assert wire.decode_server(line) is not None
    kinds = (*wire.STREAM_EVENTS, *wire.ANSWERS)
    names = [
        {field.encode_name for field in msgspec.structs.fields(kind)} | {"type"}
        for kind in kinds
        if kind.__struct_config__.tag == said["type"]
    ]
    assert any(said.keys() <= known for known in names)


def test_header_of_a_frame_has_the_offsets_of_the_page() -> None:
    rows = re.findall(r"^\| (\d+) \| (\d+) \| ", PAGE, re.MULTILINE)
    places = [(int(offset), int(width)) for offset, width in rows]
    assert sum(width for _, width in places) == HEADER.size
    assert all(offset == sum(width for _, width in places[:n]) for n, (offset, _) in enumerate(places))


def test_codes_of_the_house_are_on_the_page() -> None:
    codes = set()
    for path in (ROOT / "server").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Refused":
                codes |= {first.value for first in node.args[:1] if isinstance(first, ast.Constant)}
    by_http = {"unauthorized", "foreign_origin", "invalid_scope", "too_large", "too_slow"}
    assert {code for code in codes - by_http if f"`{code}`" not in PAGE} == set()


def test_close_codes_that_the_server_uses_are_in_the_table() -> None:
    constants = re.compile(r"^(?:CLOSE_\w+|EXPIRED|TOO_MANY)\b.*= (\d{4}(?:, \d{4})*)$", re.MULTILINE)
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "server").glob("*.py")]
    used = {int(code) for text in texts for codes in constants.findall(text) for code in codes.split(", ")}
    assert {4001, 4029} <= used <= set(CLOSE_CODES)
