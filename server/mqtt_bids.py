"""Bids by way of a broker: each message is checked as on a WebSocket, done by the house, and answered.

    agents/ID/bids  → who is it → session.py (size, fields, rate, scope, own agent) → house → agents/ID/replies[/…]

Who may bid for ID: the bearer of a token that acts for it, sent as the MQTT 5 user property `authorization`; or, where
the server was told to trust the broker, whoever the broker lets publish there. It must not know connections.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tokenauction.server import mqtt_topics as topics
from tokenauction.server.auth import Identity
from tokenauction.server.client_messages import MAX_ID
from tokenauction.server.context import Context
from tokenauction.server.log import logger
from tokenauction.server.mqtt_link import LOST, Link
from tokenauction.server.refusal import Refused
from tokenauction.server.requests import EXPECTED, Requests
from tokenauction.server.session import Command, Reply, Session
from tokenauction.server.wire import AgentJoin, AgentLeave, BidUpdate, ClientMessage, Error, ServerMessage, encode
from tokenauction.server.wire_error import one_line

MAX_SESSIONS = 4_096  # rates of agents that are remembered
MAX_IN_FLIGHT = 64  # messages that wait for the ledger
MAX_CORRELATION = 1_024  # bytes

log = logger("tokenauction.server.mqtt")


class BidDesk:
    """The inbound half."""

    def __init__(self, context: Context, prefix: str, *, trusts_broker: bool) -> None:
        """`trusts_broker`: a message without a token is the agent's whose topic it came by."""
        self.context = context
        self.prefix = prefix
        self.trusts_broker = trusts_broker
        self._sessions: OrderedDict[tuple[str, str], Session] = OrderedDict()
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_listening = asyncio.Event()  # it has been, at least once

    async def run(self, link: Link) -> None:
        """Take what comes; ends with the link."""
        await link.subscribe(topics.all_bids(self.prefix))
        self.is_listening.set()
        async for message in link.messages():
            await self._slots.acquire()
            task = asyncio.create_task(self._serve(link, message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """A bid that is on the ledger reaches its auction, whoever hears of it."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, link: Link, message: aiomqtt.Message) -> None:
        try:
            agent_id = topics.agent_of(self.prefix, message.topic.value)
            topic, correlation, answers = await self._answers(agent_id, message)
            for answer in answers:
                await link.publish(topic, encode(answer), properties=correlation)
        except LOST as lost:
            log.warning("an answer is lost with the broker", topic=message.topic.value, reason=str(lost))
        finally:
            self._slots.release()

    async def _answers(
        self, agent_id: str, message: aiomqtt.Message
    ) -> tuple[str, Properties | None, list[ServerMessage]]:
        """Where to answer, with what properties, and what."""
        own = f"{message.topic.value.removesuffix('/bids')}/replies"
        wanted = getattr(message.properties, "ResponseTopic", own)
        correlation = _correlation(message)
        if (
            right := topics.bids(self.prefix, agent_id)
        ) != message.topic.value:  # a broker's rules know topics, not ids
            return own, correlation, [self._error("invalid_field", f"the agent's topic is {right}")]
        try:
            if not 0 < len(agent_id) <= MAX_ID:
                raise Refused("invalid_field", f"an agent's id has 1 to {MAX_ID} characters")
            identity = await self._identify(agent_id, message)
            session = self._session(identity, agent_id)
            if not topics.is_reply_topic(self.prefix, agent_id, wanted):
                raise Refused("invalid_field", f"the response topic must be {own} or below")
            return wanted, correlation, await self._do(session, identity, message)
        except EXPECTED as error:
            topic = wanted if topics.is_reply_topic(self.prefix, agent_id, wanted) else own
            return topic, correlation, [self._error(error.code, str(error))]

    async def _identify(self, agent_id: str, message: aiomqtt.Message) -> Identity:
        said = [value for name, value in _user_properties(message) if name.lower() == topics.TOKEN_PROPERTY]
        if said:
            identity = await self.context.doorkeeper.identify(said[0])
        elif self.trusts_broker:
            identity = Identity(f"mqtt/{agent_id}", frozenset({"bid"}), agent_id)
        else:
            raise Refused("unauthorized", "send the user property authorization: Bearer TOKEN (MQTT 5)")
        if not identity.may("bid"):
            raise Refused("forbidden", "this takes a token with the scope bid")
        if not identity.acts_for(agent_id):
            raise Refused("not_your_agent", "the token acts for another agent")
        return identity

    def _session(self, identity: Identity, agent_id: str) -> Session:
        """The one of this token and agent, so that their messages count together."""
        key = (identity.id, agent_id)
        if key not in self._sessions:
            stamp = self.context.house.decoder.stamp
            self._sessions[key] = Session(frozenset({"bid"}), agent_id, identity.expires, stamp)
            if len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)
        self._sessions.move_to_end(key)
        return self._sessions[key]

    async def _do(self, session: Session, identity: Identity, message: aiomqtt.Message) -> list[ServerMessage]:
        payload = message.payload if isinstance(message.payload, bytes) else str(message.payload).encode()
        text = payload.decode("utf-8", "surrogateescape")  # half a pair is not UTF-8, which the wire then says
        answers: list[ServerMessage] = []
        for item in session.take(text, self.context.doorkeeper.clock()):
            if isinstance(item, Reply):
                answers.append(item.message)
            elif isinstance(item, Command):
                answers.append(await self._command(session, identity, item.message))
        return answers

    async def _command(self, session: Session, identity: Identity, command: ClientMessage) -> ServerMessage:
        def refuse(code: str, why: str) -> ServerMessage:
            return session.refuse(command, code, why).message

        if not isinstance(command, AgentJoin | BidUpdate | AgentLeave):
            return refuse("forbidden", "over MQTT an agent joins, bids and leaves; all else is for the WebSocket")
        if isinstance(command, AgentJoin) and command.own_model:
            return refuse("forbidden", "an agent with a model of its own joins on the WebSocket: there it is asked")
        stamp: Callable[[], tuple[str, float]] = self.context.house.decoder.stamp
        requests = Requests(self.context.house, self.context.bidding, identity, stamp)
        try:
            answer = await requests.do(command)
            assert answer is not None, "joining, bidding and leaving are answered"
            return answer
        except EXPECTED as error:
            return refuse(error.code, str(error))
        except Exception:  # a defect of ours must not end what runs for others
            log.exception("a message could not be answered", kind=type(command).__name__)
            return refuse("internal", "the server failed at this; nothing is known of its effect")
        finally:
            session.end_auction(command.auction_id)  # there is no connection whose state this could be

    def _error(self, code: str, why: str) -> ServerMessage:
        event_id, time = self.context.house.decoder.stamp()
        return Error(event_id=event_id, time=time, code=code, message=one_line(why))


def _user_properties(message: aiomqtt.Message) -> list[tuple[str, str]]:
    said: list[tuple[str, str]] = getattr(message.properties, "UserProperty", [])
    return said


def _correlation(message: aiomqtt.Message) -> Properties | None:
    """What comes back with the answer, so that it is known which message it answers."""
    sent: Any = getattr(message.properties, "CorrelationData", None)
    if sent is None or len(sent) > MAX_CORRELATION:
        return None
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.CorrelationData = sent
    return properties
