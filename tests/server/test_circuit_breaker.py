"""Who keeps missing its deadline is asked less and less, and forgiven at once."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tokenauction.server.circuit_breaker import FIRST_PAUSE, LONGEST_PAUSE, MAX_MISSED, CircuitBreaker


def asked_steps(num_steps: int, answers: set[int]) -> tuple[list[int], CircuitBreaker]:
    """About which steps an agent is asked that answers in these alone."""
    breaker, asked = CircuitBreaker(), []
    for step in range(num_steps):
        if breaker.lets_through(step):
            asked.append(step)
            if step in answers:
                breaker.answer()
            else:
                breaker.miss(step)
    return asked, breaker


def test_breaker_asks_three_times_then_pauses_twice_as_long_every_time() -> None:
    asked, breaker = asked_steps(80, set())
    assert asked == [0, 1, 2, 11, 28, 61]  # behind 3 misses 8 steps are left out, then 16, 32, 64
    assert breaker.num_missed == 6


def test_breaker_forgives_everything_for_one_answer() -> None:
    assert asked_steps(40, {11})[0] == [0, 1, 2, 11, 12, 13, 14, 23]
    assert asked_steps(3, {2})[1].num_missed == 0


def test_breaker_asks_an_agent_that_answers_about_every_step() -> None:
    assert asked_steps(50, set(range(0, 50, MAX_MISSED)))[0] == list(range(50))


@given(st.sets(st.integers(0, 2_000)))
def test_breaker_never_gives_an_agent_up(answers: set[int]) -> None:
    asked, _ = asked_steps(2_000, answers)
    gaps = [after - before - 1 for before, after in pairwise(asked)]
    assert max(gaps, default=0) <= LONGEST_PAUSE
    assert asked[:MAX_MISSED] == [0, 1, 2]
    assert min((gap for gap in gaps if gap), default=FIRST_PAUSE) >= FIRST_PAUSE
