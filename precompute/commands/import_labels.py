"""`import`: add the explanations that Neuronpedia exports to a bundle, as labels of the labeller neuronpedia."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lfp.bundle.manifest import check_bundle, read_table
from lfp.bundle.writer import update_bundle
from lfp.errors import ConfigError
from lfp.labels.neuronpedia import read_explanations
from lfp.labels.result_rows import label_rows, merge_labels
from lfp.labels.types import NEURONPEDIA
from lfp.util.types import Place
from precompute.run.work_folder import writes_bundle


@dataclass(frozen=True)
class Imported:
    """What `import_labels` added: features that got a label, and features in all."""

    labelled: int
    features: int


@writes_bundle
def import_labels(bundle: str | Path, files: Sequence[str | Path] | str | Path) -> Imported:
    """Add Neuronpedia's explanations to a bundle, beside the labels that it holds.

    `files` are JSON or JSON lines, gzipped or not, or folders of them, as Neuronpedia's exports have them. The labels
    are of the labeller `neuronpedia`; they have no scores, because nobody tested them on this bundle's texts, and say
    nothing of the feedback. A label of an earlier import is replaced. Raises DataError, and changes nothing, for
    explanations of a layer, a site or a feature that the bundle lacks, CorpusError for files that cannot be read.
    """
    path = Path(bundle).expanduser()
    paths = [files] if isinstance(files, str | Path) else list(files)
    if not paths:
        raise ConfigError("files: none is named; name the files or the folder that Neuronpedia exported")
    check_bundle(path)
    tables = partial(read_table, path)
    rows = tables("features").select(["feature_id", "layer", "site", "index"]).to_pylist()
    features = {(Place(row["layer"], row["site"]), row["index"]): row["feature_id"] for row in rows}
    labels = read_explanations([Path(file).expanduser() for file in paths], features)
    # no row of the report changes: those of labellers are of labels that say whether a feature is related
    update_bundle(path, {"labels": merge_labels(tables("labels"), label_rows(labels, NEURONPEDIA))})
    return Imported(len(labels), len(features))
