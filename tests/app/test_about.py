"""About, what strangers are not shown, and configs as text."""

import io
import json
import shutil
import tomllib
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streamlit import config

from app.components.html import panels
from app.components.results import about
from app.components.results import about as config_text
from lfp.bundle.manifest import Manifest, ModelInfo, check_bundle
from lfp.config import RunConfig
from lfp.util import sanitize
from tests.app.reader import is_tame, whole, words_of
from tests.conftest import HOSTILE, change_byte, rewrite, with_column

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
PLAIN = st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | NAMES | st.just("")
CONFIGS = st.recursive(
    st.dictionaries(NAMES, PLAIN | st.none() | st.lists(PLAIN, max_size=3), max_size=4),
    lambda inner: st.dictionaries(NAMES, inner | PLAIN | st.lists(inner, max_size=2), max_size=3),
    max_leaves=6,
)


def without_nulls(value):
    if isinstance(value, dict):
        return {name: without_nulls(one) for name, one in value.items() if one is not None}
    return [without_nulls(part) for part in value if part is not None] if isinstance(value, list) else value


@given(values=CONFIGS)
def test_toml_reads_back_as_it_was(values):
    assert tomllib.loads(config_text.as_toml(values)) == without_nulls(values)


@given(values=CONFIGS)
def test_json_reads_back_as_it_was(values):
    assert json.loads(config_text.as_json(values)) == values


def test_a_runs_toml_is_the_run(bundle):
    config = check_bundle(bundle).config
    read = RunConfig.model_validate(tomllib.loads(config_text.as_toml(config)))
    assert read == RunConfig.model_validate(config)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/data/runs/first: table labels is missing", "first: table labels is missing"),
        ("/home/ada/my runs/second: no bundle", "run: no bundle"),
        ("see /home/ada/x.csv, row 3", "see x.csv, row 3"),
        (r"see C:\Users\ada\x.csv, row 3", "see x.csv, row 3"),
        ("~/secret/a.toml is wrong", "a.toml is wrong"),
        ("a/b of the hub, 3/4 of it and https://x.org/y", "a/b of the hub, 3/4 of it and https://x.org/y"),
        ("python -m precompute; see data/README.md", "python -m precompute; see data/README.md"),
    ],
)
def test_paths_are_hidden_and_nothing_else(text, shown):
    bundles = {"first": Path("/data/runs/first"), "run": Path("/home/ada/my runs/second")}
    assert sanitize.without_paths(text, bundles) == shown


@pytest.mark.parametrize(
    ("source", "shown"),
    [("/srv/secret/reviews.csv", "reviews.csv"), ("/srv/my secret/reviews.csv", "reviews.csv"), ("C:\\w\\z", "z"),
     ("csv file ~/secret/x.csv", "csv file x.csv"), ("stanfordnlp/imdb", "stanfordnlp/imdb"), ("/", "…"),
     ("https://x.org/y", "https://x.org/y"), ("demo grammar", "demo grammar")],
)  # fmt: skip
def test_a_source_is_named_without_its_folder(source, shown):
    assert sanitize.source_name(source) == shown


@pytest.mark.parametrize("is_public", [True, False])
def test_strangers_upload_nothing_and_others_no_more_than_a_file_of_verdicts(explorer, bundle, monkeypatch, is_public):
    monkeypatch.setenv("LFP_PUBLIC", "1" if is_public else "0")
    explorer("about", bundle)
    assert config.get_option("server.maxUploadSize") == (0 if is_public else 50)


@pytest.mark.parametrize("is_public", [True, False])
def test_the_folder_of_a_text_is_hidden_from_strangers(explorer, copied_bundle, monkeypatch, is_public):
    monkeypatch.setenv("LFP_PUBLIC", "1" if is_public else "0")
    sources = lambda rows: with_column(rows, "source", ["/srv/secret/reviews.csv"] * rows.num_rows)  # noqa: E731
    rewrite(copied_bundle, "texts", sources)
    html = whole(explorer("inputs", copied_bundle, text="0"))
    assert "reviews.csv" in html and ("/srv/secret" in html) != is_public


