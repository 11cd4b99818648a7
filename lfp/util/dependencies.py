"""What may be missing: packages of the extras, the commands that need them, and the Hugging Face hub."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from lfp.errors import DependencyError

JOBS = frozenset({
    "torch", "transformers", "trl", "peft", "datasets", "tokenizers", "safetensors", "huggingface_hub",
    "vaderSentiment", "openai", "sklearn", "threadpoolctl", "kaleido",
})  # fmt: skip
"""Packages that come with the extra `jobs` and not with a base install, by the names that are imported."""
EXTRAS = {**dict.fromkeys(JOBS, "jobs"), "mcp": "mcp", "ray": "cluster"}
"""The extra that brings a package."""
OUT_OF_REACH = "the hub cannot be reached and there is no local copy"
"""The reason that errors give where the hub does not answer."""


@contextmanager
def jobs_packages(what: str) -> Iterator[None]:
    """Raise DependencyError, one sentence, where a package of an extra turns out to be missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise DependencyError(
            f"{what} needs the package {package}, which is not installed; "
            f"run pip install 'lfp-explorer[{EXTRAS[package]}]'"
        ) from error


def check_tracker(name: str) -> None:
    """Raise DependencyError, which says what to install, where the tracker of `tune.logger` is not installed."""
    if name != "none" and importlib.util.find_spec(name) is None:
        raise DependencyError(f"tune.logger {name}: the package {name} is not installed; run pip install {name}")


def verb(name: str) -> Callable[..., Any]:
    """Return the function behind a command, by the table of verbs in `precompute.commands`.

    The library must not depend on the jobs, so the function is looked up by name. Raises AttributeError where there is
    no such verb, DependencyError where a package of the jobs is missing.
    """
    place = importlib.import_module("precompute.commands").VERBS.get(name)
    if place is None:
        raise AttributeError(f"module 'lfp' has no attribute {name!r}")
    module, _, function_name = place.partition(":")
    with jobs_packages(f"lfp.{name}"):
        function = getattr(importlib.import_module(module), function_name)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with jobs_packages(f"lfp.{name}"):
            return function(*args, **kwargs)

    return call


class VerbModule(ModuleType):
    """A module that can be called as the verb of its name: `lfp.report(bundle)` beside `import lfp.report.text`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the verb."""
        return verb(self.__name__.rpartition(".")[2])(*args, **kwargs)


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
