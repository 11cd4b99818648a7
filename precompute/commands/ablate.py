"""The verb `ablate`: measure features removed from a bundle's tuned model, and write the result into the bundle."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from lfp.bundle.manifest import ARTIFACTS, Manifest, check_bundle, has_models, quoted_name, read_table
from lfp.bundle.remote.mirror import local_folder
from lfp.bundle.remote.publishing import update_bundle
from lfp.config import CLASSIFIER, LEXICON, VADER, RunConfig, drop_retired, parse_config
from lfp.errors import BundleError, ConfigError
from lfp.util.types import Progress
from precompute.run.inputs import load_reward
from precompute.run.progress import silent
from precompute.run.work_folder import writes_bundle
from precompute.stages.findings import ablations as stage

Row = dict[str, Any]


@writes_bundle
def ablate(
    bundle: str | Path,
    *,
    features: Sequence[int] | None = None,
    completions: int | None = None,
    scale: float | None = None,
    overrides: Sequence[str] = (),
    trust_reward: str | None = None,
    progress: Progress = silent,
) -> list[Row]:
    """Ablate from a bundle alone, write what was found into it, and return the new rows of its table `ablations`.

    Without `features` every group of the config is measured again; with it that one group, and the others stay.
    `completions` and `scale` stand for the keys of `[ablation]`; `overrides` are `section.key=value`. The bundle is
    replaced in one step at the end. A reward that the bundle names as module:function is imported only where
    `trust_reward` is that module, and a lexicon or classifier that it names is read only where `overrides` name it too.
    Raises ConfigError for features that the bundle does not have or a reward that is
    not trusted, BundleError where it holds no models.
    """
    import torch

    path = local_folder(bundle)
    manifest = check_bundle(path)
    keys = {"ablation.completions": completions, "ablation.scale": scale}
    typed = [*overrides, *(f"{key}={value}" for key, value in keys.items() if value is not None)]
    config = parse_config(drop_retired(manifest.config), typed, where=f"{path}: its config")
    if not config.ablation.completions:
        raise ConfigError("ablation.completions is 0, which is no ablation; pass for example --completions 1000")
    chosen = check_features(path, manifest, features or ()) if features is not None else ()
    if not has_models(manifest):
        raise BundleError(
            f"{path}: it holds no models to write with (no {ARTIFACTS}/base, tuned and saes); make it again with"
            " --set artifacts=true"
        )
    if config.tune.method == "grpo":
        check_reward_is_trusted(path, config, overrides, trust_reward)
    torch.set_num_threads(config.threads)  # sums are split by thread, so results repeat only so
    done = stage.ablate(_request(path, manifest, config, chosen), progress)
    replaced = stage.name_of_chosen(chosen, config.ablation.scale) if chosen else None
    update_bundle(bundle, _tables_with(path, done, replaced))
    return done.ablations


def check_features(path: Path, manifest: Manifest, features: Sequence[int]) -> tuple[int, ...]:
    """Return the features without repeats. Raises ConfigError for an id that the bundle does not have."""
    n_features = manifest.tables["features"].rows
    unknown = [str(feature) for feature in features if not 0 <= feature < n_features]
    if unknown or not features:
        raise ConfigError(
            f"{path}: it has no feature {', '.join(unknown) or 'where none is named'}; name ids from 0 to"
            f" {n_features - 1}, such as --features 3,17"
        )
    return tuple(dict.fromkeys(features))


def check_reward_is_trusted(path: Path, config: RunConfig, overrides: Sequence[str], trust_reward: str | None) -> None:
    """Raise ConfigError where the manifest, not the user, names code to run as the reward, or a file to read for it."""
    feedback, typed = config.feedback, {override.partition("=")[0].strip() for override in overrides}
    reward, module = feedback.reward, feedback.reward.partition(":")[0]
    named = {LEXICON: ("lexicon", feedback.lexicon), CLASSIFIER: ("classifier", str(feedback.classifier))}
    if reward in named:
        key, name = named[reward]
        if f"feedback.{key}" not in typed and name != VADER:
            raise ConfigError(
                f"{path}: its manifest names the {key} {quoted_name(name)}, which is not part of the bundle; if that is"
                f" the one to read on this machine, add --set feedback.{key}={quoted_name(name)}"
            )
    elif reward != VADER and module != trust_reward and "feedback.reward" not in typed:
        raise ConfigError(
            f"{path}: its manifest names the reward {quoted_name(reward)}, and the Python module {module} would be"
            f" imported and run on this machine; if you trust that code, add --trust-reward {module}"
        )


def _request(path: Path, manifest: Manifest, config: RunConfig, chosen: tuple[int, ...]) -> stage.Request:
    """Load the bundle's models, dictionaries and held-out texts; warn and take all texts where none is held out."""
    from lfp.ml.interventions.bundle_models import load_bundle_pair
    from lfp.ml.models.tokenization import TokenizedText
    from lfp.ml.sae.autoencoders import Dictionary
    from lfp.ml.sae.formats import load_sae

    artifacts, device = path / ARTIFACTS, config.model.device
    base, tuned = load_bundle_pair(path, manifest, config.model, device=device)
    saes = [load_sae(folder) for folder in sorted((artifacts / "saes").iterdir())]
    known = {name: read_table(path, name) for name in ("features", "probes", "weights", "labels")}
    columns = ["text", "token_ids", "token_starts", "split", "response_start"]
    texts = pq.read_table(path / "texts.parquet", columns=columns).to_pylist()
    held_out = [row for row in texts if row["split"] == "held_out"]
    if not held_out:
        warnings.warn(
            f"{path}: no text is held out, so prefixes come from texts that the models may have been trained on",
            stacklevel=3,
        )
    return stage.Request(
        config=config,
        base=base,
        tuned=tuned,
        dictionary=Dictionary(saes).to(device),
        tables=stage.Tables(**known, labeller=manifest.labeller),
        texts=[
            TokenizedText(row["text"], tuple(row["token_ids"]), tuple(row["token_starts"]), truncated=False)
            for row in held_out or texts
        ],
        prompts=[row["response_start"] or None for row in held_out or texts],
        reward=load_reward(config, None) if config.tune.method == "grpo" else None,
        chosen=chosen,
    )


def _tables_with(path: Path, done: stage.Ablated, replaced: str | None) -> dict[str, Iterable[Row]]:
    """Return the bundle's tables with the new rows in place of the group `replaced`, or of all groups."""
    ablations, completions, results = (
        read_table(path, name).to_pylist() for name in ("ablations", "completions", "results")
    )
    if replaced is not None:
        kept = [row for row in ablations if replaced not in (row["group"], row["control_of"])]
        others = [row for row in completions if row["group"] not in (replaced, f"{replaced}/{stage.UNABLATED}")]
        return {"ablations": kept + done.ablations, "completions": others + done.completions}
    others = [row for row in completions if row["model"] != "ablated" and stage.UNABLATED not in row["group"]]
    return {
        "ablations": done.ablations,
        "completions": others + done.completions,
        "results": [row for row in results if row["report_row"] != "ablation"]
        + [row.as_dict() for row in done.results],
    }
