"""A draw of hostile servers of labels, and every address that is none."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.hostile import servers

_WAITS = ("endless", "silence", "busy")
_DRAWN = random.Random(0).sample([name for name in servers.NAMES if not any(word in name for word in _WAITS)], 14)
_ALWAYS = (
    "chat declines and repeats the key",
    "models endless body",
    "chat gzip of gzip of gzip",
    "chat redirect 307 elsewhere",
    "chat usage of 400 digits",
    "chat endless drops",
)


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[int, servers.Arrivals]]:
    """The port of all servers, and what arrives at them."""
    arrivals = servers.Arrivals()
    with servers.running(arrivals) as port:
        yield port, arrivals


@pytest.mark.parametrize("name", dict.fromkeys([*_ALWAYS, *_DRAWN]))
def test_a_hostile_server_is_a_sentence_within_bounds_and_sees_no_key_elsewhere(
    name: str, running: tuple[int, servers.Arrivals]
) -> None:
    wrong, outcome = servers.check(name, *running)
    assert not wrong, outcome


@pytest.mark.parametrize("address", [*servers.ADDRESSES[::3], servers.ADDRESSES[-2]])
def test_at_an_address_that_is_none_nothing_is_sent(address: str, running: tuple[int, servers.Arrivals]) -> None:
    wrong, outcome = servers.check_address(address, *running)
    assert not wrong, outcome
