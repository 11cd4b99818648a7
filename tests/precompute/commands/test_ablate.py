"""Ablations of the tiny run and from its bundle alone: what is kept, what is replaced, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lfp.bundle.manifest import check_bundle, read_manifest
from lfp.bundle.queries.run import figures, report_ablations
from lfp.bundle.store.connection import Store
from lfp.bundle.validation import validate
from lfp.bundle.writer import update_bundle
from lfp.errors import BundleError, ConfigError, CorpusError, ModelError
from lfp.evaluation.results import MAIN_KINDS
from lfp.ml.interventions.bundle_models import Live
from precompute.commands import ablate as module
from precompute.commands.ablate import ablate
from tests.precompute.test_cli import call

QUICK = ("ablation.completions=6", "ablation.controls=2", "ablation.features=2")


def table(bundle: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(bundle / f"{name}.parquet").to_pylist()


def hashes(bundle: Path) -> dict[str, str]:
    return {name: info.sha256 for name, info in read_manifest(bundle).tables.items()}


def run(bundle: Path, *overrides: str, **keys: Any) -> list[dict[str, Any]]:
    return ablate(bundle, overrides=[*QUICK, *overrides], **keys)


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


def test_the_stage_measures_every_group_on_the_same_prefixes(tiny_bundle: Path) -> None:
    rows, completions = table(tiny_bundle, "ablations"), table(tiny_bundle, "completions")
    main = [row for row in rows if row["kind"] in MAIN_KINDS]
    assert "weighted" in {row["group"] for row in main}
    assert len({row["reward_before"] for row in rows}) == 1 and {row["n_completions"] for row in rows} == {12}
    for row in main:
        controls = [control for control in rows if control["control_of"] == row["group"]]
        assert len(controls) == 3 and row["null_high"] is not None
        assert all(len(control["features"]) == len(row["features"]) for control in controls)
        written = [each for each in completions if each["group"] == row["group"]]
        assert sum(each["reward"] for each in written) / 12 == pytest.approx(row["reward_after"])
    by_group: dict[str, list[str]] = {}
    for each in completions:
        if each["model"] == "ablated" or each["group"] == "unablated":
            by_group.setdefault(each["group"], []).append(each["prompt"])
            assert each["perplexity"] > 1
    assert set(by_group) == {"unablated", *(row["group"] for row in main)}
    assert len({tuple(prompts) for prompts in by_group.values()}) == 1
    assert sum(row["kind"] == "feature" for row in rows) == 5


def test_prefixes_are_held_out_texts_and_other_draws_than_before(tiny_bundle: Path) -> None:
    held_out = {row["text"] for row in table(tiny_bundle, "texts") if row["split"] == "held_out"}
    completions = table(tiny_bundle, "completions")
    prompts = [each["prompt"] for each in completions if each["group"] == "unablated"]
    assert sum(any(text.startswith(prompt) for text in held_out) for prompt in prompts) > 0
    before = [each["completion"] for each in completions if each["group"] == "tuned"]
    assert before != [each["completion"] for each in completions if each["group"] == "unablated"]


def test_the_report_of_the_run_tells_of_it(tiny_bundle: Path) -> None:
    with Store.open(tiny_bundle) as store:
        metrics = {row.metric for row in figures(store, "ablation")}
        assert len(report_ablations(store)) == len(table(tiny_bundle, "ablations"))
    assert metrics >= {"predicted_measured", "inert_count", "inert_share"}


def test_from_the_bundle_alone_all_groups_are_measured_again_with_equal_results(copy: Path) -> None:
    before = hashes(copy)
    run(copy)
    once = hashes(copy)
    assert validate(copy) == [] and check_bundle(copy)
    assert {name for name in once if once[name] != before[name]} == {"ablations", "completions", "results"}
    assert {row["n_completions"] for row in table(copy, "ablations")} == {6}
    groups = [row["group"] for row in table(copy, "completions")]
    assert groups.count("unablated") == 6 and groups.count("tuned") == 12
    run(copy)
    assert hashes(copy) == once


def test_chosen_features_stand_beside_what_is_there_and_replace_their_own(copy: Path) -> None:
    before, results = table(copy, "ablations"), table(copy, "results")
    run(copy, features=[3, 1, 1])
    run(copy, "ablation.completions=5", features=[1, 3])
    rows = table(copy, "ablations")
    own = [row for row in rows if "chosen:1,3" in (row["group"], row["control_of"])]
    assert [row for row in rows if row not in own] == before and table(copy, "results") == results
    assert [row["kind"] for row in own] == ["chosen", "control", "control"]
    assert {row["n_completions"] for row in own} == {5} and own[0]["features"] == [1, 3]
    groups = [row["group"] for row in table(copy, "completions")]
    assert groups.count("chosen:1,3") == groups.count("chosen:1,3/unablated") == 5 and groups.count("unablated") == 12
    assert validate(copy) == []


def test_scaling_by_one_changes_nothing_and_up_has_a_name_of_its_own(copy: Path) -> None:
    features = table(copy, "features")
    busiest = max(features, key=lambda row: row["density"] * row["mean_activation"] * row["decoder_norm"])["feature_id"]
    run(copy, "ablation.scale=1", features=[busiest])
    run(copy, "ablation.scale=40", features=[busiest])
    by_name = {row["group"]: row for row in table(copy, "ablations")}
    still, up = by_name[f"chosen:{busiest}@1"], by_name[f"chosen:{busiest}@40"]
    assert (still["effect"], still["ci_low"], still["ci_high"], still["predicted_effect"]) == (0, 0, 0, 0)
    assert still["perplexity"] == still["perplexity_before"] == up["perplexity_before"]
    assert up["scale"] == 40.0 and up["perplexity"] != still["perplexity"]


def test_pairs_are_scored_by_the_implicit_reward(copy: Path) -> None:
    """Of the same pair of models, whose completions' log-likelihoods say the same of perplexity."""
    run(copy, "tune.method=dpo", "tune.pairs=pairs.jsonl", features=[2])
    rewards = {row["reward"] for row in table(copy, "completions") if row["group"] == "chosen:2/unablated"}
    assert len(rewards) == 6 and 0.0 not in rewards


