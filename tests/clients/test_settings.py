"""Settings: which source counts, what each takes, and what is said of a value that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.clients.conftest import Result

from tokenauction.clients.cli.setting_flags import filled
from tokenauction.clients.cli.settings import PREFIX, ServeSettings, strangers
from tokenauction.engine.errors import InvalidInput

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
SECRET = "postgresql://auctioneer:s3cret@host/auctions"

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*ServeSettings.model_fields, "config"]:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)


def written(folder: Path, text: str) -> Path:
    path = folder / "server.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(flags: dict[str, Any], file: Path | None = None) -> str:
    with pytest.raises(InvalidInput) as caught:
        ServeSettings.load(flags, file)
    assert "s3cret" not in str(caught.value)
    return str(caught.value)


def test_flag_counts_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, 'port = 1\nhost = "file"\nrunner = "file"\n')
    monkeypatch.setenv("TOKENAUCTION_PORT", "2")
    monkeypatch.setenv("TOKENAUCTION_HOST", "environment")
    found = ServeSettings.load({"port": 3}, file)
    assert (found.port, found.host, found.runner, found.numerics) == (3, "environment", "file", "auto")


def test_file_is_named_by_the_environment_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENAUCTION_CONFIG", str(written(tmp_path, "port = 7\n")))
    assert ServeSettings.load({}).port == 7


def test_every_setting_is_read_from_a_file(tmp_path: Path) -> None:
    text = f"""
    host = "::1"
    port = 0
    ledger = "{SECRET}"
    model = "m"
    runner = "packed"
    numerics = "int8"
    cache_gib = 0.5
    auth = false
    origin = ["https://a", "https://b"]
    play_money = 100
    presets = "folder"
    drain_seconds = 1
    """
    found = ServeSettings.load({}, written(tmp_path, text))
    assert set(found.model_fields_set) >= {
        "host", "port", "ledger", "model", "runner", "numerics", "cache_gib", "auth", "origin", "play_money", "presets"
    }  # fmt: skip
    assert found.ledger.get_secret_value() == SECRET and "s3cret" not in repr(found)
    assert (found.origin, found.play_money, found.presets) == (("https://a", "https://b"), "100", Path("folder"))


@pytest.mark.parametrize("text", ["https://a https://b", "https://a,https://b", " https://a ,  https://b,"])
def test_origins_stand_between_spaces_or_commas_in_the_environment(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("TOKENAUCTION_ORIGIN", text)
    assert ServeSettings.load({}).origin == ("https://a", "https://b")


def test_empty_variable_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENAUCTION_PORT", "")
    assert ServeSettings.load({}).port == 8400


def test_refusal_names_where_the_value_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal({"port": 70_000}).startswith("--port cannot be: input should be less than or equal to 65535")
    assert refusal({"cache_gib": float("nan")}).startswith("--cache-gib cannot be")
    file = written(tmp_path, "drain_seconds = -1\n")
    assert refusal({}, file).startswith(f"drain_seconds in {file} cannot be: input should be greater than")
    monkeypatch.setenv("TOKENAUCTION_AUTH", "perhaps")
    assert refusal({}).startswith("TOKENAUCTION_AUTH cannot be: input should be a valid boolean")


def test_key_of_a_file_that_is_no_setting_is_refused(tmp_path: Path) -> None:
    said = refusal({}, written(tmp_path, "prot = 1\n"))
    assert "'prot'" in said and "port" in said
    assert "'token'" in refusal({}, written(tmp_path, '[token]\nsecret = "s3cret"\n'))


@pytest.mark.parametrize(
    "text", ["port = ", "[", "port = 1\nport = 2", 'ledger = "s3cret', "\x00", 'ledger = ["s3cret"]']
)
def test_file_that_cannot_be_read_is_refused_and_shows_nothing(tmp_path: Path, text: str) -> None:
    file = written(tmp_path, text)
    assert str(file) in refusal({}, file)
    file.write_bytes(b"\xff\xfe")
    assert "is no TOML" in refusal({}, file)
    assert "No such file" in refusal({}, tmp_path / "nothing.toml")
    assert "directory" in refusal({}, tmp_path)


@given(text=st.text(max_size=80))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_file_is_settings_or_a_refusal(tmp_path: Path, text: str) -> None:
    file = written(tmp_path, text.replace("\ud800", ""))
    try:
        ServeSettings.load({}, file)
    except InvalidInput as error:
        assert str(error)


def test_misspelt_variable_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENAUCTION_PROT", "1")
    monkeypatch.setenv("TOKENAUCTION_TOKEN", "ta_secret")
    assert strangers() == ["TOKENAUCTION_PROT"]


def test_page_has_the_table_of_the_code() -> None:
    text = PAGE.read_text(encoding="utf-8")
    remedy = "put there what this prints: python -m tokenauction.clients.cli.setting_flags < docs/operations.md"
    assert filled(text) == text, remedy
    assert all(f"`{PREFIX}{name.upper()}`" in text for name in ServeSettings.model_fields)


def test_command_takes_every_setting_as_a_flag(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for command in ("serve", "doctor"):
        shown = cli(command, "--help").out
        assert all("--" + name.replace("_", "-") in shown for name in ServeSettings.model_fields)
        assert "--no-auth" in shown and "--config" in shown
    assert "--port cannot be" in cli("serve", "--port", "70000").refusal[1]
    assert "127.0.0.1" in cli("serve", "--host", "0.0.0.0", "--no-auth").refusal[1]
    monkeypatch.setenv("TOKENAUCTION_LEDGER", "postgres:/auctioneer:s3cret@host://x")
    assert "s3cret" not in cli("serve", "--play-money", "much").err


def test_commands_look_into_the_ledger_that_serve_would_take(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, f'ledger = "{tmp_path / "of_file.db"}"\n')
    monkeypatch.setenv("TOKENAUCTION_CONFIG", str(file))
    assert cli("ledger", "deposit", "palm", "1").out == "palm: 1\n"
    assert (tmp_path / "of_file.db").exists()
    assert cli("ledger", "balances", "--ledger", tmp_path / "other.db").out.count("\n") == 4
    monkeypatch.setenv("TOKENAUCTION_LEDGER", str(tmp_path / "of_environment.db"))
    assert "palm" not in cli("ledger", "balances").out
