"""Runs that read other sites than MLP outputs, from models to a bundle that ablates and encodes by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lfp
from lfp.bundle.manifest import read_manifest, read_table
from lfp.bundle.validation import validate
from lfp.ml.models.activations import stream
from lfp.ml.models.loading import load_model
from lfp.ml.models.tokenization import TokenizedText
from lfp.ml.sae.formats import load_sae
from lfp.util.types import SITES, Place, Site
from precompute.commands.ablate import ablate
from tests.precompute.conftest import Resume, brief_config


@pytest.fixture(scope="module", params=[SITES, ("resid_post",)], ids=["all", "resid_post"])
def sited(
    request: pytest.FixtureRequest, resume_tiny: Resume, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Sequence[Site]]:
    """The tiny run's models read at other sites, and which."""
    config = brief_config(layers={"sites": list(request.param)}, probes={"controls": ["token_identity"]})
    return resume_tiny(config, tmp_path_factory.mktemp("runs") / "sited"), request.param


def rows(bundle: Path, table: str) -> list[dict[str, Any]]:
    return read_table(bundle, table).to_pylist()


def test_the_bundle_is_valid_and_names_every_site(sited: tuple[Path, Sequence[Site]], tiny_bundle: Path) -> None:
    bundle, sites = sited
    assert validate(bundle) == []
    (layer,) = {row["layer"] for row in rows(tiny_bundle, "features")}
    features, saes = rows(bundle, "features"), rows(bundle, "saes")
    assert [(row["layer"], row["site"], row["index"]) for row in features] == [
        (layer, site, index) for site in sorted(sites) for index in range(16)
    ], "features count through the sites in the order of the forward pass"
    assert {(row["site"], row["model"], row["width"]) for row in saes} == {
        (site, *of_model) for site in sites for of_model in (("tuned", 16), ("tuned", 32), ("base", 16))
    }
    scales = {row["site"]: row["scale"] for row in saes if row["is_used"]}
    assert set(scales) == set(sites) and all(scale > 0 for scale in scales.values())
    (of_layer,) = (row["scale"] for row in rows(bundle, "layers") if row["selected"])
    assert of_layer == scales.get("mlp_out"), "null where the MLP output is not read"
    reading = [row for row in rows(bundle, "probes") if row["inputs"] != "token_identity"]
    assert all((row["layers"], row["sites"]) == ([layer], [s for s in SITES if s in sites]) for row in reading)
    assert {row["site"] for row in rows(bundle, "results") if row["report_row"] == "sae_quality"} == set(sites)
    names = {site: "mlp.hook_out" if site == "mlp_out" else f"hook_{site}" for site in SITES}
    expected = [f"blocks.{layer}.{names[site]}" for site in sorted(sites)]
    assert read_manifest(bundle).hook_points == expected


def test_every_site_has_its_dictionary_and_that_of_the_mlp_output_is_the_default_runs(
    sited: tuple[Path, Sequence[Site]], tiny_bundle: Path
) -> None:
    bundle, sites = sited
    (alone,) = (tiny_bundle / "artifacts" / "saes").iterdir()
    found = {folder.name: load_sae(folder) for folder in (bundle / "artifacts" / "saes").iterdir()}
    assert set(found) == {alone.name + (f"-{site}" if site != "mlp_out" else "") for site in sites}
    assert {sae.info.site for sae in found.values()} == set(sites)
    if "mlp_out" in sites:
        assert torch.equal(found[alone.name].encoder, load_sae(alone).encoder)


def test_a_text_encoded_from_the_bundle_alone_has_the_activations_that_it_stores(
    sited: tuple[Path, Sequence[Site]],
) -> None:
    bundle, _ = sited
    stored = rows(bundle, "activations")[0]
    text = next(row for row in rows(bundle, "texts") if row["text_id"] == stored["text_id"])
    with lfp.open_bundle(bundle) as run:
        found = run.encode(text["text"], arrow=True)
    assert found["feature_id"].to_pylist() == stored["feature_ids"]
    assert found["position"].to_pylist() == stored["positions"]
    np.testing.assert_allclose(found["activation"], stored["values"], rtol=1e-4, atol=1e-5)


def test_features_are_read_where_the_table_says(sited: tuple[Path, Sequence[Site]]) -> None:
    """Each stored activation from the model's own site, by numpy."""
    bundle, _ = sited
    model = load_model(str(bundle / "artifacts" / "tuned"))
    saes = {sae.info.place: sae for sae in map(load_sae, (bundle / "artifacts" / "saes").iterdir())}
    features, stored = rows(bundle, "features"), rows(bundle, "activations")[1]
    text = next(row for row in rows(bundle, "texts") if row["text_id"] == stored["text_id"])
    tokenized = TokenizedText(text["text"], tuple(text["token_ids"]), tuple(text["token_starts"]), truncated=False)
    (tokens,) = stream(model, [tokenized], places=list(saes), batch_texts=1, prepend_bos=True)
    dense = np.zeros((len(tokenized.token_ids), len(features)))
    for row in features:
        sae, x = saes[place := Place(row["layer"], row["site"])], tokens.outputs
        pre = x[place].numpy() @ sae.encoder[row["index"]].numpy() + float(sae.b_enc[row["index"]])
        dense[:, row["feature_id"]] = np.maximum(pre, 0.0) * sae.info.scale
    kept = np.zeros_like(dense)
    kept[stored["positions"], stored["feature_ids"]] = stored["values"]
    np.testing.assert_allclose(kept, dense, rtol=1e-3, atol=1e-4)


def test_features_of_several_sites_are_ablated_together_against_controls_of_their_own(
    sited: tuple[Path, Sequence[Site]], tmp_path: Path
) -> None:
    import shutil

    bundle, sites = sited
    copy = shutil.copytree(bundle, tmp_path / "copy")
    features = rows(copy, "features")
    site_of = {row["feature_id"]: row["site"] for row in features}
    live = {
        site: [row["feature_id"] for row in features if row["site"] == site and row["n_active"] > 50] for site in sites
    }
    chosen = [members[0] for members in live.values()]
    made = ablate(copy, features=chosen, completions=8, overrides=["ablation.controls=2"])
    group = next(row for row in made if row["kind"] == "chosen")
    assert group["features"] == sorted(chosen)
    assert group["site"] == (sites[0] if len(sites) == 1 else None) and group["layer"] is not None
    for row in made:
        assert sorted(site_of[feature] for feature in row["features"]) == sorted(sites), "a control of each at its site"
    assert validate(copy) == []
