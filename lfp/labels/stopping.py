"""Ctrl-C and SIGTERM while calls are under way: they end first, since they are paid for, and then the signal counts."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def signals_call(stop: Callable[[], object]) -> Iterator[None]:
    """While the block lasts those signals only call `stop`; after it the last goes to whoever handled it before.

    Signals reach the main thread alone: in another one nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (a signal handler's form)
        caught.append(number)
        stop()

    ours = [number for number in _SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, handle) for number in ours}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if caught:
            signal.raise_signal(caught[-1])
