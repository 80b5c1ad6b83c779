"""Whatever a stranger sends, the session answers with the code that the table names, and nothing has changed."""

from __future__ import annotations

import copy
import itertools

import pytest
from tests.server.hostile import ALPHA, AUCTION, CASES, OPEN_STEP, Case, join

from tokenauction.server.legality import SESSION_CODES
from tokenauction.server.session import Close, Command, Reply, Session
from tokenauction.server.wire import BidRejected, Error
from tokenauction.server.wire_error import DECODER_CODES, MAX_ERROR_TEXT

NOW = 1_000.0


def session_before(case: Case) -> Session:
    """A session after what came before."""
    count = itertools.count()
    session = Session(case.scopes, ALPHA, case.expires, lambda: (f"evt_{next(count)}", NOW))
    for sent in case.before:
        [action] = session.take(sent, NOW)
        assert isinstance(action, Command)
        session.answer(action.message, accepted=True)
        if sent == join():
            session.open_step(AUCTION, ALPHA, OPEN_STEP)
    return session


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_session_answers_with_the_code_and_keeps_its_state(case: Case) -> None:
    session = session_before(case)
    states = copy.deepcopy((session._states, session._steps))
    reply, *rest = session.take(case.sent, NOW)
    assert isinstance(reply, Reply) and isinstance(reply.message, Error | BidRejected)
    assert reply.message.code == case.code
    assert [action.code for action in rest if isinstance(action, Close)] == ([case.close] if case.close else [])
    assert (session._states, session._steps) == states
    assert reply.message.message.isprintable() and len(reply.message.message) <= MAX_ERROR_TEXT


def test_table_has_the_size_that_was_promised_and_no_name_twice() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)


def test_table_provokes_every_code_of_the_decoder() -> None:
    assert {case.code for case in CASES} >= set(DECODER_CODES)


def test_codes_are_of_one_list_each() -> None:
    assert not set(DECODER_CODES) & set(SESSION_CODES)
