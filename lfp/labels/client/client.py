"""A client for OpenAI-compatible servers: many questions at once, within a budget, and none is paid for twice."""

from __future__ import annotations

import asyncio
import datetime
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import openai

from lfp.errors import ConfigError, LabelError
from lfp.labels.client.address import check_address, check_server
from lfp.labels.client.dialect import Dialect
from lfp.labels.client.pacing import Pace
from lfp.labels.client.questions import Answer, AnyForm, Question, read_answer, write_answer
from lfp.labels.client.reading import BrokenAnswerError, RefusedAnswerError, read_completion
from lfp.labels.client.transport import (
    ACCOUNT,
    KEY,
    RETRIES,
    STOPPED,
    Account,
    BoundedClient,
    Budget,
    CallFailedError,
    DialectRefusedError,
    MeteredClient,
    explain_status,
    is_busy,
)
from lfp.util.types import Progress

_BROKEN_TRIES = 3  # of a question whose answers break the schema
_GRACE_S = 20.0  # that calls in flight may take after an interruption
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class ClientConfig:
    """The model, its server, and bounds. The key is read from the environment only.

    `base_url`: address of a compatible server; OpenAI's API by default. `cache`: folder of cached answers.
    `concurrency`: the most calls at once; fewer are made of a server that queues them.
    `budget_usd`: what one client may spend, cached answers not counted. `price_in` and `price_out`: dollars per million
    prompt and answer tokens. `timeout_s`: seconds that a try waits for the server.
    """

    model: str
    base_url: str | None = field(default=None, repr=False)
    cache: Path | None = None
    concurrency: int = 16
    budget_usd: float = 1.0
    price_in: float = 0.0
    price_out: float = 0.0
    timeout_s: float = 60.0


@dataclass(frozen=True)
class Estimate:
    """Estimate of what asking takes: calls, cached answers, tokens, and dollars if every answer is as long as it may
    be. `worst_usd` is what the budget reserves.
    """

    calls: int
    cached: int
    tokens_in: int
    tokens_out: int
    cost_usd: float
    worst_usd: float

    @property
    def sentence(self) -> str:
        """The figures in words."""
        return (
            f"{self.calls:,} calls to make, {self.cached:,} answers cached; about {self.tokens_in:,} prompt tokens and"
            f" at most {self.tokens_out:,} answer tokens: ${self.cost_usd:.4f}, at worst ${self.worst_usd:.4f}"
        )


