"""Dictionaries of both models, every kind from training to a bundle that encodes, ablates and explains by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import lfp
from lfp.bundle.manifest import read_table
from lfp.bundle.validation import validate
from lfp.config import parse_config
from lfp.config_sections.evidence import ProbeControl
from lfp.errors import ConfigError
from lfp.ml.sae.autoencoders import Crosscoder
from lfp.ml.sae.formats import load_sae
from lfp.report.sentences.sections import sentence
from precompute.commands.ablate import ablate
from precompute.pipeline import run_stages
from precompute.run.work_folder import Run
from tests.app.reader import PAGES, whole
from tests.conftest import ROOT
from tests.precompute.conftest import Resume, brief_config, silent, tiny_config

SITES_OF = {
    "shared": ["mlp_out"],
    "change": ["mlp_out", "resid_post", "attn_out"],
    "crosscoder": ["mlp_out", "attn_out"],
    "base_finetuned": ["mlp_out"],
}
SAE = {"expansion": [1], "variant": "batchtopk", "k": 4}


@pytest.fixture(scope="module", params=SITES_OF)
def made(
    request: pytest.FixtureRequest, resume_tiny: Resume, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """A kind, and the bundle of a run with it, on the tiny run's models."""
    config = brief_config(
        layers={"sites": SITES_OF[request.param]},
        sae={**SAE, "trained_on": request.param},
        probes={"controls": list(get_args(ProbeControl))},
    )
    return request.param, resume_tiny(config, tmp_path_factory.mktemp("runs") / request.param)


def rows(bundle: Path, table: str) -> list[dict[str, Any]]:
    return read_table(bundle, table).to_pylist()


def test_the_bundle_is_valid_and_says_what_dictionaries_explain_of_both_models(made: tuple[str, Path]) -> None:
    kind, bundle = made
    assert validate(bundle) == []
    used = [row for row in rows(bundle, "saes") if row["is_used"]]
    assert {row["trained_on"] for row in used} == {kind} and [row["site"] for row in used] == sorted(SITES_OF[kind])
    controls = [row for row in rows(bundle, "saes") if row["source"] == "random_decoder"]
    assert len(controls) == len(used) and all(not row["is_used"] and row["fvu"] > 0 for row in controls)
    changes = rows(bundle, "differences")
    assert {(row["site"], row["rank"]) for row in changes} == {(row["site"], i) for row in used for i in range(6)}
    probed = {row["inputs"] for row in rows(bundle, "probes")}
    assert {"trained_random_sae", "difference_in_means"} <= probed
    assert all(row["fvu_tuned"] > 0 and row["fvu_base"] > 0 for row in used)
    assert any(row["model"] == "base" for row in rows(bundle, "saes")) == (kind == "base_finetuned")
    features = rows(bundle, "features")
    known = [row for row in features if row["scale_tuned"] is not None and row["scale_tuned"] > 0]
    assert known and any(row["is_tuned_only"] is not None for row in known) == (kind != "change")
    has_rows = kind in ("crosscoder", "base_finetuned")
    assert all((row["base_cosine"] is not None) == has_rows for row in features)
    found = [row for row in rows(bundle, "results") if row["report_row"] == "latent_scaling"]
    counted = {row["model"] for row in found if row["metric"] == "exclusive"}
    assert counted == (set() if kind == "change" else {"tuned", "base"})


def test_credits_have_the_share_of_a_control_beside_that_of_every_dictionary(made: tuple[str, Path]) -> None:
    kind, bundle = made
    found = [row for row in rows(bundle, "results") if row["report_row"] == "feature_credits"]
    shares = {
        metric: {(row["site"], row["group"], row["inputs"]) for row in found if row["metric"] == metric}
        for metric in ("features_share", "control_share")
    }
    written = [site for site in SITES_OF[kind] if site != "resid_post"]
    paths = ("full", "same_position")
    assert shares["features_share"] == {(site, path, None) for site in written for path in paths}
    assert shares["control_share"] == {(site, path, "trained_random_sae") for site in written for path in paths}


def test_saved_dictionaries_say_what_they_read(made: tuple[str, Path]) -> None:
    kind, bundle = made
    saes = [load_sae(folder) for folder in (bundle / "artifacts" / "saes").iterdir()]
    assert {sae.info.trained_on for sae in saes} == {kind}
    assert all(isinstance(sae, Crosscoder) == (kind == "crosscoder") for sae in saes)


def test_a_text_encoded_from_the_bundle_alone_has_the_activations_that_it_stores(made: tuple[str, Path]) -> None:
    _, bundle = made
    stored = rows(bundle, "activations")[0]
    text = next(row for row in rows(bundle, "texts") if row["text_id"] == stored["text_id"])
    with lfp.open_bundle(bundle) as run:
        found = run.encode(text["text"], arrow=True)
        assert run.encode(text["text"], model="base", arrow=True).num_rows > 0
    assert found["feature_id"].to_pylist() == stored["feature_ids"]
    assert found["position"].to_pylist() == stored["positions"]
    np.testing.assert_allclose(found["activation"], stored["values"], rtol=1e-3, atol=1e-4)


def test_a_bundle_ablates_by_itself(made: tuple[str, Path], tmp_path: Path) -> None:
    import shutil

    _, bundle = made
    copy = shutil.copytree(bundle, tmp_path / "copy")
    live = [row["feature_id"] for row in rows(copy, "features") if row["n_active"] > 50]
    done = ablate(copy, features=live[:1], completions=4, overrides=["ablation.controls=1"])
    assert any(row["kind"] == "chosen" for row in done) and validate(copy) == []


def test_the_explorer_opens_every_page(made: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages whose file fails show a traceback; "Try it" reads a text by the bundle's own models, and writes on."""
    _, bundle = made
    monkeypatch.setenv("LFP_BUNDLES", str(bundle))
    monkeypatch.setenv("LFP_AUDIT_URL", f"sqlite:///{tmp_path / 'audits.sqlite'}")
    at = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60).run()
    at.query_params["typed"] = "a wonderful film"
    for page in PAGES:
        shown = whole(at.switch_page(f"views/{page}.py").run())
        assert not at.exception and "This cannot be shown" not in shown, page


def test_twins_are_counted_beside_the_tuned_model(tiny_bundle: Path, corpus_folder: Path, tmp_path: Path) -> None:
    """Against the base model, and against each other, where they differ by their seeds alone."""
    config = tiny_config(
        model={role: str(tiny_bundle / "artifacts" / role) for role in ("base", "tuned")},
        tune={"steps": 2, "completion_tokens": 32},
        twins={"n": 3, "folder": str(tmp_path / "twins")},
        sae={**SAE, "trained_on": "base_finetuned"},
    )
    run = Run(config, tmp_path / "work", corpus_folder, silent)
    run_stages(run, ["saes"])
    found = [row for row in run.results(["saes"]) if row.report_row == "latent_scaling" and row.layer is None]
    assert [row.model for row in found] == ["tuned", "base", "twin", "twin_of_twin"]
    assert all(row.n and 0 <= row.value <= row.n for row in found)
    said = sentence("latent_scaling", found)
    assert "against the base model" in said and "against another twin" in said


def test_a_crosscoder_of_another_variant_is_refused() -> None:
    with pytest.raises(ConfigError, match='needs variant = "batchtopk"'):
        parse_config({"sae": {"trained_on": "crosscoder"}})


def test_a_pretrained_dictionary_that_training_would_replace_is_refused() -> None:
    with pytest.raises(ConfigError, match="drop that entry"):
        parse_config({"sae": {"trained_on": "shared", "pretrained": [{"layer": 0, "folder": "x"}]}})
