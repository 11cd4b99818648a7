"""One round of questions: asked side by side, asked again where that helps, within the budget, kept as they come."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Generic

from lfp.errors import LabelError
from lfp.labels.client.answers import AnswerCache, Budget, KeptAnswer
from lfp.labels.client.chat import Chat, Fault, FaultKind, Reply
from lfp.labels.client.questions import Answer, AnyForm, Question

_TRIES: Mapping[FaultKind, int] = {"busy": 10, "lost": 4, "broken": 3, "declined": 1, "hopeless": 1}


_NO_ANSWER: tuple[FaultKind, ...] = ("busy", "lost")


_SILENT = 3  # questions in a row without any answer, after which the server is taken for gone


_LONGEST_BACKOFF_S, _JITTER = 20.0, 0.25


_GRACE_S = 20.0  # that calls under way may still take when the round is stopped


@dataclass(frozen=True)
class Pace:
    """How many calls are under way at once, and the waits between tries of one: where the server names no time
    `first_wait_s`, twice as long each further time; a server that asks for more than `longest_wait_s` is given up.
    """

    concurrency: int
    first_wait_s: float
    longest_wait_s: float

    def wait_s(self, fault: Fault, tries: int) -> float | None:
        """Seconds before a question is asked again that failed so for the `tries`-th time; None: never."""
        if tries >= _TRIES[fault.kind]:
            return None
        if fault.kind == "broken":
            return 0.0
        if fault.wait_s:
            return fault.wait_s if fault.wait_s <= self.longest_wait_s else None
        backoff = min(self.first_wait_s * 2.0 ** (tries - 1), _LONGEST_BACKOFF_S)
        return backoff * random.uniform(1 - _JITTER, 1 + _JITTER)


def kept_answer(kept: KeptAnswer, question: Question[AnyForm]) -> Answer[AnyForm]:
    """An answer from the cache, as the answer to its question."""
    value = question.schema.model_validate_json(json.dumps(kept.value))
    return Answer(value, None, kept.cost_usd, kept.tokens, cached=True, answered_at=kept.answered_at)


def _to_keep(answer: Answer[AnyForm]) -> KeptAnswer:
    assert answer.value is not None and answer.answered_at is not None
    return KeptAnswer(
        value=answer.value.model_dump(mode="json"),
        tokens=answer.tokens,
        cost_usd=answer.cost_usd,
        answered_at=answer.answered_at,
    )


class Asking(Generic[AnyForm]):
    """Questions by their hash, and the answers so far: those kept from earlier rounds to begin with."""

    def __init__(self, questions: Mapping[str, Question[AnyForm]], *, budget: Budget, cache: AnswerCache) -> None:
        self._questions, self._budget, self._cache = questions, budget, cache
        self.answers: dict[str, Answer[AnyForm]] = {}
        for sha256, question in questions.items():
            if (kept := cache.get(sha256)) is not None:
                self.answers[sha256] = kept_answer(kept, question)
        self._silent = 0  # questions in a row that were given up without any answer

    @property
    def left(self) -> list[str]:
        """Hashes of the questions without an answer."""
        return [sha256 for sha256 in self._questions if sha256 not in self.answers]

    async def run(self, chat: Chat, pace: Pace, tell: Callable[[], None]) -> None:
        """Asks what is left, and tells of each answer.

        Stopped by a signal, it lets calls under way end, keeps their answers, and passes the signal on. Raises
        LabelError where the server would answer none.
        """
        self._pace, self._tell = pace, tell
        self._settled, self._stopped = asyncio.Condition(), asyncio.Event()
        left = self.left
        turns = iter(left)
        async with chat:
            workers = [asyncio.create_task(self._work(chat, turns)) for _ in range(min(pace.concurrency, len(left)))]
            with signals_call(self._stopper(workers)):
                try:
                    await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
                finally:
                    _cancel(workers)
                    ended = await asyncio.gather(*workers, return_exceptions=True)
        if (error := next((one for one in ended if isinstance(one, Exception)), None)) is not None:
            raise error
        for sha256 in self.left:
            self.answers[sha256] = Answer(None, "stopped before it was answered", 0.0, 0)

    def _stopper(self, workers: Sequence[asyncio.Task[None]]) -> Callable[[], object]:
        """What a signal calls: the first lets calls under way end, for so long; the second does not."""
        loop = asyncio.get_running_loop()

        def stop() -> None:
            if self._stopped.is_set():
                _cancel(workers)
            self._stopped.set()
            loop.call_later(_GRACE_S, _cancel, workers)

        return lambda: loop.call_soon_threadsafe(stop)

    async def _work(self, chat: Chat, turns: Iterator[str]) -> None:
        """Takes questions in turn until none is left or the round is stopped."""
        for sha256 in turns:
            answer = await self._answer(chat, self._questions[sha256])
            if answer is None:
                return
            if answer.value is not None:
                answer = replace(answer, answered_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
                self._cache.put(sha256, _to_keep(answer))
            self.answers[sha256] = answer
            self._tell()

    async def _answer(self, chat: Chat, question: Question[AnyForm]) -> Answer[AnyForm] | None:
        """The answer after as many tries as it takes, or why there is none; None where the round was stopped."""
        tries: Counter[FaultKind] = Counter()
        cost_usd, tokens = 0.0, 0
        while not self._stopped.is_set():
            if self._silent >= _SILENT:
                return Answer(None, "the server stopped answering", cost_usd, tokens)
            worst_usd = self._budget.cost_usd(question.most_tokens_in, question.max_tokens)
            if not await self._set_aside(worst_usd):
                return Answer(None, f"the budget of ${self._budget.usd:g} has no room for it", cost_usd, tokens)
            reply, paid_usd = await self._send(chat, question, worst_usd)
            cost_usd, tokens = cost_usd + paid_usd, tokens + sum(reply.tokens or ())
            if reply.fault is None or reply.fault.kind not in _NO_ANSWER:
                self._silent = 0
            if reply.fault is None:
                return Answer(reply.value, None, cost_usd, tokens)
            tries[reply.fault.kind] += 1
            wait_s = self._pace.wait_s(reply.fault, tries[reply.fault.kind])
            if wait_s is None:
                return Answer(None, self._given_up(reply.fault, tries), cost_usd, tokens)
            await self._pause(wait_s)
        return None

    async def _set_aside(self, usd: float) -> bool:
        """Whether the budget has room, after waiting for calls under way to cost less than they might."""
        async with self._settled:
            await self._settled.wait_for(lambda: self._budget.fits(usd) or self._budget.idle)
            if fits := self._budget.fits(usd):
                self._budget.set_aside(usd)
            return fits

    async def _send(self, chat: Chat, question: Question[AnyForm], worst_usd: float) -> tuple[Reply[AnyForm], float]:
        """What came of one call, and its dollars; one that is broken off counts at its worst."""
        paid_usd = worst_usd
        try:
            reply = await chat.send(question)
            paid_usd = self._price_usd(reply, worst_usd)
        finally:
            self._budget.settle(worst_usd, paid_usd)
            async with self._settled:
                self._settled.notify_all()
        return reply, paid_usd

    def _price_usd(self, reply: Reply[AnyForm], worst_usd: float) -> float:
        if reply.tokens is not None:
            return self._budget.cost_usd(*reply.tokens)
        return worst_usd if reply.fault is None or reply.fault.paid else 0.0

    def _given_up(self, fault: Fault, tries: Counter[FaultKind]) -> str:
        """Why there is no answer. Raises LabelError where no other question would have one."""
        if fault.kind == "hopeless":
            raise LabelError(fault.reason)
        self._silent += fault.kind in _NO_ANSWER
        if fault.wait_s is not None and fault.wait_s > self._pace.longest_wait_s:
            return f"{fault.reason} and asks to wait {fault.wait_s:.0f} s"
        n = tries[fault.kind]
        return fault.reason if n == 1 else f"{fault.reason} ({n} times)"

    async def _pause(self, seconds: float) -> None:
        """Waits, unless the round is stopped."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), seconds)


def _cancel(workers: Sequence[asyncio.Task[None]]) -> None:
    for worker in workers:
        worker.cancel()


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
