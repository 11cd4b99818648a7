"""Dictionaries made elsewhere: found, read, and checked on activations of their places before anything long runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lfp.config import PRETRAIN, TUNE, PretrainedSae, RunConfig
from lfp.evaluation.results import ResultRow
from lfp.util.types import Place
from precompute.run.inputs import resolve_name
from precompute.run.work_folder import Run

if TYPE_CHECKING:
    from torch import Tensor

    from lfp.ml.sae.autoencoders import Sae
    from lfp.ml.sae.formats import StoredSae

CHECKED_TOKENS = 4_000
"""Tokens on which a dictionary is checked."""


@dataclass
class Pretrained:
    """The dictionaries of one model by place, the rows `sae_check`, and notes on what is doubtful."""

    saes: dict[Place, Sae] = field(default_factory=dict)
    rows: list[ResultRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_files(config: RunConfig, config_dir: Path | None) -> None:
    """Open every dictionary that the config names, and check that it is of the entry's place and of the base's width.

    The width is that of the base's config, since no model is loaded yet. Raises ModelError.
    """
    from lfp.ml.models.sources import find_model, load_config
    from lfp.ml.sae.formats import check_place, check_width

    opened = [(_open(entry, config_dir)[0], Place(entry.layer, entry.site)) for entry in config.sae.pretrained]
    for stored, place in opened:
        check_place(stored, place)
    if not opened:
        return
    d_in = config.pretrain.d_model
    if config.model.base != PRETRAIN:
        base = find_model(resolve_name(config.model.base, config_dir), revision=config.model.base_revision)
        d_in = load_config(base).get_text_config().hidden_size
    for stored, _ in opened:
        check_width(stored, d_in)


def load_pretrained(run: Run, role: str, collect: Callable[[int], Mapping[Place, Tensor]]) -> Pretrained:
    """Read the dictionaries that the config names for a model, and check each on activations of its place.

    `collect` returns so many activations [n, d_in] by place. Raises ModelError for a folder that cannot be read, one of
    another place or width, and one that does not fit the activations.
    """
    found = Pretrained()
    entries = [entry for entry in run.config.sae.pretrained if entry.model == role]
    stored = [_open(entry, run.config_dir) for entry in entries]  # all files before the model runs
    activations = collect(CHECKED_TOKENS) if entries else {}
    for number, (entry, (content, source)) in enumerate(zip(entries, stored, strict=True)):
        note = _note_model(content, source, run.config)
        found.notes += [note] if note else []
        values = activations[Place(entry.layer, entry.site)]
        fvu = _add(found, entry, content, source, values, run.config.model.device)
        run.progress(f"saes: checked {entry.site} of layer {entry.layer}, {role}", number + 1, len(entries), fvu)
    return found


def _open(entry: PretrainedSae, config_dir: Path | None) -> tuple[StoredSae, str]:
    """Read a dictionary's files; also return a name for it that has no folder of this machine."""
    from lfp.ml.sae.formats import locate_release, locate_sae, open_sae

    if entry.release is not None and entry.sae_id is not None:
        located = locate_release(entry.release, entry.sae_id, entry.revision)
        return open_sae(located.folder, located.overrides), f"{entry.release}/{entry.sae_id}"
    name = resolve_name(str(entry.folder), config_dir)
    source = Path(name).name if Path(name).expanduser().is_dir() else name
    return open_sae(locate_sae(name, entry.revision)), source


def _add(
    found: Pretrained, entry: PretrainedSae, stored: StoredSae, source: str, activations: Tensor, device: str
) -> float:
    """Build a dictionary, check it, and add it with its rows; return its share of unexplained variance."""
    from lfp.ml.sae.fit import check_fit
    from lfp.ml.sae.formats import adopt_sae
    from lfp.ml.sae.training import unit_scale

    sae = adopt_sae(
        stored,
        layer=entry.layer,
        site=entry.site,
        model=entry.model,
        scale=unit_scale(activations),
        d_in=activations.shape[1],
        source=source,
        input_scale=entry.input_scale,
    )
    fit = check_fit(sae.to(device), activations.to(device), input_scale=entry.input_scale)
    found.saes[Place(entry.layer, entry.site)] = sae.cpu()
    found.notes += [fit.note] if fit.note else []
    figures = {**vars(fit.measured), "input_scale": entry.input_scale}
    keys: dict[str, Any] = {"layer": entry.layer, "site": entry.site, "model": entry.model, "group": source}
    found.rows += [
        ResultRow.from_estimate("sae_check", metric, value, **keys, n=len(activations))
        for metric, value in figures.items()
    ]
    return fit.measured.fvu


def _note_model(stored: StoredSae, source: str, config: RunConfig) -> str | None:
    """Say that a dictionary was made for a model whose name is neither of the pair's; None where it may be of it."""
    names = [name for name in (config.model.base, config.model.tuned) if name not in (PRETRAIN, TUNE)]
    if stored.own is not None or stored.model is None or _short(stored.model) in map(_short, names):
        return None
    pair = " and ".join(names) or "models that it trains"
    return f"The dictionary {source} was made for {stored.model}, and this run reads {pair}."


def _short(name: str) -> str:
    """Shorten a model's name to what its spellings share: gpt2-small is gpt2, org/Name is name."""
    return name.rstrip("/").rpartition("/")[2].lower().removesuffix("-small")
