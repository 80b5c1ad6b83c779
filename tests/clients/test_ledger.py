"""`tokenauction token …` and `ledger …`: what they print, beside a running server and without one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.server.places import EVERYWHERE
from tests.server.postgres import PASSWORD, new_url
from tests.server.toy_server import collect, spec_of, toy_server

from tokenauction.clients.cli.ledger import (
    audit,
    balances,
    create_token,
    deposit,
    entries,
    export,
    list_tokens,
    revoke_token,
    rotate_token,
)
from tokenauction.clients.cli.verify import Source, verify_receipt
from tokenauction.engine.errors import InvalidInput
from tokenauction.server.ledger import LedgerError


@pytest.fixture(params=EVERYWHERE)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where there is no ledger yet."""
    return str(tmp_path / "ledger.db") if request.param == "sqlite" else new_url()


def printed(capsys: pytest.CaptureFixture[str]) -> list[Any]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_tokens_are_made_listed_replaced_and_revoked(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    create_token(url, ["bid"], "alpha", 1.0)
    [first] = printed(capsys)
    assert first["secret"].startswith("ta_")
    rotate_token(url, first["token_id"])
    [second] = printed(capsys)
    assert second["secret"] != first["secret"]
    list_tokens(url)
    listed = {token["token_id"]: token for token in printed(capsys)}
    assert {name: token["state"] for name, token in listed.items()} == {
        first["token_id"]: "revoked",
        second["token_id"]: "good",
    }
    assert listed[second["token_id"]]["scopes"] == ["bid"] and listed[second["token_id"]]["agent_id"] == "alpha"
    assert not any("secret" in name for token in listed.values() for name in token)
    revoke_token(url, second["token_id"])
    assert capsys.readouterr().out == f"{second['token_id']}: revoked\n"
    with pytest.raises(LedgerError, match="create another"):
        rotate_token(url, second["token_id"])
    with pytest.raises(LedgerError, match="no token"):
        revoke_token(url, "tok_nobody")


def test_unknown_scope_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="choose of admin, bid"):
        create_token(str(tmp_path / "ledger.db"), ["everything"], None, None)


async def test_token_is_made_beside_a_running_server_and_opens_it(url: str, tmp_path: Path, capsys: Any) -> None:
    async with toy_server(tmp_path, ledger_url=url, is_open=False) as server:
        await asyncio.to_thread(create_token, url, ["watch"], None, None)
        [made] = printed(capsys)
        async with server.client(made["secret"]).connection() as socket:
            assert json.loads(await socket.recv())["scopes"] == ["watch"]
        await asyncio.to_thread(deposit, url, "palm", "1.5", None)
        account = await server.ledger.account("palm")
        assert account is not None and account.balance_micros == 1_500_000


async def test_ledger_is_read_and_checked_beside_a_running_server(url: str, tmp_path: Path, capsys: Any) -> None:
    async with toy_server(tmp_path, ledger_url=url) as server:
        [*_, settled] = await collect(server.client().create(spec_of("0.002", "0.001")))
        auction_id = settled["auction_id"]
        await asyncio.to_thread(verify_receipt, Source(auction_id, ledger=url), None, None)
        shown = capsys.readouterr().out
        assert "holds" in shown and settled["receipt_head"] in shown
        await asyncio.to_thread(balances, url)
        lines = dict(line.split() for line in capsys.readouterr().out.splitlines())
        assert lines["sum"] == "0" and lines["@house"] == settled["total"]
        await asyncio.to_thread(entries, url, "agent0")
        assert [entry["kind"] for entry in printed(capsys)] == ["deposit", "hold", "release"]
        await asyncio.to_thread(export, url, tmp_path / "entries")
        rows = [json.loads(line) for line in (tmp_path / "entries").read_text().splitlines()]
        assert sum(row["micros"] for row in rows) == 0
        assert await asyncio.to_thread(audit, url)
    assert PASSWORD not in capsys.readouterr().out
