"""What a connection may say when, as tables: scopes, states, codes of refusals, close codes.

A connection stands in one state to every stream (away, watching) and in one to every agent of an auction (outside,
joining, joined, leaving, left). LEGAL says in which of them a message is legal and where it leads; session.py keeps the
states. It must not know what else a message must be (client_messages.py), nor what the house makes of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Scope = Literal["watch", "bid", "admin"]
Subject = Literal["", "stream", "agent"]  # to what a message's legality belongs
State = Literal["away", "watching", "outside", "joining", "joined", "leaving", "left"]

MAX_SUBSCRIPTIONS = 64  # of one connection
MAX_AGENTS = 64  # of one connection, over all auctions that run

ALLOWED_BY = MappingProxyType(  # who has a scope has those it contains
    {
        "watch": frozenset({"watch", "bid", "admin"}),
        "bid": frozenset({"bid", "admin"}),
        "admin": frozenset({"admin"}),
    }
)

SESSION_CODES = MappingProxyType(
    {
        "rate_limited": "too many messages; the answer says when the next is read",
        "token_expired": "the token that opened the connection has expired or was revoked; it closes",
        "forbidden": "the token's scopes do not allow this message",
        "not_your_agent": "the token acts for another agent",
        "already_subscribed": "the connection watches this auction",
        "not_subscribed": "the connection does not watch this auction",
        "too_many_subscriptions": f"a connection watches at most {MAX_SUBSCRIPTIONS} auctions",
        "already_joined": "the agent has joined on this connection",
        "join_pending": "the agent's joining has not been answered yet",
        "leave_pending": "the agent's leaving has not been answered yet",
        "not_joined": "the agent has not joined on this connection",
        "agent_left": "the agent has left this auction, for good",
        "too_many_agents": f"a connection acts for at most {MAX_AGENTS} agents",
        "step_not_open": "no distribution of this step is awaited: late, early, or sent already",
    }
)

CLOSE_CODES = MappingProxyType(
    {
        1000: "the client is done",
        1001: "the server has drained and stops; connect again",
        1002: "the bytes were no WebSocket frame; a compressed one is none, since compression is not agreed to",
        1007: "a text message was not UTF-8",
        1009: "a message had more bytes than any may have",
        1011: "the server failed; nothing acknowledged is lost",
        4001: "the token expired or was revoked; connect with another",
        4008: "the client read too slowly; connect again and resume behind the last seq",
        4029: "the client went on sending although it was told that the rate is exceeded",
    }
)
EXPIRED, TOO_MANY = 4001, 4029

FIRST: MappingProxyType[int, State] = MappingProxyType({1: "away", 2: "outside"})  # to a stream, to an agent
LIMITS: MappingProxyType[int, tuple[int, str]] = MappingProxyType(  # of streams and agents that are in another state
    {1: (MAX_SUBSCRIPTIONS, "too_many_subscriptions"), 2: (MAX_AGENTS, "too_many_agents")}
)

NOT_NOW: MappingProxyType[State, str] = MappingProxyType(  # what a message is told that its state does not allow
    {
        "away": "not_subscribed",
        "watching": "already_subscribed",
        "outside": "not_joined",
        "joining": "join_pending",
        "joined": "already_joined",
        "leaving": "leave_pending",
        "left": "agent_left",
    }
)


@dataclass(frozen=True)
class Legality:
    """When a message is legal."""

    scope: Scope | None  # that it needs
    subject: Subject
    moves: MappingProxyType[State, State]  # from each state that allows it, to the next


def _legal(scope: Scope | None, subject: Subject = "", **moves: State) -> Legality:
    return Legality(scope, subject, MappingProxyType({name: moves[name] for name in NOT_NOW if name in moves}))


LEGAL: MappingProxyType[str, Legality] = MappingProxyType(
    {
        "auction.create": _legal("admin"),
        "auction.cancel": _legal("admin"),
        "subscribe": _legal("watch", "stream", away="watching"),
        "unsubscribe": _legal("watch", "stream", watching="away"),
        "agent.join": _legal("bid", "agent", outside="joining"),
        "bid.update": _legal("bid", "agent", outside="outside", joined="joined"),  # outside: it joined elsewhere
        "agent.leave": _legal("bid", "agent", outside="leaving", joined="leaving"),
        "distribution.submit": _legal("bid", "agent", joined="joined"),
        "ping": _legal(None),
    }
)
# What the house's answer makes of a state: (where it said yes, where it said no).
ANSWERED: MappingProxyType[State, tuple[State, State]] = MappingProxyType(
    {"joining": ("joined", "outside"), "leaving": ("left", "outside")}
)
