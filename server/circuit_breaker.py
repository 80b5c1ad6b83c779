"""When an agent that keeps missing its deadline is not asked any more, and for how long; pure, counted in steps.

Behind MAX_MISSED steps in a row it is left out for FIRST_PAUSE steps, then asked once: if it misses that too, for twice
as long, and so on up to LONGEST_PAUSE. One distribution in time forgives everything.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_MISSED = 3
FIRST_PAUSE, LONGEST_PAUSE = 8, 256  # steps


@dataclass
class CircuitBreaker:
    """One agent's in one auction."""

    num_missed: int = 0  # steps in a row
    suspended_until: int = 0  # the first step for which it is asked again
    _pause: int = FIRST_PAUSE

    def lets_through(self, step: int) -> bool:
        """Whether the agent is asked about this step."""
        return step >= self.suspended_until

    def miss(self, step: int) -> None:
        """It was asked about this step and did not answer in time."""
        self.num_missed += 1
        if self.num_missed >= MAX_MISSED:
            self.suspended_until = step + 1 + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def answer(self) -> None:
        """It answered in time."""
        self.num_missed, self._pause = 0, FIRST_PAUSE
