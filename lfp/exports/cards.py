"""Cards of an export's repositories in Markdown: what it is, of which pair, under which licence, how to open it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lfp.bundle.manifest import Manifest, ModelInfo
from lfp.config import PRETRAIN, TUNE
from lfp.report.formatting import count, plain
from lfp.report.sentences.dictionaries import is_of_one_model
from lfp.report.summary import what_was_tuned
from lfp.util.sanitize import as_markdown, path_name
from lfp.util.types import Place

_LICENCES = ("mit", "apache-2.0", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0")
"""Licences that the hub knows by these names; any other is written out."""
_OF_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_SHOWN_TABLES = ("features", "labels", "examples", "texts", "vocabulary", "credits", "results")
"""Tables that the hub's viewer offers, the first one opened."""


@dataclass(frozen=True)
class Repositories:
    """Names of the repositories of an export; None for what the bundle does not hold."""

    bundle: str
    saes: str | None
    adapter: str | None


@dataclass(frozen=True)
class Dictionary:
    """A dictionary that SAELens can load: its folder, what it reads, and its row of the table `saes`."""

    folder: str
    place: Place
    hook_name: str
    architecture: str
    width: int
    k: int | None
    scale: float
    trained_on: str
    reads: str
    quality: Mapping[str, Any]


def bundle_card(manifest: Manifest, here: Repositories, *, rows: Mapping[str, int], checks: Sequence[str]) -> str:
    """Return the card of the data set; `rows` are the rows of each table that has any."""
    configs = [
        {"config_name": name, "data_files": f"{name}.parquet", **({"default": True} if name == "features" else {})}
        for name in _SHOWN_TABLES
        if name in rows
    ]
    head = _front_matter(
        manifest,
        pretty_name=manifest.title,
        tags=["interpretability", "sparse-autoencoder", "rlhf", "lfp-explorer"],
        **({"configs": configs} if configs else {}),
    )
    listed = "".join(f"| `{name}` | {count(n)} |\n" for name, n in sorted(rows.items()))
    others = [
        f"- dictionaries for SAELens: [{here.saes}](https://huggingface.co/{here.saes})" if here.saes else "",
        f"- adapter for PEFT: [{here.adapter}](https://huggingface.co/{here.adapter})" if here.adapter else "",
    ]
    beside = "\n".join(filter(None, others))
    return (
        f"{head}\n# {as_markdown(manifest.title)}\n\nWhat a language model learned from its feedback: features, "
        f"probes, the ledger of the implicit reward, labels and controls of one run, as a bundle of LFP Explorer.\n\n"
        f"{as_markdown(what_was_tuned(manifest))}\n\n{_checks(checks)}## The pair\n\n{_pair(manifest)}\n"
        f"## Open it\n\n```python\nimport lfp\nfrom huggingface_hub import snapshot_download\n\n"
        f'bundle = lfp.open_bundle(snapshot_download("{here.bundle}", repo_type="dataset"))\n'
        f'bundle.features(sort="contribution", limit=50)\n```\n\n`lfp explore FOLDER` opens the downloaded folder '
        f"in the explorer. Every table is a Parquet file, readable by itself.\n\n"
        f"{f'Beside it:{chr(10)}{chr(10)}{beside}{chr(10)}{chr(10)}' if beside else ''}"
        f"## Tables\n\n| table | rows |\n| --- | --- |\n{listed}\n{_licence(manifest)}"
    )


def saes_card(manifest: Manifest, here: Repositories, dictionaries: Sequence[Dictionary]) -> str:
    """Return the card of the dictionaries: how SAELens loads each, and what it has to be given."""
    head = _front_matter(manifest, library_name="saelens", tags=["saelens", "sparse-autoencoder", "interpretability"])
    rows = "".join(
        f"| `{each.folder}` | `{each.hook_name}` | {each.architecture}"
        f"{f', k {each.k}' if each.k is not None else ''} | {count(each.width)} | {plain(each.quality.get('fvu'))} | "
        f"{plain(each.quality.get('l0'), 1)} | {plain(each.scale, 4)} |\n"
        for each in dictionaries
    )
    reads = "".join(f"- `{each.folder}`: {as_markdown(each.reads)}\n" for each in dictionaries)
    first = dictionaries[0].folder
    warning = ""
    if not all(is_of_one_model(each.trained_on) for each in dictionaries):
        warning = (
            "SAELens runs one model, and so cannot compute this difference of two: give it the difference yourself. "
            "With the models' activations alone it returns numbers that mean nothing. "
            "`lfp.open_bundle(...).encode(text)` computes both.\n\n"
        )
    return (
        f"{head}\n# Dictionaries of: {as_markdown(manifest.title)}\n\nSparse autoencoders in the format of SAELens, "
        f"of the bundle [{here.bundle}](https://huggingface.co/datasets/{here.bundle}).\n\n{reads}\n{warning}"
        f"```python\nfrom sae_lens import SAE\n\n"
        f'sae = SAE.from_pretrained("{here.saes}", "{first}")  # or SAE.load_from_disk("FOLDER/{first}")\n'
        f"features = sae.encode(inputs)\n```\n\n"
        f"| folder | hook | architecture | features | FVU | L0 | scale |\n| --- | --- | --- | --- | --- | --- | --- |\n"
        f"{rows}\nInputs are the models' own activations, unscaled. Activations in the bundle's tables are SAELens's "
        f"times the scale. FVU (variance unexplained) and L0 (active features per token) are on held-out texts.\n\n"
        f"{_pair(manifest)}\n{_licence(manifest)}"
    )


