"""A client of any OpenAI-compatible server: many questions at once, within a budget, none of them paid twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from lfp.errors import ConfigError
from lfp.labels.client.answers import AnswerCache, Budget
from lfp.labels.client.asking import Asking, Pace, kept_answer
from lfp.labels.client.chat import Chat, check_key
from lfp.labels.client.questions import Answer, AnyForm, Form, Message, Question
from lfp.util.types import Progress

if TYPE_CHECKING:
    from lfp.config import LanguageModelConfig

__all__ = ["Answer", "Client", "ClientConfig", "Estimate", "Form", "Message", "Question"]


@dataclass(frozen=True)
class ClientConfig:
    """Which model is asked, where, and within which bounds. The key is in the environment only.

    `base_url`: address of a compatible server; OpenAI's by default. `cache`: folder that answers are kept in.
    `budget_usd`: what one client may spend, kept answers not counted; `price_in` and `price_out` in dollars a million
    tokens. `timeout_s`: of one call. `first_wait_s`: before a call is made again, where the server names no time; twice
    as long each further time. `longest_wait_s`: a server that asks for a longer wait is not asked again.
    """

    model: str
    base_url: str | None = field(default=None, repr=False)
    cache: Path | None = None
    concurrency: int = 16
    budget_usd: float = 1.0
    price_in: float = 0.0
    price_out: float = 0.0
    timeout_s: float = 60.0
    first_wait_s: float = 0.5
    longest_wait_s: float = 60.0

    @classmethod
    def of(cls, section: LanguageModelConfig, *, cache: Path | None) -> ClientConfig:
        """As a run's config states it. Raises ConfigError where no model is named."""
        if section.model is None:
            raise ConfigError("language_model.model: no model is named; name one that the server lists")
        return cls(
            section.model,
            section.base_url,
            cache,
            concurrency=section.concurrency,
            budget_usd=section.budget_usd,
            price_in=section.price_in,
            price_out=section.price_out,
        )


@dataclass(frozen=True)
class Estimate:
    """What asking would take: calls to be made and answers kept already, tokens, dollars if every answer is as long as
    it may be, and `worst_usd`, which the budget sets aside.
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
            f"{self.calls:,} calls to make, {self.cached:,} answers kept; about {self.tokens_in:,} tokens read, at most"
            f" {self.tokens_out:,} written: ${self.cost_usd:.4f}, at worst ${self.worst_usd:.4f}"
        )

    def __add__(self, other: Estimate) -> Estimate:
        """What asking both would take."""
        return Estimate(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


class Client:
    """Asks a model many questions and gives every one an answer or a reason.

    A rate limit, a server's error and a lost answer are asked again; an answer that breaks the schema three times is a
    failure; so is a question that the budget has no room for. Answers are kept as they come, so that a job stopped at
    any time goes on from there.
    """

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._budget = Budget(config.budget_usd, price_in=config.price_in, price_out=config.price_out)
        self._cache = AnswerCache(config.cache)

    @property
    def model(self) -> str:
        """The model asked."""
        return self._config.model

    @property
    def concurrency(self) -> int:
        """Calls under way at once."""
        return self._config.concurrency

    @property
    def spent_usd(self) -> float:
        """Dollars spent so far; a lost answer counts at its worst case."""
        return self._budget.spent_usd

    def check(self) -> None:
        """Raises ConfigError where there is neither key nor server to ask."""
        check_key(self._config.base_url)

    def kept(self, question: Question[AnyForm]) -> AnyForm | None:
        """The value of an answer kept earlier; None where there is none. Nothing is asked."""
        kept = self._cache.get(question.sha256(self.model))
        return None if kept is None else kept_answer(kept, question).value

    def estimate(self, questions: Sequence[Question[AnyForm]]) -> Estimate:
        """What asking them would take. Nothing is asked."""
        distinct = {question.sha256(self.model): question for question in questions}
        new = [question for sha256, question in distinct.items() if self._cache.get(sha256) is None]
        read, written = sum(one.tokens_in for one in new), sum(one.max_tokens for one in new)
        worst = sum(one.most_tokens_in for one in new)
        price = self._budget.cost_usd
        return Estimate(len(new), len(distinct) - len(new), read, written, price(read, written), price(worst, written))

    def ask(
        self,
        questions: Sequence[Question[AnyForm]],
        progress: Progress | None = None,
        *,
        what: str = "questions answered",
    ) -> list[Answer[AnyForm]]:
        """An answer to each question, in order; equal questions are asked once. `progress` is told the dollars spent.

        Raises LabelError where the server refuses the key, knows no such model or gives no more credit, and
        ConfigError where there is neither key nor server.
        """
        hashes = [question.sha256(self.model) for question in questions]
        asking = Asking(dict(zip(hashes, questions, strict=True)), budget=self._budget, cache=self._cache)

        def tell() -> None:
            if progress is not None:
                progress(what, len(asking.answers), len(set(hashes)), self.spent_usd)

        tell()
        if asking.left:
            self._run(asking, tell)
        return [asking.answers[sha256] for sha256 in hashes]

    def _run(self, asking: Asking[AnyForm], tell: Callable[[], None]) -> None:
        config = self._config
        pace = Pace(config.concurrency, config.first_wait_s, config.longest_wait_s)

        async def run() -> None:
            chat = Chat(config.model, base_url=config.base_url, timeout_s=config.timeout_s)
            await asking.run(chat, pace, tell)

        with asyncio.Runner() as runner:
            runner.run(run())
