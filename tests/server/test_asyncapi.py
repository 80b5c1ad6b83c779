"""docs/asyncapi.json is what the structs say, and AsyncAPI's own parser takes it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.server.hostile import bid, join, sparse, text

from tokenauction.server import wire
from tokenauction.server.asyncapi import FRAME, as_json, document

CHECKED_IN = Path(__file__).parents[2] / "docs" / "asyncapi.json"
PARSER = "@asyncapi/parser@3.6.6"
INSTALL_SECONDS = 240
VALIDATE = """
import { readFileSync } from "node:fs";
import parser from "@asyncapi/parser";
const { diagnostics, document } = await new parser.Parser().parse(readFileSync(0, "utf8"));
const wrong = diagnostics.filter(found => found.severity < 2).map(found => `${found.path.join(".")}: ${found.message}`);
process.stdout.write(JSON.stringify({ wrong, messages: document ? document.messages().all().length : 0 }));
"""


def test_document_that_is_checked_in_is_made_from_the_structs() -> None:
    remedy = "run: python -m tokenauction.server.asyncapi > docs/asyncapi.json"
    assert CHECKED_IN.read_text(encoding="utf-8") == as_json(), remedy


def test_document_has_every_message_and_the_server_receives_what_clients_send() -> None:
    operations = document()["operations"]
    received = {name for name, operation in operations.items() if operation["action"] == "receive"}
    assert received == {kind.__name__ for kind in wire.JSON_MESSAGES} | {FRAME}
    sent = {kind.__name__ for kind in (*wire.STREAM_EVENTS, *wire.ANSWERS)}
    assert set(operations) == received | sent


@pytest.mark.parametrize("sent", [bid(bid_id="b"), join(brief={"name": "n", "offer": "o"}), sparse(), text("ping")])
def test_document_has_the_fields_of_a_message_that_the_decoder_takes(sent: str) -> None:
    schema = document()["components"]["schemas"][type(wire.decode(sent)).__name__]
    fields = set(json.loads(sent))
    assert set(schema["required"]) <= fields <= set(schema["properties"])
    assert schema["additionalProperties"] is False


@pytest.mark.slow
def test_asyncapi_parser_takes_the_document(tmp_path: Path) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("node and npm are not installed")
    install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(tmp_path), PARSER]
    try:
        subprocess.run(install, check=True, capture_output=True, timeout=INSTALL_SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"npm cannot fetch {PARSER}: {error}")
    (tmp_path / "validate.mjs").write_text(VALIDATE, encoding="utf-8")
    run = [node, "validate.mjs"]
    done = subprocess.run(run, input=as_json(), capture_output=True, text=True, cwd=tmp_path, check=True, timeout=60)
    found = json.loads(done.stdout)
    assert found == {"wrong": [], "messages": len(document()["components"]["messages"])}
