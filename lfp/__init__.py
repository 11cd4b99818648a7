"""Learned feedback patterns: what a language model learned from human feedback, as features, probes and bundles.

    run = lfp.open_bundle("data/demo")
    run.features(sort="contribution", limit=50)

Everything here is imported when it is first used, so that `import lfp` is fast and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; at run time `__getattr__` finds these
    from lfp.api.bundle import Bundle, load_sae, open_bundle
    from lfp.api.feature import Feature
    from lfp.bundle.validation import validate
    from precompute.commands.ablate import ablate
    from precompute.commands.basic import config, demo, explore, fake_openai, mcp, report, run
    from precompute.commands.bench import bench_features, bench_sae
    from precompute.commands.export import export
    from precompute.commands.import_labels import import_labels
    from precompute.commands.label import label
    from precompute.commands.plant.plant import plant
    from precompute.commands.screen import screen
    from precompute.commands.sweep import sweep
    from precompute.commands.write import write

__version__ = "0.1.0"
__all__ = [
    "Bundle", "Feature", "ablate", "bench_features", "bench_sae", "config", "demo", "explore", "export", "fake_openai",
    "import_labels", "label", "load_sae", "mcp", "open_bundle", "plant", "report", "run", "screen", "sweep", "validate",
    "write",
]  # fmt: skip
_READING = {"Bundle": "bundle", "Feature": "feature", "load_sae": "bundle", "open_bundle": "bundle"}
"""Where in `lfp.api` each is."""
_VERB_MODULES = ("config", "report")


def __getattr__(name: str) -> Any:
    if name in _VERB_MODULES:
        return importlib.import_module(f"lfp.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'lfp' has no attribute {name!r}")
    if name in _READING:
        found = getattr(importlib.import_module(f"lfp.api.{_READING[name]}"), name)
    else:
        from lfp.util.dependencies import verb

        found = verb(name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
