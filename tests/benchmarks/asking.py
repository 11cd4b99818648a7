"""How well calls of a language model overlap: many at once of a server that takes its time, against the ideal."""

from __future__ import annotations

import time

from lfp.testing.fake_openai.server import FAKE_MODEL, FakeConfig, FakeServer


def asking(n_calls: int = 1000, delay_s: float = 0.1, concurrency: int = 32) -> dict[str, float]:
    """Seconds for so many calls, and how many times the ideal that is: calls over concurrency, each of `delay_s`."""
    from lfp.labels.client.client import Client, ClientConfig
    from tests.lfp.labels.asking import Lengths, length_of

    with FakeServer(FakeConfig(behave="slow", delay_s=delay_s), [Lengths()]) as server:
        client = Client(ClientConfig(FAKE_MODEL, server.base_url, concurrency=concurrency))
        started = time.perf_counter()
        answers = client.ask([length_of("x", key=str(i)) for i in range(n_calls)])
        seconds = time.perf_counter() - started
    assert all(answer.value for answer in answers)
    ideal_s = -(-n_calls // concurrency) * delay_s
    return {"calls": n_calls, "concurrency": concurrency, "seconds": round(seconds, 2), "ideal_s": round(ideal_s, 2),
            "times_ideal": round(seconds / ideal_s, 2)}  # fmt: skip
