"""`precompute ablate`: features taken out again from a bundle alone, and what was measured written back to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from lfp.bundle.manifest import ARTIFACTS, Manifest, has_models, open_bundle, read_table
from lfp.bundle.writer import update_bundle
from lfp.config import RunConfig, parse_config
from lfp.errors import BundleError, ConfigError
from lfp.util.types import Progress
from precompute.run.inputs import named_reward
from precompute.stages.findings.ablations import UNABLATED, Ablated, Request, Tables, ablate, name_of_chosen

if TYPE_CHECKING:
    from lfp.ml.models.tokenization import TokenizedText
    from lfp.ml.sae.autoencoders import Dictionary

Row = dict[str, Any]


_REPORT_ROW = "ablation"


def run_ablate(
    bundle: Path, overrides: Sequence[str], *, features: str | None, progress: Progress, note: Callable[[str], None]
) -> list[Row]:
    """Ablates from a bundle and writes what it found back; returns the new rows of its table `ablations`.

    Without `features` (ids with commas between) all groups of the config are measured anew; with it that one, and the
    others stay. The bundle is changed in one step at the end: until then the old one is there, whole. `note` is told
    where the bundle has no held-out text. Raises ConfigError for features that it does not have, BundleError where it
    has no models.
    """
    from lfp.ml.models.runtime import set_threads

    manifest = open_bundle(bundle)
    config = parse_config(manifest.config, overrides, where=f"{bundle}: its config")
    if not config.ablation.completions:
        raise ConfigError("ablation.completions is 0, which is no ablation; pass --completions 1000 for example")
    n_features = manifest.tables["features"].rows
    chosen = () if features is None else feature_list(features, n_features)
    _check_models(bundle, manifest)
    set_threads(config.threads)
    done = ablate(_request(bundle, manifest, config, chosen, note), progress)
    replaced = name_of_chosen(chosen, config.ablation.scale) if chosen else None
    update_bundle(bundle, _tables_with(bundle, done, replaced))
    return done.ablations


def _check_models(bundle: Path, manifest: Manifest) -> None:
    if not has_models(manifest):
        raise BundleError(
            f"{bundle}: it holds no models to write with (no {ARTIFACTS}/base, tuned and saes); make it again with"
            " --set artifacts=true"
        )


def _request(
    bundle: Path, manifest: Manifest, config: RunConfig, chosen: tuple[int, ...], note: Callable[[str], None]
) -> Request:
    from lfp.ml.models.loading import check_same_shape, load_model

    base, tuned = (load_model(str(bundle / ARTIFACTS / role), device=config.model.device) for role in ("base", "tuned"))
    check_same_shape(base, tuned)
    return Request(
        config=config,
        base=base,
        tuned=tuned,
        dictionary=_dictionary(bundle).to(config.model.device),
        tables=_tables(bundle, manifest),
        texts=_texts(bundle, note),
        reward=named_reward(config, None) if config.tune.method == "grpo" else None,
        chosen=chosen,
    )


def _dictionary(bundle: Path) -> Dictionary:
    from lfp.ml.sae.autoencoders import Dictionary
    from lfp.ml.sae.formats import load_sae

    return Dictionary([load_sae(folder) for folder in sorted((bundle / ARTIFACTS / "saes").iterdir())])


def _tables(bundle: Path, manifest: Manifest) -> Tables:
    known = {name: read_table(bundle, name) for name in ("features", "probes", "weights", "labels")}
    return Tables(**known, labeller=manifest.labeller)


def _texts(bundle: Path, note: Callable[[str], None]) -> list[TokenizedText]:
    """The bundle's held-out texts, or, with a note, all of them where it has none."""
    from lfp.ml.models.tokenization import TokenizedText

    columns = ("text", "token_ids", "token_starts", "split")
    rows = pq.read_table(bundle / "texts.parquet", columns=list(columns)).to_pylist()
    held_out = [row for row in rows if row["split"] == "held_out"]
    if not held_out:
        note("no text of this bundle is held out: prefixes are of texts the models may have been trained on")
    return [
        TokenizedText(row["text"], tuple(row["token_ids"]), tuple(row["token_starts"]), truncated=False)
        for row in held_out or rows
    ]


def _tables_with(bundle: Path, done: Ablated, replaced: str | None) -> dict[str, Iterable[Row]]:
    """The tables of the bundle with what was measured: in place of the group `replaced`, or of all groups."""
    ablations, completions, results = (read_table(bundle, name).to_pylist() for name in _WRITTEN)
    if replaced is not None:
        kept = [row for row in ablations if replaced not in (row["group"], row["control_of"])]
        others = [row for row in completions if row["group"] not in (replaced, f"{replaced}/{UNABLATED}")]
        return {"ablations": kept + done.ablations, "completions": others + done.completions}
    return {
        "ablations": done.ablations,
        "completions": [row for row in completions if row["model"] != "ablated" and UNABLATED not in row["group"]]
        + done.completions,
        "results": [row for row in results if row["report_row"] != _REPORT_ROW] + done.results,
    }


_WRITTEN = ("ablations", "completions", "results")


def feature_list(text: str, n_features: int) -> tuple[int, ...]:
    """The features in `3,17,42`, each once, in order. Raises ConfigError naming what is no feature, and the range."""
    names = [name.strip() for name in text.split(",")]
    wrong = [name for name in names if not re.fullmatch(r"\d{1,9}", name) or int(name) >= n_features]
    if wrong:
        told = ", ".join(f'"{name}"' for name in wrong)
        raise ConfigError(
            f"--features: no feature of this bundle is called {told}; write ids from 0 to {n_features - 1} with commas"
            " between, such as --features 3,17"
        )
    return tuple(dict.fromkeys(int(name) for name in names))
