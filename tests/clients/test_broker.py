"""What the commands say of brokers and bidders that cannot be."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.clients.conftest import Result

from tokenauction.clients.cli.broker import address_of, broker_of
from tokenauction.clients.cli.settings import ServeSettings
from tokenauction.engine.errors import InvalidInput

Run = Callable[..., Result]


def test_settings_without_a_broker_have_none() -> None:
    assert broker_of(ServeSettings.load({})) is None


def test_password_comes_from_the_settings_and_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENAUCTION_MQTT_PASSWORD", "s3cret")
    settings = ServeSettings.load({"mqtt": "mqtt://me@broker:99/here", "mqtt_trust": True})
    broker = broker_of(settings)
    assert broker is not None and broker.trusts_broker and not broker.tells_payments
    assert (broker.address.password, broker.address.username, broker.address.prefix) == ("s3cret", "me", "here")
    assert "s3cret" not in str(broker.address) + repr(broker) + repr(settings)


@pytest.mark.parametrize("url", ["", "broker", "http://x", "mqtt://me:s3cret@x", "mqtt://x/#"])
def test_broker_that_cannot_be_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        address_of(url, None)
    assert "s3cret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ("agent", "auc_1", "a", "--bid", "0.001", "--mqtt", "http://x"),
        ("openrtb", "auc_1", "a", "--bidder", "nonsense"),
        ("openrtb", "auc_1", "a", "--bidder", "http://127.0.0.1:1/", "--url", "http://127.0.0.1:1"),
        ("openrtb", "auc_1", "a", "--bidder", "http://127.0.0.1:1/", "--url", "ftp://x"),
    ],
)
def test_command_that_cannot_go_well_says_so_in_one_line(cli: Run, arguments: tuple[str, ...]) -> None:
    code, message = cli(*arguments).refusal
    assert code in ("invalid_input", "unreachable") and "\n" not in message
