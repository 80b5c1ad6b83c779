"""What the options of a command say of an MQTT broker."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tokenauction.clients.cli.settings import ServeSettings
from tokenauction.engine.errors import InvalidInput
from tokenauction.server.mqtt_topics import Address, InvalidAddress

if TYPE_CHECKING:
    from tokenauction.server.context import Context
    from tokenauction.server.mqtt import Mqtt


@dataclass(frozen=True)
class BrokerChoice:
    """One broker, and what a server is to it."""

    address: Address
    trusts_broker: bool = False
    tells_payments: bool = False

    async def knock(self) -> None:
        """Connect and go again; raises OSError where the broker is not there or does not want us."""
        from tokenauction.server.mqtt_link import LOST, link_to

        try:
            async with link_to(self.address):
                return
        except LOST as lost:
            raise OSError(str(lost)) from None

    def companion(self, context: Context) -> Mqtt:
        """What runs beside a server."""
        from tokenauction.server.mqtt import Mqtt, MqttSettings

        settings = MqttSettings(self.address, self.trusts_broker, self.tells_payments)
        return Mqtt(context, settings)


def broker_of(settings: ServeSettings) -> BrokerChoice | None:
    """The broker that a server's settings name, if any; raises InvalidInput."""
    if settings.mqtt is None:
        return None
    password = None if settings.mqtt_password is None else settings.mqtt_password.get_secret_value()
    address = address_of(settings.mqtt, password, ca=settings.mqtt_ca, certificate=settings.mqtt_certificate)
    return BrokerChoice(address, settings.mqtt_trust, settings.mqtt_payments)


def address_of(url: str, password: str | None, *, ca: Path | None = None, certificate: Path | None = None) -> Address:
    """The broker that `--mqtt` names; raises InvalidInput, also where the package for it is missing."""
    if find_spec("aiomqtt") is None:
        raise InvalidInput("--mqtt takes a package more: pip install 'tokenauction[mqtt]'")
    try:
        return Address.parse(url, password, ca=ca, certificate=certificate)
    except InvalidAddress as error:
        raise InvalidInput(f"--mqtt: {error}") from None
