"""The Hugging Face hub: whether it answers, and what to do where it does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

OUT_OF_REACH = "the hub cannot be reached and there is no local copy"
"""Why something of the hub is not to be had, where nothing answers."""


def hub_reachable() -> bool:
    """One quick question, because the loaders retry for half a minute before they give up."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # noqa: BLE001 - whatever keeps us from it (name, route, proxy, certificate), it is out of reach
        return False
    return True


@contextmanager
def local_copies_only() -> Iterator[None]:
    """Inside, the hub's libraries read local copies alone, as with HF_HUB_OFFLINE=1, and retry nothing."""
    import datasets
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
