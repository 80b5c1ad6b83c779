"""What an agent with a model of its own is told of a step: that its distribution is awaited, or was missed."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET

from tokenauction.engine.recorder import Stamp
from tokenauction.server.circuit_breaker import CircuitBreaker
from tokenauction.server.wire import StepMissed, StepOpened


def opened(
    stamp: Stamp,
    auction_id: str,
    agent_id: str,
    step: int,
    deadline_ms: int,
    token_ids: Sequence[int],
    *,
    is_first: bool,
) -> StepOpened:
    """The distribution behind `token_ids` is awaited; all of them are told only first on a connection."""
    event_id, time = stamp()
    return StepOpened(
        event_id=event_id,
        time=time,
        auction_id=auction_id,
        agent_id=agent_id,
        step=step,
        deadline_ms=deadline_ms,
        last_token_id=token_ids[-1] if token_ids else None,
        token_ids=list(token_ids) if is_first else UNSET,
    )


def missed(stamp: Stamp, auction_id: str, agent_id: str, step: int, breaker: CircuitBreaker) -> StepMissed:
    """The step's time ran out."""
    event_id, time = stamp()
    return StepMissed(
        event_id=event_id,
        time=time,
        auction_id=auction_id,
        agent_id=agent_id,
        step=step,
        num_missed=breaker.num_missed,
        suspended_until_step=None if breaker.lets_through(step + 1) else breaker.suspended_until,
    )
