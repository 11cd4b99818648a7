"""A bundle as repositories of the Hugging Face hub: the data set, its dictionaries for SAELens, the adapter for PEFT.

Three repositories rather than one, because SAELens and PEFT load from repositories of models only. No tensor is
touched: weights are copied, so that no package of the jobs is needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lfp.bundle.manifest import ARTIFACTS, checked_files
from lfp.bundle.store.connection import Store
from lfp.errors import BundleError, ConfigError
from lfp.exports import cards
from lfp.exports.cards import Dictionary
from lfp.exports.files import File
from lfp.report.checks import read_checks, write_check
from lfp.report.sentences.dictionaries import what_it_reads
from lfp.util.sanitize import values_without_paths
from lfp.util.types import Place

BUNDLE, SAES, ADAPTER = "bundle", "saes", "adapter"
"""Folders of an export, a repository each."""
SUFFIXES: Mapping[str, str] = {BUNDLE: "", SAES: "-saes", ADAPTER: "-adapter"}
"""What follows the name that a person gives, in each repository's own."""
KINDS: Mapping[str, str] = {BUNDLE: "dataset", SAES: "model", ADAPTER: "model"}
"""The hub's kind of each repository."""
REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
"""The name of a repository of the hub: owner/name."""
_CARD, _CONFIG, _ADAPTER_CONFIG = "README.md", "cfg.json", "adapter_config.json"
_OF_SAES, _OF_ADAPTER = f"{ARTIFACTS}/saes/", f"{ARTIFACTS}/tuned/"


def hub_files(store: Store, *, repository: str) -> Iterator[File]:
    """Yield the files of every repository, each below its folder; `repository` is the data set's name in the cards.

    Raises BundleError where a file of the bundle is missing, changed or outside it.
    """
    manifest, files = store.manifest, checked_files(store.path, store.manifest)
    names = {folder: f"{repository}{suffix}" for folder, suffix in SUFFIXES.items()}
    rows = {name: info.rows for name, info in manifest.tables.items() if info.rows}
    dictionaries = list(_dictionaries(store, files))
    of_adapter = {name: file for name, file in files.items() if name.startswith(_OF_ADAPTER)}
    has_adapter = f"{_OF_ADAPTER}{_ADAPTER_CONFIG}" in of_adapter
    here = cards.Repositories(names[BUNDLE], names[SAES] if dictionaries else None,
                              names[ADAPTER] if has_adapter else None)  # fmt: skip
    checks = list(map(write_check, read_checks(store)))
    yield _text(f"{BUNDLE}/{_CARD}", cards.bundle_card(manifest, here, rows=rows, checks=checks))
    yield from (File(f"{BUNDLE}/{name}", file) for name, file in files.items())
    if dictionaries:
        yield _text(f"{SAES}/{_CARD}", cards.saes_card(manifest, here, dictionaries))
    for dictionary in dictionaries:
        config = f"{_OF_SAES}{dictionary.folder}/{_CONFIG}"
        for name, file in files.items():
            if name == config:
                yield _text(f"{SAES}/{dictionary.folder}/{_CONFIG}", _describe(file, dictionary))
            elif name.startswith(f"{_OF_SAES}{dictionary.folder}/"):
                yield File(f"{SAES}/{name.removeprefix(_OF_SAES)}", file)
    if has_adapter:
        yield _text(f"{ADAPTER}/{_CARD}", cards.adapter_card(manifest, here))
        for name, file in of_adapter.items():
            inside = name.removeprefix(_OF_ADAPTER)
            if inside == _ADAPTER_CONFIG:
                yield _text(f"{ADAPTER}/{inside}", _as_json(values_without_paths(_read_json(file))))
            else:
                yield File(f"{ADAPTER}/{inside}", file)


def upload(folder: Path, repository: str) -> list[str]:
    """Upload the folders of an export as private repositories named after `repository`; return their addresses.

    The account is the one that huggingface_hub finds; its token is never read here. Raises ConfigError where there is
    none, where it is refused, or where a repository exists already.
    """
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if get_token() is None:
        raise ConfigError(f"{repository}: no account of the hub is known here; run hf auth login, or set HF_TOKEN")
    api, names = HfApi(), {part: f"{repository}{SUFFIXES[part]}" for part in SUFFIXES if (folder / part).is_dir()}
    try:
        taken = [name for part, name in names.items() if api.repo_exists(name, repo_type=KINDS[part])]
        for part, name in {} if taken else names.items():
            api.create_repo(name, repo_type=KINDS[part], private=True)
            api.upload_folder(folder_path=folder / part, repo_id=name, repo_type=KINDS[part])
    except HFValidationError as error:
        raise ConfigError(f"{repository}: not a name that the hub takes; write it as owner/name") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        why = "refuses the account for it" if status in (401, 403) else f"answered with status {status}"
        raise ConfigError(f"{repository}: the hub {why}; see what hf auth whoami says of the account") from error
    except Exception as error:  # whatever the reason (name, route, proxy, certificate), the hub is out of reach
        raise ConfigError(
            f"{repository}: the upload stopped ({type(error).__name__}); look at the hub, and try again"
        ) from error
    if taken:
        raise ConfigError(f"{', '.join(taken)}: is on the hub already; choose another name, or delete it there first")
    paths = {"dataset": "datasets/", "model": ""}
    return [f"{constants.ENDPOINT}/{paths[KINDS[part]]}{name}" for part, name in names.items()]


def _dictionaries(store: Store, files: Mapping[str, Path]) -> Iterator[Dictionary]:
    """Yield the dictionaries that SAELens can load, as their folders and the table `saes` describe them."""
    used = {(row["layer"], row["site"]): row for row in store.rows("SELECT * FROM saes WHERE is_used")}
    for name, file in files.items():
        if not name.startswith(_OF_SAES) or not name.endswith(f"/{_CONFIG}"):
            continue
        config = _read_json(file)
        try:
            info, hook = config["metadata"]["lfp"], str(config["metadata"]["hook_name"])
            place, trained_on = Place(int(info["layer"]), info["site"]), str(info["trained_on"])
            scale = float(info["scale"])
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{file}: lacks metadata.lfp, which a run writes; make the bundle again") from error
        yield Dictionary(
            folder=name.removeprefix(_OF_SAES).removesuffix(f"/{_CONFIG}"),
            place=place,
            hook_name=hook,
            architecture=str(config.get("architecture")),
            width=int(config["d_sae"]),
            k=config.get("k"),
            scale=scale,
            trained_on=trained_on,
            reads=what_it_reads(trained_on, place.site, place.layer),
            quality=used.get((place.layer, place.site), {}),
        )


def _describe(file: Path, dictionary: Dictionary) -> str:
    """Return a dictionary's config with what it reads, in which units, and no folder of this machine."""
    config = values_without_paths(_read_json(file))
    config["metadata"] |= {
        "reads": dictionary.reads,
        "activation_scale": dictionary.scale,
        "activation_scale_note": "activations in the bundle's tables are this times those of SAELens",
    }
    return _as_json(config)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{file}: cannot be read as JSON; copy the bundle again from its source") from error
    if not isinstance(content, dict):
        raise BundleError(f"{file}: not a JSON object; copy the bundle again from its source")
    return content


def _as_json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _text(name: str, text: str) -> File:
    return File(name, text.encode())