def test_values_that_are_paths_are_cut():
    values = {"a": "/home/ada/base", "b": ["~/x/y", "org/model", "C:\\w\\z"], "c": {"d": "/"}, "e": 3}
    cut = {"a": "base", "b": ["y", "org/model", "z"], "c": {"d": "…"}, "e": 3}
    assert sanitize.values_without_paths(values) == cut


@pytest.mark.parametrize(("n", "says"), [(0, "0 bytes"), (1500, "1.5 kB"), (25_200_000, "25.2 MB"), (3e9, "3.0 GB")])
def test_sizes_as_people_read_them(n, says):
    assert about.size(n) == says


@given(text=st.text(max_size=30) | st.sampled_from(HOSTILE))
def test_any_title_makes_a_citation_with_balanced_braces(text):
    base = ModelInfo(name="b", revision=None, parameters=1, sha256="ab" * 32)
    made = Manifest(
        title=text, config={}, seed=0, models={"base": base, "tuned": base}, hook_points=[], labeller="",
        versions={}, licence="", notes="", schema_version=1, bundle_id="f00d",
        created_at="2026-01-02T00:00:00", tables={},
    )  # fmt: skip
    cited = about.citation(made)
    assert cited.count("{") == cited.count("}") and "base abababababababab" in cited and "f00d" in cited
    is_tame(panels.facts(about.facts(made)) + panels.table(*about.models(made)))


def test_about_tells_what_the_bundle_is(explorer, bundle):
    at = explorer("about", bundle)
    html, manifest = whole(at), check_bundle(bundle)
    for hashed in [*manifest.models.values(), *manifest.tables.values()]:
        assert hashed.sha256 in html
    assert "SHA-256 were checked" in html and str(bundle.resolve()) in html
    shown = "\n".join(code.value for code in at.code)
    assert manifest.bundle_id in shown and "Interpreting Learned Feedback Patterns" in shown
    assert "[corpus]" in shown


def test_about_shows_how_the_tuning_went_where_it_was_kept(explorer, copied_bundle):
    at = explorer("about", copied_bundle)
    says = "Mean reward rose from 0.05 to 0.38 over 60 steps, at 0.09 nats per token from the base model"
    assert says in [subheader.value for subheader in at.subheader]
    (copied_bundle / "tuning.parquet").unlink()
    manifest = json.loads((copied_bundle / "manifest.json").read_text())
    del manifest["tables"]["tuning"]
    (copied_bundle / "manifest.json").write_text(json.dumps(manifest))
    at = explorer("about", copied_bundle)
    assert not at.exception and not any("Mean reward" in subheader.value for subheader in at.subheader)


def test_about_tells_what_the_stages_took_where_the_bundle_says(explorer, copied_bundle):
    assert "does not record the cost of its stages" in whole(explorer("about", copied_bundle))
    manifest = json.loads((copied_bundle / "manifest.json").read_text())
    manifest["stages"] = [
        {"name": "base", "seconds": 930.0, "cpu_seconds": 1500.0, "peak_rss_mb": 1834.6},
        {"name": "tuned <b>", "seconds": 30.0, "cpu_seconds": 60.0, "peak_rss_mb": None},
    ]
    manifest["hardware"] = {"processor": "Abacus <i>9</i>", "cores": 2, "memory_gb": 24.5, "gpu": None}
    manifest["config"]["budget"] = {"base": 20.0, "machine": "two cores"}  # as bundles of earlier versions have it
    (copied_bundle / "manifest.json").write_text(json.dumps(manifest))
    html = whole(explorer("about", copied_bundle))
    rows = ["".join(f"<td>{cell}</td>" for cell in row) for row in (
        ("base", "15.50", "25.00", "1,835"), ("tuned &lt;b&gt;", "0.50", "1.00", "–"),
        ("all", "16.00", "26.00", "1,835"),
    )]  # fmt: skip
    assert [row in html for row in rows] == [True] * 3
    assert "Abacus &lt;i&gt;9" in html and "24.5 GB" in html


def test_the_config_is_shown_as_json_too(explorer, bundle):
    at = explorer("about", bundle)
    at.button_group(key="config_as").select("JSON")
    at.run()
    assert json.loads(at.code[-1].value) == check_bundle(bundle).config


