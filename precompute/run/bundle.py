"""Write a bundle from finished stages: every table, the models and dictionaries, and the manifest."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

import lfp
from lfp.bundle.manifest import Description, ModelInfo
from lfp.bundle.schema import as_table
from lfp.bundle.writer import BundleWriter
from lfp.config import PRETRAIN, TUNE
from lfp.ml.models.loading import has_same_tokenizer
from lfp.ml.models.sources import PACKAGE, copy_in_half
from lfp.ml.sae.formats import hook_name
from lfp.texts.screening import is_offensive
from lfp.util.object_stores import values_without_secrets, without_secrets
from lfp.util.types import CHECKPOINTS
from precompute.run.inputs import load_pair, read_places, resolve_name, sae_folder
from precompute.run.resources import hardware
from precompute.run.work_folder import MADE_BY, Run

if TYPE_CHECKING:
    from lfp.ml.models.loading import LanguageModel

_LIBRARIES = ("torch", "transformers", "trl", "peft", "gguf", "numpy", "pyarrow")
_MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
_ADAPTER_FILES = ("adapter_*.json", "*.safetensors")
"""Of an adapter that keeps the tokenizer of its base, which is read from the base then."""


def write_bundle(run: Run, out: Path, stages: Sequence[str]) -> None:
    """Write what the stages made as a bundle at `out`."""
    base, tuned = load_pair(run)
    saes = run.json("saes", "saes")
    scales = {row["layer"]: row["scale"] for row in saes if row["is_used"] and row["site"] == "mlp_out"}
    credit = list(
        map(sum, zip(*(run.json("credits", "layers")[site] for site in run.config.layers.sites), strict=True))
    )
    layers = [
        row | {"scale": scales.get(row["layer"]), "credit": credit[row["layer"]]}
        for row in run.json("layers", "layers")
    ]
    completions, n_left_out = _gather_completions(run)
    description = _describe(run, stages, {"base": base, "tuned": tuned}, n_left_out=n_left_out)
    with BundleWriter(out, description) as writer:
        for table in MADE_BY:
            if table == "decoders" and not run.config.keep_decoders:
                continue  # it is written empty
            writer.write(table, completions if table == "completions" else run.made(table))
        writer.write("layers", as_table("layers", layers))
        writer.write("saes", saes)
        writer.write("results", [row.as_dict() for row in run.results(stages)])
        if run.config.artifacts:
            _add_artifacts(run, writer, {"base": base, "tuned": tuned})


def _gather_completions(run: Run) -> tuple[pa.Table, int]:
    """Return all completions, those written without some features last, and the number of prefixes screened out."""
    rows = pa.concat_tables([run.made("completions"), run.table("ablations", "completions")])
    if not run.config.screen_completions:
        return rows, 0
    prompts = rows["prompt_id"].to_pylist()
    unfit = {i for i, text in zip(prompts, rows["completion"].to_pylist(), strict=True) if is_offensive(text)}
    return rows.filter(pa.array([i not in unfit for i in prompts], pa.bool_())), len(unfit)


def _describe(run: Run, stages: Sequence[str], models: dict[str, LanguageModel], *, n_left_out: int) -> Description:
    """Describe the run for the manifest. Models are named as the config does, without folders of this machine."""
    config, infos = run.config, {}
    for role, model in models.items():
        named = getattr(config.model, role)
        name = Path(named).name if Path(named).is_dir() else without_secrets(named)
        infos[role] = ModelInfo(
            name=name,
            revision=model.revision,
            parameters=model.n_parameters,
            sha256=model.sha256,
            adapter=model.adapter_kind,
            by_name=_is_kept_by_name(run, role),
        )
    return Description(
        title=config.title,
        config=values_without_secrets(config.model_dump(mode="json")),
        seed=config.seed,
        models=infos,
        hook_points=[hook_name(place) for place in read_places(run)],
        labeller=config.labels.labeller,
        versions=find_versions(_LIBRARIES),
        licence=config.licence,
        notes=_write_notes(run, models["tuned"].note, n_left_out),
        stages=run.costs(stages),
        hardware=hardware(config.model.device),
        forecast_sha256=run.json("forecast", "facts")["sha256"],
    )


def find_versions(libraries: Sequence[str]) -> dict[str, str]:
    """Return the version of this project, which need not be installed, and of those libraries that are, by name."""
    installed = {name: version(name) for name in libraries if importlib.util.find_spec(name.replace("-", "_"))}
    return {"lfp-explorer": lfp.__version__, **installed}


def _is_kept_by_name(run: Run, role: str) -> bool:
    """Whether a model can be found by its name elsewhere: on the hub, in a package or as a GGUF file."""
    name = getattr(run.config.model, role)
    if name in (PRETRAIN, TUNE):
        return False
    return name.startswith(PACKAGE) or not Path(resolve_name(name, run.config_dir)).expanduser().is_dir()


def _write_notes(run: Run, of_models: str, n_left_out: int) -> str:
    """Join the config's notes, what is not used of the models, and what the stages found."""
    facts = run.json("corpus", "facts")
    sentences = [run.config.notes, f"{facts['texts']:,} texts in the corpus."]
    if "ties_dropped" in facts:
        sentences.append(f"{facts['ties_dropped']:.0f} pairs without a preference were dropped.")
    if facts.get("shared_dropped"):
        shared = f"{facts['shared_dropped']:.0f} pairs"
        sentences.append(f"{shared} that share a text with a held-out pair were not tuned on.")
    if facts.get("rows_dropped"):
        n = sum(facts["rows_dropped"].values())
        sentences.append(f"{n:,} rows could not be used: {facts['first_rows_dropped']}.")
    if n_left_out:
        sentences.append(f"Completions of {n_left_out} prefixes are left out for their language; figures are of all.")
    sentences += [*run.json("credits", "notes"), *run.json("saes", "notes"), of_models]
    return " ".join(sentence for sentence in sentences if sentence)


def _add_artifacts(run: Run, writer: BundleWriter, models: dict[str, LanguageModel]) -> None:
    copy = copy_in_half if run.config.artifacts_dtype == "float16" else shutil.copyfile
    for role, model in models.items():
        if _is_kept_by_name(run, role):
            continue
        assert model.folder is not None
        borrows_tokenizer = role == "tuned" and bool(model.adapter_kind) and has_same_tokenizer(models["base"], model)
        for pattern in _ADAPTER_FILES if borrows_tokenizer else _MODEL_FILES:
            for file in sorted(model.folder.glob(pattern)):
                writer.add_artifact(file, f"{role}/{file.name}", copy=copy)
    kept = run.folder("tuned") / CHECKPOINTS
    if kept.is_dir() and run.config.keep_checkpoints:
        writer.add_artifact(kept, CHECKPOINTS, copy=copy)
    for place in read_places(run):
        folder = run.folder("saes") / sae_folder("tuned", place)
        writer.add_artifact(folder, f"saes/{folder.name}", copy=copy)
