"""Repositories of the hub, made of the demo that ships: what they hold, what the cards say, how they are uploaded."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import lfp
from lfp.bundle.manifest import MANIFEST, Manifest, file_sha256, read_manifest
from lfp.bundle.store.connection import Store
from lfp.errors import BundleError, ConfigError
from lfp.exports import hub
from lfp.exports.cards import Repositories, adapter_card, bundle_card
from lfp.exports.hub import hub_files, upload
from lfp.ml.sae.formats import load_sae
from precompute.commands.export import export
from tests.conftest import HOSTILE, ROOT

DEMO = ROOT / "data" / "demo"
HERE = Repositories("me/run", "me/run-saes", "me/run-adapter")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo, exported."""
    target = tmp_path_factory.mktemp("hub") / "demo"
    export(DEMO, target, to="hub", name="me/run")
    return target


def list_changed(bundle: Path, name: str) -> None:
    """Write a changed file's size and hash into the manifest."""
    file, values = bundle / name, read_manifest(bundle).model_dump()
    values["artifacts"][name] = {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
    (bundle / MANIFEST).write_text(json.dumps(values))


def front_matter(card: str) -> dict[str, Any]:
    found = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    assert found is not None
    return {line.partition(": ")[0]: json.loads(line.partition(": ")[2]) for line in found[1].splitlines()}


def test_the_data_set_is_the_bundle_and_opens(folder: Path) -> None:
    manifest = read_manifest(DEMO)
    with lfp.open_bundle(folder / "bundle") as bundle:
        assert bundle.manifest == manifest and bundle.path == folder / "bundle"
    for name, info in manifest.artifacts.items():
        assert file_sha256(folder / "bundle" / name) == info.sha256
    card = (folder / "bundle" / "README.md").read_text(encoding="utf-8")
    facts = front_matter(card)
    assert facts["license"] == "other" and facts["pretty_name"] == manifest.title
    assert all((folder / "bundle" / config["data_files"]).is_file() for config in facts["configs"])
    for said in (manifest.licence, "me/run-saes", "me/run-adapter", manifest.bundle_id, 'repo_type="dataset"'):
        assert said in card


def test_dictionaries_are_copied_and_say_what_they_read(folder: Path) -> None:
    names = sorted(place.name for place in (folder / "saes").iterdir() if place.is_dir())
    assert names == ["tuned-layer19", "tuned-layer27"]
    for name in names:
        stored, exported = load_sae(DEMO / "artifacts" / "saes" / name), load_sae(folder / "saes" / name)
        assert stored.info == exported.info
        assert all(torch.equal(value, exported.state_dict()[key]) for key, value in stored.state_dict().items())
        metadata = json.loads((folder / "saes" / name / "cfg.json").read_text())["metadata"]
        assert metadata["reads"].startswith("Reads what tuning changed at layer")
        assert metadata["activation_scale"] == stored.info.scale
    card = (folder / "saes" / "README.md").read_text(encoding="utf-8")
    assert (
        "SAELens runs one model, and so cannot compute this difference" in card and "Reads what tuning changed" in card
    )
    assert (
        'SAE.from_pretrained("me/run-saes", "tuned-layer19")' in card
        and front_matter(card)["library_name"] == "saelens"
    )


def test_saelens_reads_the_exported_dictionaries(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saelens = pytest.importorskip("sae_lens")
        for place in (folder / "saes").glob("tuned-*"):
            stored, exported = load_sae(place), saelens.SAE.load_from_disk(place)
            inputs = torch.randn(64, stored.info.d_in, generator=torch.Generator().manual_seed(0))
            with torch.no_grad():
                features = stored.encode(inputs)
                torch.testing.assert_close(exported.encode(inputs), features, rtol=1e-5, atol=1e-5)
                torch.testing.assert_close(exported.decode(features), stored.decode(features), rtol=1e-5, atol=1e-5)


def test_the_adapter_has_its_card(folder: Path) -> None:
    assert (folder / "adapter" / "adapter_model.safetensors").read_bytes() == (
        DEMO / "artifacts" / "tuned" / "adapter_model.safetensors"
    ).read_bytes()
    card = (folder / "adapter" / "README.md").read_text(encoding="utf-8")
    assert front_matter(card)["library_name"] == "peft" and "base_model" not in front_matter(card)
    assert "which is not a repository of the hub" in card and "method grpo" in card


def test_a_base_model_of_the_hub_is_named(folder: Path) -> None:
    values = read_manifest(DEMO).model_dump()
    values["models"]["base"]["name"] = "org/base"
    card = adapter_card(Manifest.model_validate(values), HERE)
    assert front_matter(card)["base_model"] == "org/base" and 'from_pretrained("org/base")' in card


def test_no_folder_of_the_machine_is_in_an_adapters_config(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(DEMO, tmp_path / "copy"))
    file = copy / "artifacts" / "tuned" / "adapter_config.json"
    config = json.loads(file.read_text()) | {"base_model_name_or_path": "/home/ann/models/base"}
    file.write_text(json.dumps(config))
    list_changed(copy, "artifacts/tuned/adapter_config.json")
    with Store.open(copy) as store:
        files = {file.name: file.content for file in hub_files(store, repository="me/run")}
    written = files["adapter/adapter_config.json"]
    assert isinstance(written, bytes) and json.loads(written)["base_model_name_or_path"] == "base"


def test_texts_of_a_bundle_are_no_markup_in_a_card() -> None:
    values = read_manifest(DEMO).model_dump()
    evil = "\n---\nlicense: mit\n# <script>x</script> ![a](http://a/b) | `c` | " + HOSTILE[1]
    values |= {"title": evil, "licence": evil, "notes": evil}
    card = bundle_card(Manifest.model_validate(values), HERE, rows={"features": 3}, checks=[evil])
    assert front_matter(card)["license"] == "other" and front_matter(card)["pretty_name"] == evil
    body = card.partition("\n---\n")[2]
    assert "<script" not in body.replace("\\<", "") and "![a](" not in body and "\x1b" not in body
    assert not re.search(r"^license: mit", body, re.MULTILINE)


def test_a_bundle_without_models_is_exported_alone(bundle: Path) -> None:
    with Store.open(bundle) as store:
        names = [file.name for file in hub_files(store, repository="me/run")]
    assert "bundle/README.md" in names and all(name.startswith("bundle/") for name in names)


def test_a_model_that_was_swapped_for_one_of_equal_size_does_not_travel(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(DEMO, tmp_path / "copy"))
    weights = copy / "artifacts" / "tuned" / "adapter_model.safetensors"
    weights.write_bytes(bytes(weights.stat().st_size))
    with pytest.raises(BundleError, match=r"adapter_model\.safetensors was changed after it was written; copy"):
        export(copy, tmp_path / "out", to="hub")
    assert [file.name for file in tmp_path.iterdir()] == ["copy"]


def test_a_dictionary_without_facts_is_refused(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(DEMO, tmp_path / "copy"))
    (copy / "artifacts" / "saes" / "tuned-layer19" / "cfg.json").write_text("{}")
    list_changed(copy, "artifacts/saes/tuned-layer19/cfg.json")
    with Store.open(copy) as store, pytest.raises(BundleError, match=r"lacks metadata\.lfp"):
        list(hub_files(store, repository="me/run"))


class Hub:
    """Takes the place of huggingface_hub's client, and records what it was called with."""

    def __init__(self, taken: str | None = None, error: Exception | None = None) -> None:
        self.calls: list[tuple[str, str]] = []
        self.taken, self.error = taken, error

    def __call__(self) -> Hub:
        return self

    def repo_exists(self, name: str, *, repo_type: str) -> bool:
        if self.error is not None:
            raise self.error
        return name == self.taken

    def create_repo(self, name: str, *, repo_type: str, private: bool) -> None:
        assert private
        self.calls.append((name, repo_type))

    def upload_folder(self, *, folder_path: Path, repo_id: str, repo_type: str) -> None:
        assert (folder_path / "README.md").is_file() and self.calls[-1] == (repo_id, repo_type)


def answer(status: int) -> Exception:
    from huggingface_hub.errors import HfHubHTTPError

    error = HfHubHTTPError.__new__(HfHubHTTPError)
    error.args, error.response = ("hf_secret",), SimpleNamespace(status_code=status)  # type: ignore[assignment]
    return error


def test_three_private_repositories_are_uploaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_secret")
    monkeypatch.setattr("huggingface_hub.HfApi", api := Hub())
    addresses = upload(folder, "me/run")
    assert api.calls == [("me/run", "dataset"), ("me/run-saes", "model"), ("me/run-adapter", "model")]
    assert [address.partition("/me/")[2] for address in addresses] == ["run", "run-saes", "run-adapter"]
    assert "/datasets/me/run" in addresses[0] and set(hub.KINDS) == {"bundle", "saes", "adapter"}


@pytest.mark.parametrize(
    ("api", "says"),
    [
        (Hub(taken="me/run-saes"), "me/run-saes: is on the hub already"),
        (Hub(error=answer(401)), "me/run: the hub refuses the account for it"),
        (Hub(error=answer(503)), "me/run: the hub answered with status 503"),
        (Hub(error=RuntimeError("hf_secret at https://somewhere")), r"me/run: the upload stopped \(RuntimeError\)"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence_without_a_token(
    folder: Path, monkeypatch: pytest.MonkeyPatch, api: Hub, says: str
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_secret")
    monkeypatch.setattr("huggingface_hub.HfApi", api)
    with pytest.raises(ConfigError, match=says) as caught:
        upload(folder, "me/run")
    assert "hf_secret" not in str(caught.value) and api.calls == []


def test_without_an_account_nothing_is_uploaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ConfigError, match="no account of the hub is known here"):
        upload(folder, "me/run")