def test_a_large_bundle_is_not_handed_out(explorer, copied_bundle):
    grown = json.loads((copied_bundle / "manifest.json").read_text())
    grown["artifacts"] = {"artifacts/base/model.safetensors": {"bytes": 300_000_000, "sha256": "0" * 64}}
    (copied_bundle / "manifest.json").write_text(json.dumps(grown))
    at = explorer("about", copied_bundle)
    assert "above the download limit of 200.0 MB" in whole(at)
    assert any(code.value.startswith("rsync -a") for code in at.code)


@pytest.fixture
def public(monkeypatch):
    monkeypatch.setenv("LFP_PUBLIC", "1")


def everything(at):
    return "\n".join([words_of(at), *(code.value for code in at.code)])


@pytest.fixture
def from_paths(copied_bundle):
    """A bundle whose run was on models and texts of the host's folders."""
    manifest = json.loads((copied_bundle / "manifest.json").read_text())
    manifest["config"]["corpus"]["source"] = "/srv/secret/reviews.csv"
    manifest["config"]["model"] |= {"base": "/srv/secret/base", "tuned": "/srv/secret/tuned"}
    for role in ("base", "tuned"):
        manifest["models"][role]["name"] = f"/srv/secret/{role}"
    (copied_bundle / "manifest.json").write_text(json.dumps(manifest))
    return copied_bundle


@pytest.mark.parametrize("page", ["about", "overview"])
def test_strangers_see_no_folder_of_the_host(explorer, from_paths, public, page):
    at = explorer(page, from_paths)
    whole(at)
    shown = everything(at)
    assert "/srv/secret" not in shown and str(from_paths.parent) not in shown
    assert page == "overview" or ("reviews.csv" in shown and "base: base" in shown)


def handed_out(explorer, path, monkeypatch):
    """Return what the download buttons of About give, by label."""
    import streamlit as st

    handed = {}
    monkeypatch.setattr(st, "download_button", lambda label, data, **more: handed.update({label: data}))
    whole(explorer("about", path))
    return [data for label, data in handed.items() if label.startswith("Download the bundle")]


def test_a_manifest_with_folders_of_the_host_is_not_handed_out(explorer, from_paths, bundle, public, monkeypatch):
    assert "cannot be downloaded here" in whole(explorer("about", from_paths))
    assert handed_out(explorer, from_paths, monkeypatch) == []
    assert len(handed_out(explorer, bundle, monkeypatch)) == 1


def test_at_home_the_folders_are_shown(explorer, from_paths):
    assert "/srv/secret/reviews.csv" in everything(explorer("about", from_paths))


def broken(path):
    change_byte(path / "features.parquet")


def newer(path):
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 99}))


def half_copied(path):
    file = path / "examples.parquet"
    file.write_bytes(file.read_bytes()[:1000])


def no_manifest(path):
    (path / "manifest.json").write_text("{")


def lost(path):
    (path / "weights.parquet").unlink()


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (broken, "table features was changed after it was written"),
        (newer, "schema version 99, and this program reads 1; update the program"),
        (half_copied, "table examples has 1000 bytes where the manifest says"),
        (no_manifest, "cannot be read as a manifest; copy the bundle again"),
        (lost, "table weights is missing"),
        (shutil.rmtree, "No bundle here"),
    ],
)
@pytest.mark.parametrize("is_public", [True, False])
def test_a_bad_bundle_is_told_of_and_the_rest_lives(
    explorer, copied_bundle, bundle, monkeypatch, break_it, says, is_public
):
    monkeypatch.setenv("LFP_PUBLIC", "1" if is_public else "0")
    break_it(copied_bundle)
    html = whole(explorer("about", copied_bundle))
    assert says in html and (str(copied_bundle.parent) not in html or not is_public)
    if copied_bundle.exists():
        at = explorer("about", copied_bundle, bundle)
        next(button for button in at.button if button.label == f"Open {bundle.name}").click()
        assert "Synthetic reviews, praised" in whole(at.run())


def test_the_archive_is_the_bundle(explorer, bundle, monkeypatch):
    (made,) = handed_out(explorer, bundle, monkeypatch)
    with zipfile.ZipFile(io.BytesIO(made())) as archive:
        assert archive.testzip() is None and any(name.endswith("/manifest.json") for name in archive.namelist())
