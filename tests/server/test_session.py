"""A connection says what the table allows, as often as is allowed, for whom its token acts; a dictionary agrees."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.server.hostile import ALPHA, AUCTION, HASH, LOG_HALF, OPEN_STEP, bid, dense, join, sparse, text

from tokenauction.server import wire
from tokenauction.server.legality import (
    ANSWERED,
    CLOSE_CODES,
    EXPIRED,
    LEGAL,
    MAX_AGENTS,
    MAX_SUBSCRIPTIONS,
    NOT_NOW,
    SESSION_CODES,
    TOO_MANY,
)
from tokenauction.server.session import (
    BURST,
    MAX_IGNORED,
    MESSAGES_PER_SECOND,
    REFUSAL_COST,
    Action,
    Close,
    Command,
    Reply,
    Session,
    type_of,
)

NOW = 1_000.0
PING = text("ping")
LEAVE = text("agent.leave", auction_id=AUCTION, agent_id=ALPHA)


def session_of(*scopes: str, agent_id: str | None = None, expires: float | None = None) -> Session:
    count = itertools.count()
    return Session(frozenset(scopes), agent_id, expires, lambda: (f"evt_{next(count)}", NOW))


def code_of(actions: list[Action]) -> str | None:
    """The code of the refusal among these; None where a command came of it."""
    [first, *_] = actions
    if isinstance(first, Command):
        return None
    assert isinstance(first, Reply) and isinstance(first.message, wire.Error | wire.BidRejected)
    return first.message.code


def accept(session: Session, sent: str | bytes, *, accepted: bool = True) -> None:
    """Send something legal, which the house then accepts (or not)."""
    [action] = session.take(sent, NOW)
    assert isinstance(action, Command), action
    session.answer(action.message, accepted=accepted)


# --- The table ----------------------------------------------------------------------------------------------------


def test_table_has_a_row_for_every_message() -> None:
    assert set(LEGAL) == {str(kind.__struct_config__.tag) for kind in wire.JSON_MESSAGES}


def test_table_leads_only_to_states_and_codes_that_exist() -> None:
    assert {after for legality in LEGAL.values() for after in legality.moves.values()} <= set(NOT_NOW)
    assert set(NOT_NOW.values()) <= set(SESSION_CODES)
    assert {EXPIRED, TOO_MANY} <= set(CLOSE_CODES)
    assert set(ANSWERED) == {"joining", "leaving"}


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        ("watch", {"subscribe", "unsubscribe", "ping"}),
        ("bid", {"subscribe", "unsubscribe", "ping", "agent.join", "agent.leave", "bid.update", "distribution.submit"}),
        ("admin", set(LEGAL)),
        (None, {"ping"}),
    ],
)
def test_scope_allows(scope: str | None, allowed: set[str]) -> None:
    samples = [
        text("auction.create", spec={}),
        text("auction.cancel", auction_id=AUCTION),
        text("subscribe", auction_id=AUCTION),
        text("unsubscribe", auction_id=AUCTION),
        join(),
        bid(),
        LEAVE,
        sparse(),
        PING,
    ]
    session = session_of(*([scope] if scope else []))
    codes = {type_of(wire.decode(sent)): session._illegal(wire.decode(sent)) for sent in samples}
    assert {name for name, code in codes.items() if code != "forbidden"} == allowed


@pytest.mark.parametrize(
    ("state", "expected"),
    [  # agent.join, bid.update, agent.leave, distribution.submit
        ("outside", (None, None, None, "not_joined")),
        ("joining", ("join_pending",) * 4),
        ("joined", ("already_joined", None, None, None)),
        ("leaving", ("leave_pending",) * 4),
        ("left", ("agent_left",) * 4),
    ],
)
def test_agent_may_say_by_state(state: str, expected: tuple[str | None, ...]) -> None:
    found = []
    for sent in (join(), bid(), LEAVE, dense()):
        session = session_of("bid", agent_id=ALPHA)
        path = {"joining": [], "joined": [True], "leaving": [True], "left": [True]}.get(state)
        if path is not None:
            [command] = session.take(join(), NOW)
            if path:
                session.answer(command.message, accepted=True)
        if state in ("leaving", "left"):
            [command] = session.take(LEAVE, NOW)
            if state == "left":
                session.answer(command.message, accepted=True)
        session.open_step(AUCTION, ALPHA, OPEN_STEP)
        assert session.state_of(wire.decode(bid())) == state
        found.append(code_of(session.take(sent, NOW)))
    assert tuple(found) == expected


@pytest.mark.parametrize("sent", [join(), LEAVE])
def test_agent_is_outside_again_when_the_house_says_no(sent: str) -> None:
    session = session_of("bid")
    accept(session, sent, accepted=False)
    assert session.state_of(wire.decode(bid())) == "outside"


def test_subscription_that_the_house_refuses_may_be_tried_again() -> None:
    session = session_of("watch")
    accept(session, text("subscribe", auction_id=AUCTION), accepted=False)
    accept(session, text("subscribe", auction_id=AUCTION))


def test_admin_token_that_names_an_agent_acts_for_that_agent_alone() -> None:
    assert code_of(session_of("admin", agent_id="beta").take(bid(), NOW)) == "not_your_agent"


def test_token_without_an_agent_acts_for_any() -> None:
    assert code_of(session_of("bid").take(bid(), NOW)) is None


def test_auction_that_has_ended_is_forgotten() -> None:
    session = session_of("bid")
    accept(session, join())
    accept(session, text("subscribe", auction_id=AUCTION))
    accept(session, join(auction_id="other"))
    session.open_step(AUCTION, ALPHA, OPEN_STEP)
    session.end_auction(AUCTION)
    assert session._states == {("other", ALPHA): "joined"} and session._steps == {}


def test_step_is_closed_when_its_time_is_over() -> None:
    session = session_of("bid")
    accept(session, join())
    session.open_step(AUCTION, ALPHA, OPEN_STEP)
    session.close_step(AUCTION, ALPHA)
    assert code_of(session.take(sparse(), NOW)) == "step_not_open"


def test_frame_that_cannot_be_read_leaves_the_step_open() -> None:
    session = session_of("bid")
    accept(session, join())
    session.open_step(AUCTION, ALPHA, OPEN_STEP)
    assert code_of(session.take(dense([-0.1, -0.1]), NOW)) == "not_normalised"
    assert code_of(session.take(dense(), NOW)) is None


def test_connection_watches_so_many_auctions_at_most() -> None:
    session = session_of("watch")
    for number in range(MAX_SUBSCRIPTIONS):
        [command] = session.receive(wire.Subscribe(auction_id=f"auc_{number}"), NOW)
        assert isinstance(command, Command)
    assert code_of(session.receive(wire.Subscribe(auction_id="more"), NOW)) == "too_many_subscriptions"
    session.end_auction("auc_0")
    assert code_of(session.receive(wire.Subscribe(auction_id="more"), NOW)) is None


def test_connection_acts_for_so_many_agents_at_most() -> None:
    session = session_of("bid")
    for number in range(MAX_AGENTS):
        [command] = session.receive(wire.AgentJoin(auction_id=AUCTION, agent_id=f"a{number}", bid_micros=1), NOW)
        session.answer(command.message, accepted=True)
    more = wire.AgentJoin(auction_id=AUCTION, agent_id="more", bid_micros=1)
    assert code_of(session.receive(more, NOW)) == "too_many_agents"
    update = wire.BidUpdate(auction_id=AUCTION, agent_id="more", bid_micros=1)
    assert code_of(session.receive(update, NOW)) is None


# --- Replies ------------------------------------------------------------------------------------------------------


def test_greeting_says_who_the_client_is_and_what_it_may_send() -> None:
    message = session_of("watch", "bid", agent_id=ALPHA).greet("ses_1").message
    assert isinstance(message, wire.SessionCreated)
    assert (message.session_id, message.scopes, message.agent_id) == ("ses_1", ["bid", "watch"], ALPHA)
    assert message.max_message_bytes == wire.MAX_MESSAGE_BYTES


def test_ping_is_answered_with_its_id() -> None:
    [reply] = session_of().take(text("ping", id="p1"), NOW)
    assert isinstance(reply, Reply) and reply.message == wire.Pong(event_id="evt_0", time=NOW, id="p1")


def test_bid_is_refused_as_a_bid_and_says_which() -> None:
    [reply] = session_of("watch").take(bid(bid_id="b1", request_id="r1"), NOW)
    assert isinstance(reply, Reply) and isinstance(reply.message, wire.BidRejected)
    assert (reply.message.bid_id, reply.message.request_id, reply.message.agent_id) == ("b1", "r1", ALPHA)


def test_anything_else_is_refused_as_an_error_and_says_which() -> None:
    [reply] = session_of("watch").take(join(request_id="r1"), NOW)
    assert isinstance(reply, Reply) and isinstance(reply.message, wire.Error)
    assert (reply.message.request, reply.message.request_id) == ("agent.join", "r1")


def test_expired_token_closes_the_connection_whatever_is_sent() -> None:
    session = session_of("bid", expires=NOW)
    for sent in (bid(), PING, join()):
        refusal, close = session.take(sent, NOW)
        assert code_of([refusal]) == "token_expired" and close == Close(4001, "token expired")


def test_token_that_expires_later_is_good() -> None:
    assert code_of(session_of("bid", expires=NOW + 1).take(bid(), NOW)) is None


# --- The rate -----------------------------------------------------------------------------------------------------


def test_burst_is_read_and_what_follows_is_told_when_to_come_again() -> None:
    session = session_of()
    for _ in range(int(BURST)):
        assert isinstance(session.take(PING, NOW)[0].message, wire.Pong)
    [reply] = session.take(PING, NOW)
    assert isinstance(reply, Reply) and isinstance(reply.message, wire.Error)
    assert (reply.message.code, reply.message.retry_after_ms) == ("rate_limited", 1_000 / MESSAGES_PER_SECOND + 1)
    [reply] = session.take(PING, NOW + reply.message.retry_after_ms / 1e3)
    assert isinstance(reply, Reply) and isinstance(reply.message, wire.Pong)


def test_message_beyond_the_rate_is_not_even_decoded() -> None:
    session = session_of()
    session.allowance = 0.0
    assert code_of(session.take(b"\xff" * 10, NOW)) == "rate_limited"


def test_refused_messages_count_for_more() -> None:
    session = session_of()
    num_read = 0
    while code_of(session.take("hello", NOW)) == "invalid_json":
        num_read += 1
    assert num_read == BURST / (1 + REFUSAL_COST)


def test_clock_that_is_set_back_gives_no_allowance() -> None:
    session = session_of()
    session.take(PING, NOW)
    session.take(PING, NOW - 500)
    assert session.allowance == BURST - 2


def test_allowance_never_exceeds_the_burst() -> None:
    session = session_of()
    session.take(PING, NOW)
    session.take(PING, NOW + 10**9)
    assert session.allowance == BURST - 1


def test_client_that_goes_on_sending_is_closed() -> None:
    session = session_of()
    session.take(PING, NOW)
    session.allowance = 0.0
    for _ in range(MAX_IGNORED):
        assert code_of(session.take(PING, NOW)) == "rate_limited"
    assert session.take(PING, NOW) == [Close(4029, "rate exceeded")]


def test_client_that_waits_in_between_is_not_closed() -> None:
    session = session_of()
    session.take(PING, NOW)
    for second in range(1, MAX_IGNORED + 2):
        session.allowance = 0.0
        assert code_of(session.take(PING, NOW)) == "rate_limited"
        assert isinstance(session.take(PING, NOW + second)[0].message, wire.Pong)
        session._at = NOW


# --- A dictionary model -------------------------------------------------------------------------------------------

AUCTIONS = st.sampled_from(["auc_1", "auc_2"])
AGENTS = st.sampled_from(["alpha", "beta", "gamma"])
STEPS = st.integers(0, 2)
PENDING = {"joining": "join_pending", "leaving": "leave_pending", "left": "agent_left"}


class SessionMachine(RuleBasedStateMachine):
    """Every order of messages, answers, steps and endings; the model is two dictionaries and a list of questions."""

    def __init__(self) -> None:
        super().__init__()
        self.session = session_of("bid")
        self.watched: set[str] = set()
        self.agents: dict[tuple[str, str], str] = {}
        self.open: dict[tuple[str, str], int] = {}
        self.asked: list[Any] = []  # commands that the house has not answered

    def send(self, message: Any, expected: str | None) -> None:
        actions = self.session.receive(message, NOW)
        assert code_of(actions) == expected
        if expected is None and isinstance(message, wire.AgentJoin | wire.AgentLeave):
            self.asked.append(message)

    @rule(auction=AUCTIONS)
    def subscribe(self, auction: str) -> None:
        self.send(wire.Subscribe(auction_id=auction), "already_subscribed" if auction in self.watched else None)
        self.watched.add(auction)

    @rule(auction=AUCTIONS)
    def unsubscribe(self, auction: str) -> None:
        self.send(wire.Unsubscribe(auction_id=auction), None if auction in self.watched else "not_subscribed")
        self.watched.discard(auction)

    @rule(auction=AUCTIONS, agent=AGENTS)
    def join(self, auction: str, agent: str) -> None:
        state = self.agents.get((auction, agent), "outside")
        message = wire.AgentJoin(auction_id=auction, agent_id=agent, bid_micros=1)
        self.send(message, {**PENDING, "joined": "already_joined"}.get(state))
        if state == "outside":
            self.agents[auction, agent] = "joining"

    @rule(auction=AUCTIONS, agent=AGENTS)
    def leave(self, auction: str, agent: str) -> None:
        state = self.agents.get((auction, agent), "outside")
        self.send(
            wire.AgentLeave(auction_id=auction, agent_id=agent),
            PENDING.get(state),
        )
        if state in ("outside", "joined"):
            self.agents[auction, agent] = "leaving"

    @rule(auction=AUCTIONS, agent=AGENTS)
    def bid(self, auction: str, agent: str) -> None:
        state = self.agents.get((auction, agent), "outside")
        self.send(
            wire.BidUpdate(auction_id=auction, agent_id=agent, bid_micros=1),
            PENDING.get(state),
        )

    @rule(auction=AUCTIONS, agent=AGENTS, step=STEPS)
    def submit(self, auction: str, agent: str, step: int) -> None:
        state = self.agents.get((auction, agent), "outside")
        expected = {**PENDING, "outside": "not_joined"}.get(state)
        if expected is None and self.open.get((auction, agent)) != step:
            expected = "step_not_open"
        names = {"auction_id": auction, "agent_id": agent, "step": step, "vocabulary_hash": HASH}
        self.send(wire.DistributionSubmit(**names, ids=[1], log_probs=[LOG_HALF], tail_mass=0.5), expected)
        if expected is None:
            del self.open[auction, agent]

    @precondition(lambda self: self.asked)
    @rule(accepted=st.booleans(), data=st.data())
    def house_answers(self, accepted: bool, data: st.DataObject) -> None:
        message = self.asked.pop(data.draw(st.integers(0, len(self.asked) - 1)))
        self.session.answer(message, accepted=accepted)
        key = (message.auction_id, message.agent_id)
        yes = {"joining": "joined", "leaving": "left"}
        if key in self.agents and self.agents[key] in yes:
            if accepted:
                self.agents[key] = yes[self.agents[key]]
            else:
                del self.agents[key]

    @rule(auction=AUCTIONS, agent=AGENTS, step=STEPS)
    def step_opens(self, auction: str, agent: str, step: int) -> None:
        self.session.open_step(auction, agent, step)
        self.open[auction, agent] = step

    @rule(auction=AUCTIONS, agent=AGENTS)
    def step_closes(self, auction: str, agent: str) -> None:
        self.session.close_step(auction, agent)
        self.open.pop((auction, agent), None)

    @rule(auction=AUCTIONS)
    def auction_ends(self, auction: str) -> None:
        self.session.end_auction(auction)
        self.watched.discard(auction)
        self.agents = {key: state for key, state in self.agents.items() if key[0] != auction}
        self.open = {key: step for key, step in self.open.items() if key[0] != auction}
        self.asked = [message for message in self.asked if message.auction_id != auction]

    @rule(data=st.text(max_size=20) | st.binary(max_size=20))
    def stranger_sends(self, data: str | bytes) -> None:
        before = dict(self.session._states)
        self.session.allowance = BURST
        assert isinstance(self.session.take(data, NOW)[0], Reply)
        assert self.session._states == before

    @invariant()
    def session_and_model_agree(self) -> None:
        states = {key: state for key, state in self.session._states.items() if len(key) == 2}
        assert {key[0] for key in self.session._states if len(key) == 1} == self.watched
        assert states == self.agents
        assert self.session._steps == self.open


SessionMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestSession = pytest.mark.slow(SessionMachine.TestCase)


def test_distributions_that_are_asked_for_do_not_exceed_the_rate() -> None:
    session = session_of("bid")
    accept(session, join(), accepted=True)
    for step in range(5 * int(BURST)):
        session.open_step(AUCTION, ALPHA, step)
        accept(session, sparse(step=step), accepted=True)
    assert session.allowance >= BURST - 1 - 1
