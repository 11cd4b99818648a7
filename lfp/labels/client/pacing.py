"""How many calls are made at once: as many as a server answers side by side, fewer as soon as it queues or refuses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

_PAYS = 1.25  # throughput of twice as many calls at once, relative to before, from which they are worth it
_PATIENCE = 8  # windows until more calls are tried again, doubled each time that they do not pay
_CALL_WORK, _READ_WORK = 64.0, 0.125  # of a call, and of a prompt token, where an answer token is 1
_DECREASE_S = 1.0  # refusals within this time count as one


@dataclass(frozen=True)
class _Level:
    """A number of calls at once and the work per second that it gave."""

    limit: int
    throughput: float


class Pace:
    """The number of calls at once, from 1 to `most`.

    It is doubled while that raises throughput by a quarter, measured over as many answers as there are calls at once;
    so a server that answers one call at a time is asked one at a time, and no call waits in its queue until it times
    out. A refusal for a time or a call that times out halves it. Afterwards half of it and twice of it are tried in
    turn, ever more rarely; half of it is kept where throughput falls by less than a fifth. `was_held` is whether more
    calls at once did not pay.
    """

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit, self.most, self.was_held = 1, most, False
        self._clock, self._decreased_at = clock, -_DECREASE_S
        self._before: _Level | None = None  # the level before a change that is not judged yet
        self._tries_less = True  # what is tried next once the limit has settled
        self._searching, self._windows, self._patience = True, 0, _PATIENCE
        self._waiting = self._surplus = 0
        self._slots = asyncio.Semaphore(self.limit)
        self._window: tuple[float, int, float] | None = None  # begin, answers, work

    def begin(self) -> None:
        """Begin a round of questions, on the event loop that runs now.

        Questions of another kind take other times: a rise that has not been judged yet is taken back.
        """
        if self._before is not None:
            self.limit, self._before = self._before.limit, None
        self._slots, self._waiting, self._surplus, self._window = asyncio.Semaphore(self.limit), 0, 0, None

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait until one more call may be made, and hold its place."""
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            if self._surplus:
                self._surplus -= 1
            else:
                self._slots.release()

    def count_answer(self, tokens_in: int, tokens_out: int) -> None:
        """Count an answer that arrived; change the limit at the end of a window."""
        if not self._waiting:  # fewer calls than allowed are being made: nothing can be learnt about the limit
            self._window = None
            return
        now = self._clock()
        if self._window is None:  # what came before belongs to no window: the first call may load a model
            self._window = now, 0, 0.0
            return
        begin, answers, work = self._window
        answers, work = answers + 1, work + _CALL_WORK + _READ_WORK * tokens_in + tokens_out
        self._window = begin, answers, work
        if answers >= max(2, self.limit):
            self._window = now, 0, 0.0
            self._judge(_Level(self.limit, work / max(now - begin, 1e-9)))

    def slow_down(self) -> None:
        """Halve the limit after a refusal for a time or a call that timed out."""
        now = self._clock()
        if now - self._decreased_at < _DECREASE_S:
            return
        self._decreased_at = now
        self._hold(max(1, self.limit // 2))

    def _judge(self, level: _Level) -> None:
        """Compare a window with that before the limit was changed; keep the change or take it back, or try another."""
        before, self._before = self._before, None
        if before is not None:
            has_paid = level.throughput >= (_PAYS if level.limit > before.limit else 1.0 / _PAYS) * before.throughput
            if not has_paid:
                self._patience *= 2
                self._hold(before.limit)
                return
            self._searching &= level.limit > before.limit
        self._windows += 1
        if self._searching or self._windows >= self._patience:
            is_less = not self._searching and self._tries_less
            self._tries_less ^= not self._searching
            limit = max(1, self.limit // 2) if is_less else min(2 * self.limit, self.most)
            self._searching &= limit != self.limit
            self._before = level if limit != self.limit else None
            self._windows = 0
            self._set(limit)

    def _hold(self, limit: int) -> None:
        """Set the limit and keep it for a while, as more calls at once do not pay."""
        self.was_held = True
        self._before, self._searching, self._windows, self._window = None, False, 0, None
        self._set(limit)

    def _set(self, limit: int) -> None:
        """Set the limit: free places at once, or take back those of calls in flight as they end."""
        change, self.limit = limit - self.limit, limit
        taken_back = min(self._surplus, max(0, change))
        self._surplus -= taken_back
        for _ in range(change - taken_back):
            self._slots.release()
        self._surplus += max(0, -change)
