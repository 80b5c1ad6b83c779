"""One connection to a broker: MQTT 5, QoS 1; what the broker does not acknowledge is an error of the connection.

It must not know what is said over it.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from tokenauction.server.mqtt_topics import Address

QOS = 1
ACKNOWLEDGE_SECONDS = 10.0  # for the broker to acknowledge anything
KEEP_ALIVE_SECONDS = 15
MAX_PACKET = 128 * 1024  # bytes of what is taken from the broker
MAX_QUEUED = 10_000  # messages that wait to be read; what comes beyond is lost, and its sender hears nothing
WITH_RETAINED, NO_RETAINED = 0, 2  # of MQTT 5: whether a subscription brings what was there before
MAX_PUBLISHING = 256  # at a time
AT_ONCE = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # an answer behind an acknowledgement would wait 40 ms

log = logging.getLogger("tokenauction.server.mqtt")
LOST = (aiomqtt.MqttError, OSError, ssl.SSLError)  # what is worth another try


class _Client(aiomqtt.Client):
    """aiomqtt's client, which takes a publication that the broker refuses for one that it took."""

    refusal: str | None = None

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason_code: Any, properties: Any) -> None:
        if reason_code.is_failure:
            self.refusal = str(reason_code)
        super()._on_publish(client, userdata, mid, reason_code, properties)


class Link:
    """An open connection."""

    def __init__(self, client: _Client) -> None:
        """Use `link_to`."""
        self._client = client

    async def publish(
        self, topic: str, payload: str | bytes, *, retain: bool = False, properties: Properties | None = None
    ) -> None:
        """Return when the broker has acknowledged it; raises one of LOST."""
        await self._client.publish(topic, payload, QOS, retain, properties)
        if self._client.refusal is not None:
            raise aiomqtt.MqttError(f"the broker refuses what is published to {topic}: {self._client.refusal}")

    async def subscribe(self, topic: str, *, with_retained: bool = False, is_needed: bool = True) -> None:
        """Ask for what is said there from now on; raises one of LOST, also where the broker refuses what is needed."""
        options = SubscribeOptions(qos=QOS, retainHandling=WITH_RETAINED if with_retained else NO_RETAINED)
        for code in await self._client.subscribe(topic, options=options):
            if is_needed and not isinstance(code, int) and code.is_failure:
                raise aiomqtt.MqttError(f"the broker refuses a subscription to {topic}: {code}")

    async def messages(self) -> AsyncIterator[aiomqtt.Message]:
        """What comes; raises one of LOST when the connection is."""
        async for message in self._client.messages:
            yield message


@asynccontextmanager
async def link_to(address: Address, will: aiomqtt.Will | None = None) -> AsyncIterator[Link]:
    """A connection; raises one of LOST where it cannot be had, or ends."""
    connect = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    connect.MaximumPacketSize = MAX_PACKET
    client = _Client(
        address.host,
        address.port,
        username=address.username,
        password=address.password,
        protocol=aiomqtt.ProtocolVersion.V5,
        will=will,
        timeout=ACKNOWLEDGE_SECONDS,
        keepalive=KEEP_ALIVE_SECONDS,
        max_queued_incoming_messages=MAX_QUEUED,
        properties=connect,
        tls_context=address.tls,
        socket_options=[AT_ONCE],
        logger=log,
    )
    client.pending_calls_threshold = MAX_PUBLISHING + 2
    async with client:
        yield Link(client)
