"""The Hugging Face hub: whether it answers, and what to say where it does not."""

from __future__ import annotations

OUT_OF_REACH = "the hub cannot be reached and there is no local copy"
"""The reason that errors give where the hub does not answer."""


def hub_reachable() -> bool:
    """Ask the hub once, within five seconds: its clients retry for half a minute before they give up.

    Where it does not answer, load with `local_files_only=True`.
    """
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # noqa: BLE001 - whatever the reason (name, route, proxy, certificate), it is out of reach
        return False
    return True
