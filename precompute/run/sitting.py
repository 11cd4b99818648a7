"""A run by the clock: what its stages take of their budgets, and where a sitting ends. No result depends on it."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lfp.config import BudgetConfig
from precompute.run.resources import Cost, Meter

_KEPT_EVERY_S = 15.0
"""Seconds between two notes of what a stage took: what a kill loses of its cost."""


def _to_nobody(sentence: str) -> None:
    pass


class SittingOver(Exception):  # noqa: N818 (no error: the run is whole and goes on another time)
    """The next stage is left for another sitting; says what is done and what is next.

    `sitting_minutes` is how long a sitting must be for that stage to be begun in it.
    """

    def __init__(self, sentence: str, sitting_minutes: float) -> None:
        super().__init__(sentence)
        self.sitting_minutes = sitting_minutes


@dataclass(frozen=True)
class Sitting:
    """One start of a run: the minutes it has (None: as many as it takes), and whom to tell of budgets."""

    minutes: float | None = None
    note: Callable[[str], None] = _to_nobody
    started: float = field(default_factory=time.monotonic)

    def check_room(self, names: Sequence[str], at: int, budget: BudgetConfig, *, is_first: bool) -> None:
        """Raises SittingOver where the stage numbered `at` of `names` is for another sitting.

        That is where time is up, or less is left than the stage's budget. The first stage of a sitting is begun
        wherever its budget is within the whole of it, so that every sitting that can gets on.
        """
        if self.minutes is None:
            return
        needed, gone = budget.minutes_of(names[at]), (time.monotonic() - self.started) / 60
        left = self.minutes if is_first else self.minutes - gone
        if (needed or 0.0) <= left and (is_first or left > 0):
            return
        raise SittingOver(
            f"{at} of {len(names)} stages done ({', '.join(names[:at]) or 'none'}), {gone:.1f} min of this sitting; "
            f"next is {names[at]}, {_expected(needed)}",
            max(self.minutes, math.ceil(needed or 0.0)),
        )

    @contextmanager
    def watching(self, stage: str, budget: BudgetConfig, scratch: Path) -> Iterator[Callable[[], Cost]]:
        """Measures the block and tells what it takes of its budget; gives a function that says the cost so far.

        A try that is interrupted, or killed, and leaves something in `scratch` to go on from is counted with the next.
        """
        tally = _Tally(scratch)
        with _alarm(stage, budget, tally.earlier.seconds, self.note), _every(_KEPT_EVERY_S, tally.keep):
            yield tally.cost
        minutes = budget.minutes_of(stage)
        if minutes is not None:
            taken = tally.cost().seconds / 60
            late = ", more than expected" if taken > minutes else ""
            self.note(f"{stage}: took {taken:.2f} of {minutes:g} min budgeted{_of_machine(budget)}{late}")


class _Tally:
    """What a stage took, earlier tries included whose work it goes on from; kept in its scratch folder."""

    def __init__(self, scratch: Path) -> None:
        self._file = scratch / "spent.json"
        kept = json.loads(self._file.read_text(encoding="utf-8")) if self._file.is_file() else None
        self.earlier = Cost(**kept) if kept else Cost(0.0, 0.0, 0.0)
        self._meter = Meter()

    def cost(self) -> Cost:
        return self._meter.cost().after(self.earlier)

    def keep(self) -> None:
        """Writes it down where the scratch folder has work in it."""
        half = self._file.with_name("half-spent.json")
        if {file.name for file in self._file.parent.iterdir()} - {self._file.name, half.name}:
            half.write_text(json.dumps(asdict(self.cost())), encoding="utf-8")
            half.replace(self._file)


def _expected(minutes: float | None) -> str:
    return "which has no budget" if minutes is None else f"budgeted {minutes:g} min"


def _of_machine(budget: BudgetConfig) -> str:
    return f" ({budget.machine})" if budget.machine else ""


@contextmanager
def _every(seconds: float, job: Callable[[], None]) -> Iterator[None]:
    """Does a small job every so often while the block lasts, and once more where it ends by an exception."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(seconds):
            job()

    def stop() -> None:
        over.set()
        thread.join()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        stop()
        job()
        raise
    finally:
        stop()


@contextmanager
def _alarm(stage: str, budget: BudgetConfig, spent_seconds: float, note: Callable[[str], None]) -> Iterator[None]:
    """Says once, in the moment that the block passes its budget, that it does; stops nothing."""
    minutes = budget.minutes_of(stage)
    if minutes is None:
        yield
        return
    sentence = (
        f"{stage}: past its budget of {minutes:g} min{_of_machine(budget)} and still going; this machine may be slower "
        "or busy, or the config larger than the one budgeted, and stages after it may be late too. Nothing is cut."
    )
    timer = threading.Timer(max(minutes * 60 - spent_seconds, 0.0), note, [sentence])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