def test_without_held_out_texts_all_serve_and_it_is_said(copy: Path) -> None:
    update_bundle(copy, {"texts": [row | {"split": "train"} for row in table(copy, "texts")]})
    with pytest.warns(UserWarning, match="no text is held out"):
        made = run(copy, features=[2])
    assert [row["features"] for row in made if row["kind"] == "chosen"] == [[2]]
    texts = [row["text"] for row in table(copy, "texts")]
    prompts = [row["prompt"] for row in table(copy, "completions") if row["group"] == "unablated"]
    assert prompts and all(any(text.startswith(prompt) for text in texts) for prompt in prompts)


def test_texts_too_short_for_a_prefix_are_one_sentence(copy: Path) -> None:
    update_bundle(copy, {"texts": [row | {"token_ids": row["token_ids"][:9]} for row in table(copy, "texts")]})
    before = hashes(copy)
    with pytest.raises(CorpusError, match=r"no held-out text has the 10 tokens.*ablation\.prefix_tokens"):
        run(copy, "ablation.prefix_tokens=10")
    assert hashes(copy) == before


def test_killed_before_its_end_it_leaves_the_bundle_as_it_was(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = hashes(copy)

    def killed(what: str, done: int, total: int, value: float) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(copy, progress=killed)
    monkeypatch.setattr(module, "_tables_with", lambda *_: {"ablations": [{"group": "half"}]})
    with pytest.raises(Exception, match="ablations"):
        run(copy, features=[2])
    assert hashes(copy) == before and validate(copy) == []
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--features", "2,99999"), "no feature 99999; name ids from 0 to"),
        (("--features", "2,-1,x"), '"-1", "x"'),
        (("--features", ""), '""'),
        (("--set", "ablation.completions=0"), "--completions"),
        (("--set", "ablation.scale=-1"), "ablation.scale"),
    ],
)
def test_wrong_arguments_are_one_sentence_with_exit_code_2(
    arguments: tuple[str, ...], named: str, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call("ablate", str(tiny_bundle), *arguments, capsys=capsys)
    assert (code, out) == (2, "") and named in err and err.startswith("error: ") and err.count("\n") == 1


def test_a_bundle_without_models_is_one_sentence_with_the_fix(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = read_manifest(copy)
    text = (copy / "manifest.json").read_text(encoding="utf-8")
    (copy / "manifest.json").write_text(text.replace("artifacts/tuned/", "artifacts/other/"), encoding="utf-8")
    code, _, err = call("ablate", str(copy), capsys=capsys)
    assert code == 1 and "artifacts=true" in err and err.count("\n") == 1 and manifest.artifacts


def test_the_command_prints_the_row_and_a_last_line(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [part for key in QUICK for part in ("--set", key)]
    arguments = (*overrides, "--completions", "4", "--scale", "2", "--features", "0,2")
    code, out, err = call("ablate", str(copy), *arguments, capsys=capsys)
    assert code == 0 and "ablations  3/3" in err
    assert "chosen:0,2@2" in out and out.splitlines()[-1].startswith(f"{copy}: 3 groups measured in ")
    code, out, _ = call("ablate", "--help", capsys=capsys)
    assert code == 0 and "Example: python -m precompute ablate" in out.replace("\n", " ")


HOSTILE = """
from pathlib import Path
Path("written").touch()
def score(texts): return [0.0] * len(texts)
"""


@pytest.fixture
def hostile(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle that carries code and names it as its reward, in the folder that a user works in."""
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "reviews"))
    (copy / "artifacts" / "hostile_reward.py").write_text(HOSTILE, encoding="utf-8")
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    manifest["config"]["feedback"] = {"reward": "reviews.artifacts.hostile_reward:score"}
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return copy


@pytest.mark.parametrize("flags", [(), ("--trust-reward", "reviews.artifacts"), ("--trust-reward", "subprocess")])
def test_code_that_a_manifest_names_is_not_run(
    flags: tuple[str, ...], hostile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = hashes(hostile)
    code, out, err = call("ablate", str(hostile), "--completions", "4", *flags, capsys=capsys)
    assert (code, out, err.count("\n")) == (2, "", 1) and "reviews.artifacts.hostile_reward:score" in err
    assert err.rstrip().endswith("add --trust-reward reviews.artifacts.hostile_reward")
    assert not Path("written").exists() and "reviews.artifacts.hostile_reward" not in sys.modules
    assert hashes(hostile) == before


def test_a_function_of_an_installed_module_is_not_run_either(hostile: Path) -> None:
    text = (hostile / "manifest.json").read_text(encoding="utf-8")
    text = text.replace("reviews.artifacts.hostile_reward:score", "subprocess:getoutput")
    (hostile / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="--trust-reward subprocess"):
        run(hostile)


def test_the_reward_of_a_manifest_runs_where_its_module_is_trusted(hostile: Path) -> None:
    rows = run(hostile, features=[2], trust_reward="reviews.artifacts.hostile_reward")
    assert {row["reward_after"] for row in rows} == {0.0} and Path("written").exists()
    for name in ("reviews.artifacts.hostile_reward", "reviews.artifacts", "reviews"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("command", [("validate",), ("report",), ("label", "--labeller", "offline-tokens")])
def test_no_other_command_runs_code_that_a_manifest_names(
    command: tuple[str, ...], hostile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(command[0], str(hostile), *command[1:], capsys=capsys)
    assert not Path("written").exists() and "reviews.artifacts.hostile_reward" not in sys.modules


def change_manifest(bundle: Path, **sections: dict[str, Any]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    for name, values in sections.items():
        held = manifest if name == "models" else manifest["config"]
        held[name] = {**held[name], **values}
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


@pytest.mark.parametrize(
    ("feedback", "key"),
    [
        ({"reward": "lexicon", "lexicon": "/etc/words.csv"}, "lexicon"),
        ({"reward": "classifier", "classifier": "s3://bucket/model"}, "classifier"),
    ],
)
def test_a_file_or_address_that_a_manifest_names_is_not_read(copy: Path, feedback: dict[str, str], key: str) -> None:
    change_manifest(copy, feedback=feedback)
    with pytest.raises(ConfigError, match=f"add --set feedback.{key}={feedback[key]}") as refused:
        run(copy, features=[2])
    assert "\n" not in str(refused.value)


def test_a_lexicon_that_the_user_names_as_well_is_read(copy: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.csv"
    words.write_text("word,value\ngood,1\nbad,-1\n", encoding="utf-8")
    change_manifest(copy, feedback={"reward": "lexicon", "lexicon": str(words)})
    assert run(copy, f"feedback.lexicon={words}", features=[2])


@pytest.mark.parametrize("spoilt", ["zeroed", "added", "linked"])
def test_models_that_are_not_as_written_are_not_run(copy: Path, tmp_path: Path, spoilt: str) -> None:
    weights = copy / "artifacts" / "tuned" / "model.safetensors"
    if spoilt == "zeroed":
        content = weights.read_bytes()
        weights.write_bytes(content[:-2000] + bytes(2000))
    elif spoilt == "added":
        (copy / "artifacts" / "tuned" / "chat_template.jinja").write_text("{{ 1 }}", encoding="utf-8")
    else:
        weights.rename(tmp_path / "weights")
        weights.symlink_to(tmp_path / "weights")
    with pytest.raises(BundleError, match=r"artifact artifacts/tuned/[a-z_.]+ (was changed|is not in|lies outside)"):
        run(copy, features=[2])
    with pytest.raises(BundleError, match="artifact artifacts/tuned/"):
        Live.load(copy, read_manifest(copy))


def test_a_model_file_that_only_a_manifest_names_is_looked_for_in_the_data_folder(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base.gguf").write_bytes(b"GGUF")
    base = read_manifest(copy).models["base"].model_dump()
    change_manifest(copy, model={"base": str(tmp_path / "base.gguf")}, models={"base": {**base, "by_name": True}})
    with pytest.raises(BundleError, match=r"its base model is .*base\.gguf, which lies outside the bundle"):
        Live.load(copy, read_manifest(copy))
    monkeypatch.setenv("LFP_DATA", str(tmp_path))
    with pytest.raises(ModelError, match=r"base\.gguf"):  # found there, and no model
        Live.load(copy, read_manifest(copy))
