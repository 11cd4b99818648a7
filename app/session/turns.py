"""Whose turn it is to write: one generation at a time for all sessions, and in public mode a cap on samples."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lfp.errors import DataError


@dataclass(frozen=True)
class Caps:
    """What strangers may use: samples an hour, of one session and of all, and how many may wait at a time."""

    of_session: int = 300
    of_all: int = 3000
    waiting: int = 6
    seconds: float = 3600.0


@dataclass(eq=False)
class Turns:
    """One generation at a time; `clock` counts seconds."""

    caps: Caps = field(default_factory=Caps)
    clock: Callable[[], float] = time.monotonic
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _state: threading.Lock = field(default_factory=threading.Lock)
    _waiting: int = 0
    _drawn: deque[tuple[float, str, int]] = field(default_factory=deque)
    """When which session drew how many samples, in public mode."""

    @contextmanager
    def take(self, session: str, n_samples: int, *, is_public: bool, on_wait: Callable[[int], None]) -> Iterator[None]:
        """Wait for a turn and hold it; `on_wait` is called with how many are before, a few times a second.

        Raises DataError, with the reason, where public mode refuses another `n_samples` samples.
        """
        with self._state:
            if is_public:
                self._count(session, n_samples)
            before, self._waiting = self._waiting, self._waiting + 1
        try:
            while not self._turn.acquire(timeout=0.3):
                on_wait(max(before, 1))
                before = min(before, self._waiting - 1)
            try:
                yield
            finally:
                self._turn.release()
        finally:
            with self._state:
                self._waiting -= 1

    def _count(self, session: str, n_samples: int) -> None:
        now = self.clock()
        while self._drawn and self._drawn[0][0] < now - self.caps.seconds:
            self._drawn.popleft()
        of_session = sum(n for _, who, n in self._drawn if who == session)
        if self._waiting > self.caps.waiting:
            raise DataError(f"{self._waiting} readers are writing or waiting here; try again in a minute")
        if of_session + n_samples > self.caps.of_session:
            raise DataError(f"this demo draws at most {self.caps.of_session} samples an hour for a reader; {_AT_HOME}")
        if sum(n for *_, n in self._drawn) + n_samples > self.caps.of_all:
            raise DataError(f"this demo draws at most {self.caps.of_all} samples an hour for all readers; {_AT_HOME}")
        self._drawn.append((now, session, n_samples))


_AT_HOME = "draw fewer, come back later, or run the explorer at home"
