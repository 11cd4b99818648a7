"""From finished stages to a bundle: every table, the models and autoencoders, and the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

import lfp
from lfp.bundle.manifest import Description, ModelInfo
from lfp.bundle.schema import as_table
from lfp.bundle.writer import BundleWriter
from precompute.run.inputs import load_pair, sae_folder
from precompute.run.resources import hardware
from precompute.run.work_folder import MADE_BY, Run

if TYPE_CHECKING:
    from lfp.ml.models.loading import LanguageModel

_LIBRARIES = ("torch", "transformers", "transformer-lens", "trl", "numpy", "pyarrow")
_MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")


def write_bundle(run: Run, out: Path, stages: Sequence[str]) -> None:
    """Writes what the stages made as one bundle."""
    base, tuned = load_pair(run)
    with BundleWriter(out, _description(run, stages, base=base, tuned=tuned)) as writer:
        for table in MADE_BY:
            writer.write(table, _made(run, table))
        writer.write("layers", _layers(run))
        writer.write("saes", run.json("saes", "saes"))
        writer.write("results", [row.as_dict() for row in run.results(stages)])
        if run.config.artifacts:
            _add_artifacts(run, writer, {"base": base, "tuned": tuned})


def _made(run: Run, table: str) -> pa.Table:
    """A table of the bundle; what was written without features stands among the completions."""
    made = run.made(table)
    return pa.concat_tables([made, run.table("ablations", table)]) if table == "completions" else made


def _description(run: Run, stages: Sequence[str], *, base: LanguageModel, tuned: LanguageModel) -> Description:
    config = run.config
    return Description(
        title=config.title,
        config=config.model_dump(mode="json"),
        seed=config.seed,
        models={"base": _model_info(run, "base", base), "tuned": _model_info(run, "tuned", tuned)},
        hook_points=[f"blocks.{layer}.mlp.hook_out" for layer in run.json("layers", "selected")],
        labeller=config.labels.labeller,
        versions=find_versions(_LIBRARIES),
        licence=config.licence,
        notes=_notes(run),
        stages=run.costs(stages),
        hardware=hardware(config.model.device),
    )


def find_versions(libraries: Sequence[str]) -> dict[str, str]:
    """Return the version of this project, which need not be installed, and of libraries, by name."""
    return {"lfp-explorer": lfp.__version__, **{name: version(name) for name in libraries}}


def _model_info(run: Run, role: str, model: LanguageModel) -> ModelInfo:
    """The model's public name: what the config calls it, never a folder of the machine it was made on."""
    named = getattr(run.config.model, role)
    name = Path(named).name if Path(named).is_dir() else named
    return ModelInfo(name=name, revision=model.revision, parameters=model.n_parameters, sha256=model.sha256)


def _notes(run: Run) -> str:
    """The config's notes, and what the corpus stage found out."""
    facts = run.json("corpus", "facts")
    sentences = [run.config.notes, f"{facts['texts']:,} texts in the corpus."]
    if "ties_dropped" in facts:
        sentences.append(f"{facts['ties_dropped']:.0f} pairs without a preference were dropped.")
    if facts.get("shared_dropped"):
        shared = f"{facts['shared_dropped']:.0f} pairs"
        sentences.append(f"{shared} that share a text with a held-out pair were not tuned on.")
    return " ".join(sentence for sentence in sentences if sentence)


def _layers(run: Run) -> pa.Table:
    scales = {row["layer"]: row["scale"] for row in run.json("saes", "saes") if row["is_used"]}
    rows = [row | {"scale": scales.get(row["layer"])} for row in run.json("layers", "layers")]
    return as_table("layers", rows)


def _add_artifacts(run: Run, writer: BundleWriter, models: dict[str, LanguageModel]) -> None:
    for role, model in models.items():
        assert model.folder is not None
        for pattern in _MODEL_FILES:
            for file in sorted(model.folder.glob(pattern)):
                writer.add_artifact(file, f"{role}/{file.name}")
    for layer in run.json("layers", "selected"):
        folder = run.folder("saes") / sae_folder("tuned", layer)
        writer.add_artifact(folder, f"saes/{folder.name}")
