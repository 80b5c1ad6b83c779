"""Brokers that ask who one is: TLS, certificates, passwords, and what they refuse."""

from __future__ import annotations

import asyncio
import gc
import logging
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.server.broker import LONGEST_SECONDS, broker_in, needs_mosquitto, witness_of
from tests.server.toy_server import collect, spec_of

from tokenauction.server.mqtt import Mqtt, MqttSettings
from tokenauction.server.mqtt_topics import Address

Start = Callable[..., Any]
pytestmark = [
    pytest.mark.slow,
    needs_mosquitto,
    pytest.mark.skipif(
        shutil.which("openssl") is None or shutil.which("mosquitto_passwd") is None, reason="no openssl is installed"
    ),
]


def certify(folder: Path) -> None:
    """A certificate authority, and what it signed: server.pem for 127.0.0.1, and client.pem with its key."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    openssl("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    for name in ("server", "client"):
        (folder / f"{name}.txt").write_text("subjectAltName=IP:127.0.0.1\n")
        openssl("req", *new_key[:-2], "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signing = ["x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
        openssl(*signing, "-out", f"{name}.crt", "-days", "2", "-extfile", f"{name}.txt")
    (folder / "client.pem").write_text((folder / "client.crt").read_text() + (folder / "client.key").read_text())


def tls_lines(folder: Path) -> tuple[str, ...]:
    files = {"cafile": "ca.pem", "certfile": "server.crt", "keyfile": "server.key"}
    return ("allow_anonymous true", *(f"{name} {folder / file}" for name, file in files.items()))


async def tells(start: Start, address: Address, broker: Any, *witness_options: str) -> None:
    """An auction's settlement reaches a witness."""
    events = "tokenauction/v1/auctions/+/events/auction.settled"
    companions = lambda app: [Mqtt(app.context, MqttSettings(address))]  # noqa: E731
    async with witness_of(broker, events, *witness_options) as witness, start(companions=companions) as server:
        end = (await collect(server.client().create(spec_of("0.002"))))[-1]
        seen = await witness.until(lambda witness: bool(witness.seen))
        assert seen[0][1]["text"] == end["text"]


async def test_server_speaks_to_a_broker_with_tls_and_a_certificate_of_its_own(start: Start, tmp_path: Path) -> None:
    certify(tmp_path)
    lines = (*tls_lines(tmp_path), "require_certificate true")
    async with broker_in(tmp_path / "broker", *lines) as broker:
        url = broker.url.replace("mqtt:", "mqtts:")
        address = Address.parse(url, ca=tmp_path / "ca.pem", certificate=tmp_path / "client.pem")
        own = ("--cert", str(tmp_path / "client.crt"), "--key", str(tmp_path / "client.key"))
        await tells(start, address, broker, "--cafile", str(tmp_path / "ca.pem"), *own)


async def test_server_speaks_to_a_broker_that_wants_a_password(start: Start, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "me", "secret"], check=True, capture_output=True)
    lines = ("allow_anonymous false", f"password_file {passwords}")
    async with broker_in(tmp_path / "broker", *lines) as broker:
        address = Address.parse(broker.url.replace("//", "//me@"), "secret")
        await tells(start, address, broker, "-u", "me", "-P", "secret")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # paho leaves a socket to the collector
@pytest.mark.parametrize("what", ["no trust", "no password", "no permission"])
async def test_broker_that_refuses_is_said_once_and_holds_up_nothing(
    start: Start, tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    lines: tuple[str, ...] = ("allow_anonymous false",)
    if what == "no trust":
        certify(tmp_path)
        lines = tls_lines(tmp_path)
    elif what == "no permission":
        (tmp_path / "acl").write_text("topic read #\n")
        lines = ("allow_anonymous true", f"acl_file {tmp_path / 'acl'}")
    async with broker_in(tmp_path / "broker", *lines) as broker:
        url = broker.url.replace("mqtt:", "mqtts:") if what == "no trust" else broker.url
        companions = lambda app: [Mqtt(app.context, MqttSettings(Address.parse(url)))]  # noqa: E731
        with caplog.at_level(logging.WARNING, "tokenauction.server.mqtt"):
            async with start(companions=companions) as server:
                end = (await collect(server.client().create(spec_of("0.002"))))[-1]
                async with asyncio.timeout(LONGEST_SECONDS):
                    while not caplog.records:
                        await asyncio.sleep(0.01)
                assert end["finish_reason"] == "max_tokens"
                assert len(await server.ledger.outbox("mqtt").unsent(100)) == 14  # it waits for a better broker
    said = [record.getMessage() for record in caplog.records if record.name == "tokenauction.server.mqtt"]
    assert len(said) == 1 and "trying on" in said[0] and "\n" not in said[0]
    gc.collect()
