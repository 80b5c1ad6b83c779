"""`tokenauction doctor`: a line for everything a server needs, a remedy where it lacks, and an exit code."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.clients.conftest import Result
from tests.server.places import needs_postgres
from tests.server.postgres import PASSWORD, new_url
from tests.server.toy_server import toy_server

from tokenauction.clients.cli import doctor
from tokenauction.clients.cli.ledger import deposit
from tokenauction.clients.cli.settings import ServeSettings

Run = Callable[..., Result]


def findings(out: str) -> dict[str, tuple[str, str]]:
    """Level and text by name, the last of each."""
    lines = [line.split(maxsplit=2) for line in out.splitlines()[:-1]]
    return {name: (level, says) for level, name, says in lines}


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[bool, dict]]:
    """What doctor says of settings, without loading a model."""
    monkeypatch.setattr(doctor, "CHECKS", {name: check for name, check in doctor.CHECKS.items() if name != "model"})

    def look(**flags: object) -> tuple[bool, dict[str, tuple[str, str]]]:
        capsys.readouterr()
        is_good = doctor.examine(ServeSettings.load({"port": 0, **flags}))
        return is_good, findings(capsys.readouterr().out)

    return look


@pytest.mark.slow
def test_doctor_finds_nothing_wrong_with_the_shipped_model(cli: Run, tmp_path: Path) -> None:
    result = cli("doctor", "--port", "0", "--ledger", tmp_path / "ledger.db")
    assert result.code == 0, result
    found = findings(result.out)
    assert set(found) >= {"versions", "threads", "compiler", "presets", "ledger", "port", "model"}
    assert found["model"][1].startswith("tokenauction-default loads in")
    assert found["ledger"] == ("ok", "none yet: the server makes it")
    assert list(tmp_path.iterdir()) == []


def test_doctor_says_what_keeps_a_server_away(look: Callable[..., tuple[bool, dict]], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        is_good, found = look(port=port, ledger=str(tmp_path / "nowhere" / "ledger.db"), presets=str(tmp_path / "no"))
    assert not is_good
    assert found["port"][0] == "bad" and "choose another by --port" in found["port"][1]
    assert found["ledger"][0] == "bad" and "cannot be written" in found["ledger"][1]
    assert found["presets"][0] == "bad" and "must be a folder" in found["presets"][1]


def test_doctor_names_a_variable_that_nothing_reads_and_a_compiler_that_lacks(
    look: Callable[..., tuple[bool, dict]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENAUCTION_PROT", "1")
    monkeypatch.setenv("CXX", "nothing-of-that-name")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    is_good, found = look(ledger=str(tmp_path / "ledger.db"))
    assert is_good
    assert found["environment"][0] == found["compiler"][0] == found["threads"][0] == "note"
    assert "TOKENAUCTION_PROT" in found["environment"][1] and "install g++" in found["compiler"][1]


async def test_doctor_looks_at_a_ledger_beside_its_server(tmp_path: Path) -> None:
    async with toy_server(tmp_path):
        said = await doctor._visit(str(tmp_path / "ledger.db"))
        assert said.level == "note" and "in use by process" in said.says
    assert (await doctor._visit(str(tmp_path / "ledger.db"))).level == "ok"


@needs_postgres
@pytest.mark.slow
def test_doctor_reaches_postgresql_and_shows_no_password(look: Callable[..., tuple[bool, dict]]) -> None:
    url = new_url()
    assert look(ledger=url)[1]["ledger"] == ("ok", "none yet: the server makes it")
    deposit(url, "palm", "1", None)
    assert look(ledger=url)[1]["ledger"][1].startswith("durable, of this version, nobody's")
    for wrong in (url.replace("auctioneer", "nobody"), url.replace("127.0.0.1", "127.0.0.1:1"), url + "_nowhere"):
        is_good, found = look(ledger=wrong)
        assert not is_good and found["ledger"][0] == "bad"
        assert PASSWORD not in found["ledger"][1] and "s3cret" not in found["ledger"][1]
