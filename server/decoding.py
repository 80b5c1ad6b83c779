"""The decoder in a thread of its own: steps as long as there is work, and what others ask of it between two steps.

Nobody else touches the decoder. Events go to the event loop, one batch a step, and at most MAX_STEPS_AHEAD batches may
be with the loop at a time: a ledger that cannot keep up slows the decoder down, a client never does. It must not know
what an event says.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tokenauction.engine.decoder import Decoder
from tokenauction.engine.events import Event

MAX_STEPS_AHEAD = 256  # steps whose events the loop has not let go of
MAX_COMMANDS = 10_000  # that wait for the step in progress to end

T = TypeVar("T")


class DecoderStopped(Exception):
    """The decoder's thread has ended, by `stop` or by an error of ours; nothing is decoded any more."""


@dataclass(frozen=True)
class StepTimes:
    """What one step took."""

    seconds: float
    model_seconds: float  # of them, in which the decoder waited for the model
    num_rows: int  # of the model that were taken
    max_rows: int


class DecodingThread:
    """Drives one decoder; every method is called on the event loop."""

    def __init__(
        self,
        decoder: Decoder,
        on_events: Callable[[Sequence[Event]], None],
        on_step: Callable[[StepTimes, Sequence[Event]], None] = lambda times, events: None,
    ) -> None:
        """`on_events` is called on the loop with each step's events; it, or what it starts, calls `release` once.

        `on_step` is called before it, with what the step took.
        """
        self.decoder = decoder
        self.on_events = on_events
        self.on_step = on_step
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._wake = threading.Condition()
        self._commands: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._num_ahead = 0
        self._is_stopping = False
        self._error: Exception | None = None  # of who takes events in
        self._thread = threading.Thread(target=self._run, name="tokenauction-decoder", daemon=True)
        self._thread.start()

    async def call(self, function: Callable[[], T]) -> T:
        """What `function` returns or raises, called in the decoder's thread between two steps.

        Raises DecoderStopped where that thread has ended, or where too many calls wait.
        """
        answer: asyncio.Future[T] = self._loop.create_future()
        with self._wake:
            if self._is_stopping or self.ended.done():
                raise DecoderStopped("the decoder has stopped")
            if len(self._commands) >= MAX_COMMANDS:
                raise DecoderStopped(f"{MAX_COMMANDS} commands wait for the decoder, which is the limit")
            self._commands.append((function, answer))
            self._wake.notify()
        return await answer

    def release(self) -> None:
        """The loop is done with one step's events: the decoder may run one step further ahead."""
        with self._wake:
            self._num_ahead -= 1
            self._wake.notify()

    @property
    def num_ahead(self) -> int:
        """Steps whose events the loop has not let go of."""
        return self._num_ahead

    @property
    def num_commands(self) -> int:
        """Calls that wait for the step in progress to end."""
        return len(self._commands)

    async def stop(self) -> None:
        """End the thread behind the step in progress, whatever waits; returns when it has ended."""
        with self._wake:
            self._is_stopping = True
            self._wake.notify()
        await asyncio.wait([self.ended])

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            while self._next():
                times, events = self._step()
                if events:
                    with self._wake:
                        self._num_ahead += 1
                    self._loop.call_soon_threadsafe(self._tell, times, events)
        except BaseException as caught:  # noqa: BLE001  # the loop must hear of it, whatever it is
            error = caught
        with self._wake:
            self._is_stopping = True
            left = list(self._commands)
            self._commands.clear()
        for _, answer in left:
            self._loop.call_soon_threadsafe(_fail, answer, DecoderStopped("the decoder has stopped"))
        error = self._error or error
        if error is None:
            self._loop.call_soon_threadsafe(_answer, self.ended, None)
        else:
            self._loop.call_soon_threadsafe(_fail, self.ended, error)

    def _step(self) -> tuple[StepTimes, list[Event]]:
        model, scheduler = self.decoder.model, self.decoder.scheduler
        began, waited, num_free = time.perf_counter(), scheduler.model_seconds, model.free_rows
        events = self.decoder.step()
        seconds, waited = time.perf_counter() - began, scheduler.model_seconds - waited
        num_rows = model.max_rows - min(num_free, model.free_rows)  # whoever has just ended had some
        return StepTimes(seconds, waited, num_rows, model.max_rows), events

    def _tell(self, times: StepTimes, events: Sequence[Event]) -> None:
        try:
            self.on_step(times, events)
            self.on_events(events)
        except Exception as error:  # noqa: BLE001  # a step that was not taken in: nothing may follow it
            with self._wake:
                self._error, self._is_stopping = self._error or error, True
                self._wake.notify()

    def _next(self) -> bool:
        """Run what was asked, wait for work; False when it is time to stop."""
        while True:
            with self._wake:
                self._wake.wait_for(self._has_something)
                if self._is_stopping:
                    return False
                commands = list(self._commands)
                self._commands.clear()
            for function, answer in commands:
                self._obey(function, answer)
            if self.decoder.has_work and self._num_ahead < MAX_STEPS_AHEAD:
                return True

    def _obey(self, function: Callable[[], Any], answer: asyncio.Future[Any]) -> None:
        try:
            result = function()
        except Exception as error:  # noqa: BLE001  # it is the caller's, who awaits it
            self._loop.call_soon_threadsafe(_fail, answer, error)
        else:
            self._loop.call_soon_threadsafe(_answer, answer, result)

    def _has_something(self) -> bool:
        can_step = self.decoder.has_work and self._num_ahead < MAX_STEPS_AHEAD
        return self._is_stopping or bool(self._commands) or can_step


def _answer(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