def adapter_card(manifest: Manifest, here: Repositories) -> str:
    """Return the adapter's card: of which base model it is, how it was tuned, and how to load it."""
    base, tune = manifest.models.get("base"), manifest.config.get("tune", {})
    on_hub = base is not None and base.by_name and _OF_HUB.fullmatch(base.name)
    named = {"base_model": base.name} if on_hub and base else {}
    head = _front_matter(manifest, library_name="peft", tags=["peft", "lora", "trl", "lfp-explorer"], **named)
    tuned = ", ".join(
        f"{name} {as_markdown(str(tune[name]))}"
        for name in ("method", "steps", "beta", "learning_rate")
        if name in tune
    )
    name = base.name if on_hub and base else "PATH_OF_THE_BASE_MODEL"
    where = ""
    if base is not None and not on_hub:
        where = (
            f"The base model was {as_markdown(name_model(base))}, which is not a repository of the hub: load it "
            "yourself, as it was in the run, and check the hash of its weights.\n\n"
        )
    return (
        f"{head}\n# Adapter of: {as_markdown(manifest.title)}\n\n{as_markdown(what_was_tuned(manifest))} "
        f"{f'Tuning: {tuned}. ' if tuned else ''}Its features and ledger are the bundle "
        f"[{here.bundle}](https://huggingface.co/datasets/{here.bundle}).\n\n```python\nfrom peft import PeftModel\n"
        f"from transformers import AutoModelForCausalLM\n\n"
        f'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{name}"), "{here.adapter}")\n```\n\n'
        f"{where}{_pair(manifest)}\n{_licence(manifest)}"
    )


def _front_matter(manifest: Manifest, **fields: Any) -> str:
    """Return the card's metadata; JSON is YAML, and holds any text safely."""
    known = manifest.licence.strip().lower()
    licence = {"license": known} if known in _LICENCES else {"license": "other", "license_name": "stated-in-the-card"}
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in (licence | fields).items()]
    return "---\n" + "\n".join(lines) + "\n---\n"


def _pair(manifest: Manifest) -> str:
    rows = "".join(
        f"| {as_markdown(role)} | {as_markdown(name_model(model))} | {count(model.parameters)} "
        f"| `{model.sha256[:16]}` |\n"
        for role, model in sorted(manifest.models.items())
    )
    places = ", ".join(as_markdown(place) for place in manifest.hook_points)
    return (
        f"| model | name | parameters | sha256 of the weights |\n| --- | --- | --- | --- |\n{rows}\n"
        f"{f'Features are read at {places}. ' if places else ''}Seed {manifest.seed}; bundle `{manifest.bundle_id}`, "
        f"tables `{manifest.tables_id}`.\n"
    )


def name_model(model: ModelInfo) -> str:
    """Name a model as those know it who did not make the run, without folders of the machine that read it."""
    words = {TUNE: "tuned in the run", PRETRAIN: "trained from scratch in the run"}.get(model.name)
    named = words or path_name(model.name)
    kind = f", {model.adapter} adapter of the base model" if model.adapter else ""
    return f"{named}{f' at {model.revision}' if model.revision else ''}{kind}"


def _checks(checks: Sequence[str]) -> str:
    return "".join(f"- {as_markdown(check)}\n" for check in checks) + "\n" if checks else ""


def _licence(manifest: Manifest) -> str:
    notes = f"\n\n## Notes\n\n{as_markdown(manifest.notes)}" if manifest.notes else ""
    return f"## Licence\n\n{as_markdown(manifest.licence)}{notes}\n"