class Client:
    """Asks a model many questions and returns an answer or the reason for its absence for each.

    Before the first question the address is checked. Refusals for a time (status 429 or 5xx) and lost answers are
    retried, an answer that breaks its schema is asked for three times, and a question that the budget has no room for
    fails. Answers are cached as they arrive, so that an interrupted job can be resumed without asking anything twice.
    Raises ConfigError for an address that cannot be a server's.
    """

    def __init__(self, config: ClientConfig) -> None:
        if config.base_url is not None:
            check_address(config.base_url)
        self.config = config
        self.budget = Budget(config.budget_usd, config.price_in, config.price_out)
        self.pace = Pace(config.concurrency)
        # OpenAI's newer models refuse `max_tokens`; other servers may not know its successor, nor then cap answers
        self.dialect = Dialect("max_completion_tokens" if config.base_url is None else "max_tokens")
        self.lenient: Counter[str] = Counter()
        """Answers that were not as requested and were read all the same, by what was accepted."""
        self.broken: Counter[str] = Counter()
        """Answers that were not accepted, by reason."""
        self._is_checked = False

    @property
    def name(self) -> str:
        """Value of `labels.labeller`: one per model."""
        return f"openai:{self.config.model}"

    @property
    def model(self) -> str:
        """The model that is asked."""
        return self.config.model

    def check_key(self) -> None:
        """Raise ConfigError if there is neither a key in the environment nor the address of another server."""
        if not os.environ.get(KEY) and self.config.base_url is None:
            raise ConfigError(f"no key in ${KEY} and no base URL; set the one, or name a server that asks for no key")

    def estimate(self, questions: Sequence[Question[AnyForm]]) -> Estimate:
        """Estimate what asking these questions takes. Nothing is asked."""
        model, cache, cost = self.config.model, self.config.cache, self.budget.cost_usd
        distinct = {question.sha256(model): question for question in questions}
        new = [question for sha256, question in distinct.items() if not read_answer(cache, sha256, question.schema)]
        tokens_in, most_in = (sum(question.tokens_in[i] for question in new) for i in (0, 1))
        tokens_out = sum(question.max_tokens for question in new)
        cost_usd, worst_usd = cost(tokens_in, tokens_out), cost(most_in, tokens_out)
        return Estimate(len(new), len(distinct) - len(new), tokens_in, tokens_out, cost_usd, worst_usd)

    def ask(
        self,
        questions: Sequence[Question[AnyForm]],
        progress: Progress | None = None,
        *,
        what: str = "questions answered",
    ) -> list[Answer[AnyForm]]:
        """Answer each question, in order; equal questions are asked once. `progress` gets the dollars spent as value.

        Interrupted by a signal, it waits for the calls in flight, caches their answers, and passes the signal on.
        Raises LabelError if the server refuses the key, knows no such model or gives no more credit, and ConfigError
        if there is neither a key nor a server that needs none.
        """
        hashes = [question.sha256(self.config.model) for question in questions]
        distinct = dict(zip(hashes, questions, strict=True))
        answers: dict[str, Answer[AnyForm]] = {}
        for sha256, question in distinct.items():
            if (cached := read_answer(self.config.cache, sha256, question.schema)) is not None:
                answers[sha256] = cached

        def report() -> None:
            if progress is not None:
                progress(what, len(answers), len(distinct), self.budget.spent_usd)

        report()
        new = {sha256: question for sha256, question in distinct.items() if sha256 not in answers}
        if new:
            self.check_key()
            error: LabelError | None = None
            try:
                asyncio.run(self._ask_all(new, answers, report))
            except* LabelError as group:
                error = next(each for each in group.exceptions if isinstance(each, LabelError))
            if error is not None:
                raise error
        return [answers.get(sha256) or Answer(None, STOPPED, 0.0, 0) for sha256 in hashes]

    @property
    def notes(self) -> list[str]:
        """What is to be said of the server, a sentence each: formats, calls at once, answers out of form."""
        notes = [self.dialect.sentence] if self.dialect.sentence else []
        if self.pace.was_held and self.pace.limit < self.config.concurrency:
            notes.append(f"calls at once in the end: {self.pace.limit} of at most {self.config.concurrency}")
        for what, counts in (("read though", self.lenient), ("not accepted", self.broken)):
            if counts:
                reasons = "; ".join(f"{n:,} {reason}" for reason, n in counts.most_common())
                notes.append(f"answers {what}: {reasons}")
        return notes

    async def _ask_all(
        self, questions: Mapping[str, Question[Any]], answers: dict[str, Answer[Any]], report: Callable[[], None]
    ) -> None:
        """Ask questions concurrently; put each answer into the cache and into `answers` as it arrives."""
        config = self.config
        http = MeteredClient(self.budget, self.pace, self.dialect, timeout_s=config.timeout_s)
        key = os.environ.get(KEY) or "none"  # servers that ask for no key get this one
        api = openai.AsyncOpenAI(
            api_key=key, base_url=config.base_url, max_retries=RETRIES, timeout=config.timeout_s, http_client=http
        )
        if not self._is_checked:
            async with BoundedClient(timeout_s=config.timeout_s) as plain:
                await check_server(api.with_options(http_client=plain), config.model)
            self._is_checked = True
        self.pace.begin()

        async def answer(sha256: str, question: Question[Any]) -> None:
            async with self.pace.slot():
                found = await self._answer(api, http, question)
            write_answer(config.cache, sha256, found)
            answers[sha256] = found
            report()

        tasks: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()

        def stop() -> None:
            """Wait for calls in flight; at the second interruption, or after `_GRACE_S`, cancel them."""
            in_flight = () if http.is_stopped else self.budget.reserved_usd
            http.is_stopped = True
            for task in tasks:
                if task not in in_flight:
                    task.cancel()
            loop.call_later(_GRACE_S, stop)

        async with api:
            with _call_on_signals(lambda: loop.call_soon_threadsafe(stop)):
                async with asyncio.TaskGroup() as group:
                    tasks += [group.create_task(answer(*item)) for item in questions.items()]

    async def _answer(
        self, api: openai.AsyncOpenAI, http: MeteredClient, question: Question[AnyForm]
    ) -> Answer[AnyForm]:
        """Ask one question until an answer fits its schema."""
        account = Account(self.budget.cost_usd(question.tokens_in[1], question.max_tokens))
        ACCOUNT.set(account)
        broken, failure, error = 0, "", None
        while not failure:
            request, sent_format = self.dialect.build_request(question), self.dialect.format
            try:
                response = await api.chat.completions.with_raw_response.create(model=self.config.model, **request)
                reading = read_completion(response.text, question.schema)
            except DialectRefusedError as refusal:
                self.dialect.change(refusal.body, refusal.sent, sent_format)
            except BrokenAnswerError as fault:
                self.broken[str(fault)] += 1
                is_given_up = not fault.is_cut and self.dialect.count_broken(sent_format)
                broken = 0 if is_given_up else broken + 1
                failure = f"{fault} ({broken} times)" if broken == _BROKEN_TRIES else ""
            except RefusedAnswerError:
                failure = "the model refused to answer"
            except openai.APIStatusError as refusal:
                http.unanswered += is_busy(refusal)
                explained = explain_status(refusal, self.config.model, tries=account.tries)
                failure, error = str(explained), explained if isinstance(explained, LabelError) else None
            except CallFailedError as fault:
                failure = str(fault)
            else:
                self.lenient.update(reading.leniences)
                self.dialect.count_read(sent_format)
                now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
                return Answer(reading.value, None, account.cost_usd, account.tokens, answered_at=now)
        if error is not None:
            raise error
        return Answer(None, failure, account.cost_usd, account.tokens)


@contextmanager
def _call_on_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Call `stop` on SIGINT and SIGTERM; in the end, pass the last signal to its former handler.

    Signals reach the main thread only: in another thread nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (the signature of a signal handler)
        received.append(number)
        stop()

    former = {number: signal.getsignal(number) for number in _SIGNALS}
    former = {number: handler for number, handler in former.items() if handler not in (signal.SIG_IGN, None)}
    for number in former:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[-1])
