"""Calls at once, on a simulated clock: as many as a server answers side by side, fewer where it queues or refuses."""

from __future__ import annotations

import asyncio
import heapq
import itertools

import pytest

from lfp.labels.client.pacing import Pace


def simulate(
    n_calls: int, *, parallel: int, refuse_above: int = 10**9, rounds: int = 1, limit: int | None = None
) -> tuple[Pace, list[int], float]:
    """Answer calls that take a second each, `parallel` of them at once; return the calls under way as each began."""
    now, order, under_way, began = 0.0, itertools.count(), 0, list[int]()
    ends: list[tuple[float, int, asyncio.Future[None]]] = []
    servers = [0.0] * parallel
    pace = Pace(16, clock=lambda: now)
    if limit is not None:  # as if it had been found
        pace.limit, pace._searching = limit, False

    async def call() -> None:
        nonlocal under_way
        async with pace.slot():
            under_way += 1
            began.append(under_way)
            if under_way > refuse_above:
                pace.slow_down()
            free = min(range(parallel), key=servers.__getitem__)
            servers[free] = max(now, servers[free]) + 1.0
            future = asyncio.get_running_loop().create_future()
            heapq.heappush(ends, (servers[free], next(order), future))
            await future
            under_way -= 1
            pace.count_answer(100, 10)

    async def run() -> None:
        nonlocal now
        pace.begin()
        ends.clear()
        tasks = [asyncio.ensure_future(call()) for _ in range(n_calls)]
        while not all(task.done() for task in tasks):
            for _ in range(5):
                await asyncio.sleep(0)
            if ends:
                now, _, future = heapq.heappop(ends)
                future.set_result(None)

    for _ in range(rounds):
        asyncio.run(run())
    return pace, began, now


@pytest.mark.parametrize("parallel", [1, 2, 4, 8, 16, 64])
def test_the_limit_is_what_the_server_answers_side_by_side(parallel: int) -> None:
    pace, began, seconds = simulate(300, parallel=parallel)
    assert pace.limit == min(parallel, 16) and max(began) <= min(2 * parallel, 16)
    assert seconds <= 1.1 * 300 / min(parallel, 16) + 10, "finding out takes little"


def test_short_rounds_raise_nothing_that_was_not_measured() -> None:
    for n_calls in (2, 4, 6, 9):
        pace, began, _ = simulate(n_calls, parallel=1, rounds=20)
        assert max(began) <= 2 and pace.limit <= 2
    assert simulate(9, parallel=64, rounds=20)[0].limit >= 4


def test_a_refusal_halves_the_limit_and_refusals_at_once_count_as_one() -> None:
    pace, began, _ = simulate(200, parallel=64, refuse_above=7)
    assert max(began) == 8 and pace.limit in (4, 8)
    assert sum(n > 7 for n in began) < 20
    now = 0.0
    pace = Pace(16, clock=lambda: now)
    pace.begin()
    pace.limit = 16
    for _ in range(5):
        pace.slow_down()
    assert pace.limit == 8
    now = 2.0
    pace.slow_down()
    assert pace.limit == 4


def test_more_calls_are_tried_again_ever_more_rarely() -> None:
    _, began, _ = simulate(2000, parallel=1)
    tried = [i for i, n in enumerate(began) if n == 2 and began[i - 1] == 1]
    gaps = [later - earlier for earlier, later in itertools.pairwise(i for i in tried if i > 10)]
    assert len(tried) < 20 and max(gaps) > 200


def test_a_limit_that_turns_out_too_high_is_lowered() -> None:
    pace, began, _ = simulate(200, parallel=1, limit=4)
    assert began[5] == 4 and pace.limit == 1 and set(began[-50:]) <= {1, 2}
    pace, began, _ = simulate(200, parallel=4, limit=4)
    assert pace.limit == 4 and sum(n < 4 for n in began[10:-10]) < 40
