"""One connection: keeps its states, its rate and its open steps, by the tables of legality.py; no socket, no clock.

    message in → rate → decode → expired? → scope → own agent? → legal now? → Command for the house, or a refusal

The house's answer ends joining and leaving. A message that is refused here changes nothing but the allowance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from types import MappingProxyType

from msgspec import UNSET

from tokenauction.server import wire
from tokenauction.server.client_messages import JSON_MESSAGES
from tokenauction.server.legality import (
    ALLOWED_BY,
    ANSWERED,
    EXPIRED,
    FIRST,
    LEGAL,
    LIMITS,
    NOT_NOW,
    SESSION_CODES,
    TOO_MANY,
    State,
)
from tokenauction.server.wire import ClientMessage, ServerMessage, WireError
from tokenauction.server.wire_error import one_line

Key = tuple[str, ...]  # (auction,) is a stream, (auction, agent) an agent; () is neither
Distribution = wire.DistributionSubmit | wire.DenseDistribution
Stamp = Callable[[], tuple[str, float]]  # a fresh event id, and the time in seconds since 1970

MESSAGES_PER_SECOND = 50.0  # that are allowed for long
BURST = 100.0  # messages at once
REFUSAL_COST = 4.0  # messages that a refused one counts as, beside itself
MAX_IGNORED = 100  # messages in a row that come although the rate is exceeded

_TYPE_NAMES: MappingProxyType[type, str] = MappingProxyType(
    {kind: str(kind.__struct_config__.tag) for kind in JSON_MESSAGES} | {wire.DenseDistribution: "distribution.submit"}
)


@dataclass(frozen=True)
class Command:
    """A legal message, for the house."""

    message: ClientMessage


@dataclass(frozen=True)
class Reply:
    """A message for this client alone."""

    message: ServerMessage


@dataclass(frozen=True)
class Close:
    """Close the connection with this code."""

    code: int
    reason: str


Action = Command | Reply | Close


@dataclass(eq=False)
class Session:
    """One connection's side of the protocol."""

    scopes: Collection[str]  # of the token that opened it
    agent_id: str | None  # the one agent it may act for; None for any
    expires: float | None  # seconds since 1970
    stamp: Stamp
    allowance: float = BURST  # messages that may come at once
    _at: float | None = None  # when the allowance was last counted
    _num_ignored: int = 0
    _states: dict[Key, State] = field(default_factory=dict)  # those that are not the first of their kind
    _steps: dict[Key, int] = field(default_factory=dict)  # the step whose distribution is awaited
    _sent: dict[Key, int] = field(default_factory=dict)  # the step whose distribution the house looks at

    def greet(self, session_id: str) -> Reply:
        """The first message of the connection."""
        event_id, time = self.stamp()
        greeting = wire.SessionCreated(
            event_id=event_id,
            time=time,
            session_id=session_id,
            scopes=sorted(self.scopes),
            agent_id=self.agent_id,
            max_message_bytes=wire.MAX_MESSAGE_BYTES,
            max_frame_bytes=wire.MAX_FRAME_BYTES,
        )
        return Reply(greeting)

    def take(self, data: str | bytes, now: float) -> list[Action]:
        """What to do about a text or binary message that came at `now`, in seconds since 1970."""
        if refused := self._count(now):
            return refused
        try:
            message = wire.decode(data)
        except WireError as error:
            self.allowance -= REFUSAL_COST
            return [self._error(error.code, error.message, error.request, error.request_id)]
        return self.receive(message, now)

    def receive(self, message: ClientMessage, now: float) -> list[Action]:
        """What to do about a decoded message; the rate is not looked at."""
        if self.expires is not None and now >= self.expires:
            return [
                self.refuse(message, "token_expired", SESSION_CODES["token_expired"]),
                Close(EXPIRED, "token expired"),
            ]
        if isinstance(message, wire.Ping):
            event_id, time = self.stamp()
            return [Reply(wire.Pong(event_id=event_id, time=time, id=message.id))]
        if code := self._illegal(message):
            self.allowance -= REFUSAL_COST
            return [self.refuse(message, code, SESSION_CODES[code])]
        self._move(message)
        return [Command(message)]

    def refuse(self, message: ClientMessage, code: str, why: str) -> Reply:
        """The refusal of a message, the house's as well: `bid.rejected` for a bid, an `error` for anything else."""
        if not isinstance(message, wire.BidUpdate):
            request_id = None if isinstance(message, wire.Ping) else message.request_id
            return self._error(code, why, type_of(message), request_id)
        event_id, time = self.stamp()
        return Reply(
            wire.BidRejected(
                event_id=event_id,
                time=time,
                request_id=message.request_id or UNSET,
                auction_id=message.auction_id,
                agent_id=message.agent_id,
                bid_id=message.bid_id or UNSET,
                code=code,
                message=one_line(why),
            )
        )

    def answer(self, message: ClientMessage, *, accepted: bool) -> None:
        """The house has answered a command: joining and leaving are over, and a refused subscription is none."""
        key, state = _key(message), self.state_of(message)
        if type_of(message) == "subscribe" and not accepted:
            self._put(key, "away")
        elif isinstance(message, Distribution) and self._sent.pop(key, None) == message.step and not accepted:
            self._steps[key] = message.step  # another one may come as long as the step is open
        elif type_of(message) in ("agent.join", "agent.leave") and state is not None and state in ANSWERED:
            self._put(key, ANSWERED[state][0 if accepted else 1])

    def open_step(self, auction_id: str, agent_id: str, step: int) -> None:
        """The distribution of this step is awaited from now on, and no other of this agent."""
        self._steps[auction_id, agent_id] = step
        self.allowance += 1  # the server asks for this message: it is not one too many

    def close_step(self, auction_id: str, agent_id: str) -> None:
        """Its time is over."""
        self._steps.pop((auction_id, agent_id), None)
        self._sent.pop((auction_id, agent_id), None)

    def end_auction(self, auction_id: str) -> None:
        """The auction has settled and its stream is at its end: nothing of it is kept."""
        self._states = {key: state for key, state in self._states.items() if key[0] != auction_id}
        self._steps = {key: step for key, step in self._steps.items() if key[0] != auction_id}
        self._sent = {key: step for key, step in self._sent.items() if key[0] != auction_id}

    def state_of(self, message: ClientMessage) -> State | None:
        """Where the connection stands to what the message is about; None for a message that needs no such state."""
        key = _key(message)
        return self._states.get(key, FIRST[len(key)]) if key else None

    def _count(self, now: float) -> list[Action]:
        """Take one message from the allowance; what to do instead of reading it where none is left."""
        elapsed = 0.0 if self._at is None else max(0.0, now - self._at)
        self.allowance = min(BURST, self.allowance + elapsed * MESSAGES_PER_SECOND)
        self._at = now
        if self.allowance >= 1:
            self.allowance -= 1
            self._num_ignored = 0
            return []
        self._num_ignored += 1
        if self._num_ignored > MAX_IGNORED:
            return [Close(TOO_MANY, "rate exceeded")]
        wait_ms = math.floor((1 - self.allowance) / MESSAGES_PER_SECOND * 1e3) + 1  # not a rounding error too early
        return [self._error("rate_limited", SESSION_CODES["rate_limited"], retry_after_ms=wait_ms)]

    def _illegal(self, message: ClientMessage) -> str | None:
        """The code for which this message is not legal now; None where it is."""
        legality, key, state = LEGAL[type_of(message)], _key(message), self.state_of(message)
        if legality.scope is not None and not ALLOWED_BY[legality.scope] & set(self.scopes):
            return "forbidden"
        if len(key) == 2 and self.agent_id not in (None, key[1]):
            return "not_your_agent"
        if state is not None and state not in legality.moves:
            return NOT_NOW[state]
        if isinstance(message, Distribution) and self._steps.get(key) != message.step:
            return "step_not_open"
        if state is not None and key not in self._states and legality.moves[state] != state:
            limit, code = LIMITS[len(key)]
            if sum(len(known) == len(key) for known in self._states) >= limit:
                return code
        return None

    def _move(self, message: ClientMessage) -> None:
        """Take in a legal message."""
        key, state = _key(message), self.state_of(message)
        if state is not None:
            self._put(key, LEGAL[type_of(message)].moves[state])
        if isinstance(message, Distribution):
            self._sent[key] = self._steps.pop(key)

    def _put(self, key: Key, state: State) -> None:
        if state == FIRST[len(key)]:
            self._states.pop(key, None)
        else:
            self._states[key] = state

    def _error(
        self,
        code: str,
        why: str,
        request: str | None = None,
        request_id: str | None = None,
        retry_after_ms: int | None = None,
    ) -> Reply:
        event_id, time = self.stamp()
        return Reply(
            wire.Error(
                event_id=event_id,
                time=time,
                request_id=request_id or UNSET,
                code=code,
                message=one_line(why),
                request=request or UNSET,
                retry_after_ms=UNSET if retry_after_ms is None else retry_after_ms,
            )
        )


def type_of(message: ClientMessage) -> str:
    """The type of a client's message as the wire names it."""
    return _TYPE_NAMES[type(message)]


def _key(message: ClientMessage) -> Key:
    """To what a message's legality belongs."""
    if isinstance(message, wire.Subscribe | wire.Unsubscribe):
        return (message.auction_id,)
    if isinstance(message, wire.AgentJoin | wire.BidUpdate | wire.AgentLeave | Distribution):
        return message.auction_id, message.agent_id
    return ()
