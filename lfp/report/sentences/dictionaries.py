"""What a dictionary reads of a pair of models, in a sentence, for those who meet it away from its run."""

from __future__ import annotations

from lfp.util.types import SITE_NAMES, Site


def what_it_reads(trained_on: str, site: Site, layer: int | None = None) -> str:
    """Say what a dictionary of a site encodes, of a layer or of several.

    `trained_on` is a value of the column `saes.trained_on`.
    """
    where = f"{'each layer' if layer is None else f'layer {layer}'} ({SITE_NAMES[site]})"
    if trained_on == "change" and site == "resid_post":
        return f"Reads what tuning changed at {where}: the tuned model's activation minus the base model's."
    if trained_on == "change":
        return (
            f"Reads what tuning changed at {where}: what the tuned model's module writes minus what the base model's "
            "module writes for the same input."
        )
    if trained_on == "crosscoder":
        return f"Reads the activations of the tuned and of the base model at {where}, side by side."
    if trained_on == "shared":
        return f"Reads the activations of either model at {where}; it was trained on both."
    if trained_on == "base_finetuned":
        return (
            f"Reads the tuned model's activations at {where}; it is the base model's dictionary, trained on with them."
        )
    return f"Reads the {'base' if trained_on == 'base' else 'tuned'} model's activations at {where}."


def is_of_one_model(trained_on: str) -> bool:
    """Whether one model's activations are all that a dictionary reads, so that tools of one model can apply it."""
    return trained_on not in ("change", "crosscoder")
