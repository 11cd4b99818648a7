"""Rows of a data set of the Hugging Face hub, or of its local copy where the hub does not answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lfp.errors import CorpusError, first_line
from lfp.texts.reading.rows import Row, RowSource
from lfp.texts.reading.sources import FORMATS
from lfp.util.dependencies import OUT_OF_REACH, hub_reachable

_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_FILES = (*FORMATS, ".gz", ".bz2", ".xz", ".zst")


@dataclass(frozen=True)
class HubDataset:
    """A data set of the hub, and what of it is read; `key` is the config's key that names it."""

    name: str
    key: str
    config: str | None = None
    data_dir: str | None = None
    split: str = "train"
    revision: str | None = None


def is_hub_name(name: str) -> bool:
    """Return whether a name is of the form org/name and not that of a file."""
    return _NAME.fullmatch(name) is not None and not name.lower().endswith(_FILES)


def hub_source(wanted: HubDataset) -> RowSource:
    """Load a data set. Raises CorpusError where it does not load."""
    rows = _load(wanted)

    def read(columns: Sequence[str]) -> Iterator[Row]:
        names = tuple(rows.column_names)
        some = rows.select_columns([name for name in names if name in columns] or list(names[:1]))
        for number, values in enumerate(some):
            yield Row(str(number), {name: values[name] for name in columns if name in values}, names)

    return RowSource(wanted.name, f"{wanted.key} {wanted.name}", read)


def _load(wanted: HubDataset) -> Any:
    import datasets
    from huggingface_hub import snapshot_download

    shown, has_hub = not datasets.are_progress_bars_disabled(), hub_reachable()
    source, revision = wanted.name, wanted.revision
    datasets.disable_progress_bars()
    try:
        if not has_hub:
            source = snapshot_download(wanted.name, repo_type="dataset", revision=revision, local_files_only=True)
            revision = None
        return datasets.load_dataset(
            source, wanted.config, data_dir=wanted.data_dir, revision=revision, split=wanted.split
        )
    except Exception as error:  # among them those of whatever HTTP library the hub's client uses
        reason = OUT_OF_REACH if source == wanted.name and not has_hub else first_line(error)
        key = wanted.key
        raise CorpusError(
            f"{key} {wanted.name}: no such file, and it does not load as a hub dataset ({reason}); --set {key}=FILE, or"
            f" check its name and {key}_config, {key}_data_dir, {key}_split and {key}_revision"
        ) from error
    finally:
        if shown:
            datasets.enable_progress_bars()
