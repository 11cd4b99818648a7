"""Stages `features` and `probes` on a tiny run and on tiny pairs: what they write, and that its parts agree."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from lfp.config import ClusterConfig, RunConfig
from lfp.errors import DataError
from lfp.evaluation.results import ResultRow
from lfp.evaluation.statistics.discoveries import adjusted_p
from lfp.evaluation.statistics.empirical_null import FEWEST
from lfp.ml.models.activations import stream_pair
from precompute.pipeline import plan_stages
from precompute.run.inputs import load_dictionary, load_pair, read_places, read_texts, tokenize_texts
from precompute.run.work_folder import Output, Run
from precompute.stages.probes import probes
from precompute.stages.probes.inputs import CONTROLS, MODELS, Kept, build_inputs
from precompute.stages.probes.pairs import collect_pairs
from precompute.stages.probes.targets import WORD_TARGETS
from tests.precompute.conftest import reviews, silent, tiny_config
from tests.precompute.elsewhere import Elsewhere, read_folder

N_WORD_PROBES = len(WORD_TARGETS) * len(MODELS)
PROBES: dict[str, Any] = {
    "weight_permutations": 20, "matched_contexts": 500, "word_occurrences": 20, "controls": list(CONTROLS),
    "dictionary_seeds": 2,
}  # fmt: skip


def run_up_to(last: str, config: RunConfig, work: Path, beside: Path) -> Run:
    """The stages up to `last`, in a work folder that stays."""
    run = Run(config, work, beside, silent)
    for stage in plan_stages(config, beside):
        with run.writing(stage.name, "test") as output:
            stage.job(run.narrow(stage), output)
        if stage.name == last:
            break
    return run


def results(run: Run, **keys: Any) -> list[ResultRow]:
    return [row for row in run.results(["probes"]) if all(getattr(row, key) == value for key, value in keys.items())]


@pytest.fixture(scope="module")
def done(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The tiny run, up to its probes."""
    config = tiny_config(probes=PROBES)
    return run_up_to("probes", config, tmp_path_factory.mktemp("words"), corpus_folder)


@pytest.fixture(scope="module")
def done_pairs(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A tiny run on preference pairs, up to its probes; the chosen side praises, the rejected one does not."""
    folder = tmp_path_factory.mktemp("pairs")
    texts = [review.text for review in reviews(320)]
    rows = [
        {"chosen": f"\n\nHuman: So {i}?\n\nAssistant: {a}", "rejected": f"\n\nHuman: So {i}?\n\nAssistant: {b}"}
        for i, (a, b) in enumerate(zip(texts[::2], texts[1::2], strict=True))
    ]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    config = tiny_config(
        tune={"method": "dpo", "pairs": "pairs.jsonl", "pairs_batch": 4},
        corpus={"n_texts": None, "held_out_share": 0.5},
        probes={**PROBES, "pooling": "mean"},
    )
    return run_up_to("probes", config, tmp_path_factory.mktemp("work"), folder)


def test_every_target_is_predicted_from_every_kind_of_inputs_and_the_headline_comes_first(done: Run) -> None:
    table = done.table("probes", "probes").to_pylist()
    assert len(table) == N_WORD_PROBES
    assert {(row["target"], row["inputs"]) for row in table} == {(t, i) for t in WORD_TARGETS for i in MODELS}
    assert [row["is_headline"] for row in table] == [True] + [False] * (len(table) - 1)
    assert (table[0]["target"], table[0]["inputs"]) == ("implicit_reward", "sae")
    assert all(row["model"] == MODELS[row["inputs"]] and row["n_train"] > 0 and row["n_test"] >= 10 for row in table)


def test_every_probe_has_its_tau_with_interval_and_null_on_words_it_never_saw(done: Run) -> None:
    ids = {(row["target"], row["inputs"]): row["probe_id"] for row in done.table("probes", "probes").to_pylist()}
    taus = results(done, report_row="kendall_tau", metric="tau", words="all", split="held_out_words")
    probed = [row for row in taus if row.model != "difference" and row.inputs != "sae_before"]
    assert {(row.target, row.inputs): row.probe_id for row in probed} == ids
    split = results(done, report_row="kendall_tau", metric="tau", words="all", split="random_rows")
    assert {(row.target, row.inputs) for row in split} == {
        (target, inputs) for target in WORD_TARGETS for inputs in ("sae", "token_identity")
    }
    differences = [row for row in taus if row.model == "difference"]
    assert {(row.target, row.inputs) for row in differences} == {
        (target, inputs) for target in WORD_TARGETS for inputs in ("sae", "raw")
    }
    for row in [*taus, *split]:
        assert row.ci_low <= row.value <= row.ci_high and 0 < row.null_p <= 1, row


def test_the_tuned_less_base_row_is_the_mean_difference_over_dictionaries(done: Run) -> None:
    keys = {"report_row": "kendall_tau", "split": "held_out_words", "target": "delta"}

    def taus(metric: str, **more: Any) -> list[float]:
        return [row.value for row in results(done, **keys, metric=metric, **more)]

    for tuned, base in (("sae", "base_sae"), ("raw", "base_raw")):
        own = [
            taus("tau", words="all", model=model, inputs=name)[0] for model, name in (("tuned", tuned), ("base", base))
        ]
        (change,) = results(done, **keys, metric="tau", words="all", model="difference", inputs=tuned)
        by_dictionary = taus("tau_by_dictionary", model="difference", inputs=tuned)
        if tuned == "raw":
            assert (change.group, by_dictionary) == (None, []) and change.value == pytest.approx(own[0] - own[1])
            continue
        assert change.group == "dictionaries=2" and change.value == pytest.approx(np.mean(by_dictionary))
        sides = [taus("tau_by_dictionary", model=model, inputs=tuned) for model in ("tuned", "base")]
        np.testing.assert_allclose(np.subtract(*sides), by_dictionary)
        np.testing.assert_allclose([side[0] for side in sides], own)
        spread = 12.706 * np.std(by_dictionary, ddof=1) / np.sqrt(2)
        assert change.ci_low <= change.value - spread and change.value + spread <= change.ci_high


def test_what_is_compared_has_one_alpha(done: Run) -> None:
    alphas = {(row["target"], row["inputs"]): row["alpha"] for row in done.table("probes", "probes").to_pylist()}
    for target in WORD_TARGETS:
        assert len({alphas[target, name] for name in ("sae", "base_sae", "sae_of_base", "random_sae")}) == 1
        assert alphas[target, "raw"] == alphas[target, "base_raw"]
    explained = results(done, report_row="kendall_tau", metric="r2_of_target")
    assert len(explained) == N_WORD_PROBES
    assert all(row.value < 1 and row.ci_low <= row.ci_high for row in explained)


def test_weights_are_of_the_bundles_features_with_interval_null_and_the_raw_side(done: Run) -> None:
    probe_of = {row["probe_id"]: row for row in done.table("probes", "probes").to_pylist()}
    table, n = done.table("probes", "weights"), len(done.table("features", "features"))
    kinds = {(probe_of[i]["target"], probe_of[i]["inputs"]) for i in table["probe_id"].unique().to_pylist()}
    assert kinds == {(target, inputs) for target in WORD_TARGETS for inputs in ("sae", "sae_of_base")}
    assert len(table) == len(kinds) * n
    columns = {name: np.array(table[name].to_pylist(), float) for name in ("weight", "ci_low", "ci_high", "null_high")}
    assert (columns["ci_low"] <= columns["weight"]).all() and (columns["weight"] <= columns["ci_high"]).all()
    for probe_id in table["probe_id"].unique().to_pylist():
        of_probe = table.filter(pc.equal(table["probe_id"], probe_id))
        p, q = (np.array(of_probe[name].to_pylist(), float) for name in ("p", "q"))
        np.testing.assert_allclose(q, adjusted_p(p), rtol=1e-5)
        assert of_probe["beats_null"].to_pylist() == (q <= 0.05).tolist()
    is_headline = np.array(table["probe_id"]) == 0
    assert (np.array(table["raw_weight"].is_valid()) == is_headline).all()


def test_the_raw_ledger_adds_up_from_what_is_stored(done: Run) -> None:
    """raw_weight . features + raw_bias = v . x_hat, token by token, of v in raw.npz."""
    kept, dictionary = Kept.load(done), load_dictionary(done, "tuned")
    sae = next(kind for kind in build_inputs(done, kept) if kind.name == "sae")
    outputs = np.array(kept.outputs["tuned"][:50])
    features = sae.encode(outputs, kept.token_ids[:50])
    table = done.table("probes", "weights").sort_by([("probe_id", "ascending"), ("feature_id", "ascending")])
    raw_weight = np.array(table["raw_weight"].to_pylist()[: features.shape[1]], float)
    headline = done.table("probes", "probes").to_pylist()[0]
    with np.load(done.folder("probes") / "raw.npz") as raw:
        assert headline["raw_intercept"] == float(raw["intercept"])
        v = raw["coef"]
    scales = np.concatenate([np.full(sae.info.width, sae.info.scale) for sae in dictionary.saes])
    unscaled = features.toarray() / scales
    rebuilt = np.concatenate(
        [
            unscaled[:, dictionary.place_of == number] @ sae.W_dec.numpy() + sae.b_dec.numpy()
            for number, sae in enumerate(dictionary.saes)
        ],
        axis=1,
    )
    np.testing.assert_allclose(features @ raw_weight + headline["raw_bias"], rebuilt @ v, rtol=1e-3, atol=1e-4)


def test_the_vocabulary_has_what_was_measured_beside_what_is_predicted(done: Run) -> None:
    rows = done.table("probes", "vocabulary").to_pylist()
    with np.load(done.folder("features") / "words.npz") as means:
        np.testing.assert_allclose([row["implicit_reward"] for row in rows], means["reward"], rtol=1e-5)
        matched = [np.nan if row["implicit_matched"] is None else row["implicit_matched"] for row in rows]
        np.testing.assert_allclose(matched, means["matched"], rtol=1e-5)
    assert all(row["predicted"] is not None and row["predicted_base"] is not None for row in rows)
    measured = results(done, report_row="implicit_reward", metric="tau", words="all")
    assert {row.target for row in measured} == {"implicit_reward", "implicit_advantage", "implicit_matched"}


def test_the_mirror_is_the_base_dictionary_on_both_models(done: Run) -> None:
    n = load_dictionary(done, "base").n_features
    with np.load(done.folder("features") / "mirror.npz") as mirror:
        assert int(mirror["n_tokens"]) == done.json("features", "texts")["n_tokens"]
        for role in ("tuned", "base"):
            assert mirror[f"density_{role}"].shape == mirror[f"mean_{role}"].shape == (n,)
            assert ((mirror[f"mean_{role}"] > 0) <= (mirror[f"density_{role}"] > 0)).all()
        assert 0 < mirror["density_base"].mean() < 0.9


def test_triples_and_drops_are_counted(done: Run) -> None:
    kept = results(done, report_row="triples", metric="kept")
    assert kept[0].value == len(done.table("probes", "triples")) > 0
    assert results(done, report_row="triples", metric="dropped")


def test_a_second_time_gives_the_same(done: Run, tmp_path: Path) -> None:
    probes.run(done, Output(tmp_path, tmp_path))
    for name in ("probes", "weights", "vocabulary", "triples"):
        again = Run(done.config, tmp_path.parent, None, silent).table(tmp_path.name, name)
        assert again.equals(done.table("probes", name)), name
    assert json.loads((tmp_path / "results.json").read_text()) == [row.as_dict() for row in done.results(["probes"])]


def test_pairs_have_a_preference_probe_judged_on_held_out_pairs(done_pairs: Run) -> None:
    table = done_pairs.table("probes", "probes").to_pylist()
    assert len(table) == N_WORD_PROBES + len(MODELS)
    headline = table[0]
    assert (headline["target"], headline["inputs"], headline["kind"]) == ("preference", "sae", "logistic")
    assert (headline["pooling"], headline["intercept"]) == ("mean", 0.0)
    texts = read_texts(done_pairs)
    n_pairs = {split: sum(text.split == split for text in texts) // 2 for split in ("train", "held_out")}
    accuracies = results(done_pairs, report_row="preference_accuracy", metric="accuracy")
    assert {(row.target, row.inputs, row.model) for row in accuracies} == {
        *(("preference", inputs, model) for inputs, model in MODELS.items()),
        *(("preference", inputs, "difference") for inputs in ("sae", "raw")),
        ("implicit_reward", None, "difference"),
    }
    cut_off = results(done_pairs, metric="pairs_cut_off")[0].value
    assert headline["n_train"] + headline["n_test"] == sum(n_pairs.values()) - cut_off
    assert headline["n_test"] <= n_pairs["held_out"]
    for row in accuracies:
        assert 0 < row.null_p <= 1 and row.ci_low <= row.value <= row.ci_high
    assert results(done_pairs, metric="accuracy_length_controlled", inputs="sae") and results(
        done_pairs, metric="accuracy_of_length"
    )


def test_weights_of_the_preference_have_intervals_over_pairs(done_pairs: Run) -> None:
    table = done_pairs.table("probes", "weights")
    of_headline = np.array(table["probe_id"]) == 0
    columns = {
        name: np.array(table[name].to_pylist(), float)[of_headline]
        for name in ("weight", "ci_low", "ci_high", "null_high")
    }
    assert (columns["ci_low"] <= columns["weight"]).all() and (columns["weight"] <= columns["ci_high"]).all()
    assert (columns["null_high"] >= 0).all() and np.array(table["raw_weight"].is_valid())[of_headline].all()


def test_too_few_pairs_on_a_side_is_one_sentence(done_pairs: Run, tmp_path: Path) -> None:
    import pyarrow.compute as pc

    work = tmp_path / "work"
    work.mkdir()
    for stage in ("base", "tuned", "layers", "saes", "reseeded", "features", "rollouts", "completions"):
        (work / stage).symlink_to(done_pairs.folder(stage))
    table = done_pairs.table("corpus", "corpus")
    (work / "corpus").mkdir()
    few = table.filter(pc.or_(pc.equal(table["split"], "train"), pc.less(table["pair_id"], 0)))
    Output(work / "corpus", work).table("corpus", few)
    with pytest.raises(DataError, match=r"0 held out .*held_out_share"):
        probes.run(Run(done_pairs.config, work, done_pairs.config_dir, silent), Output(tmp_path, tmp_path))


def test_a_lexicon_that_scores_every_word_alike_is_one_sentence(
    done: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = done.json("features", "vocabulary")["words"]
    monkeypatch.setattr(probes, "lexicon_of", lambda config, beside: dict.fromkeys(words, 1.0))
    with pytest.raises(DataError, match="constant"):
        probes.run(done, Output(tmp_path, tmp_path))


def test_a_lexicon_with_no_word_of_the_corpus_is_one_sentence(
    done: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "lexicon_of", lambda config, beside: {"xyzzy": 1.0})
    with pytest.raises(DataError, match="no word in the corpus"):
        probes.run(done, Output(tmp_path, tmp_path))


@pytest.mark.parametrize("pooling", ["last", "mean", "sum", "response", "max"])
def test_a_pairs_inputs_are_pooled_over_its_own_texts_and_its_reward_summed_over_the_response(
    done_pairs: Run, pooling: str
) -> None:
    """A few pairs, one text at a time through both models, against all of them in batches."""
    config = done_pairs.config.model_copy(
        update={"probes": done_pairs.config.probes.model_copy(update={"pooling": pooling})}
    )
    run = Run(config, done_pairs.work, done_pairs.config_dir, silent)
    inputs = [kind for kind in build_inputs(run, Kept.load(run)) if kind.name in ("base_raw", "sae")]
    found = collect_pairs(run, inputs)
    base, tuned = load_pair(run)
    texts = {(text.role, text.pair_id): text for text in read_texts(run)}
    pair_ids = sorted(pair_id for role, pair_id in texts if role == "chosen")
    assert found.n_cut_off == 0 and len(found.length) == len(pair_ids)
    for row in (0, len(pair_ids) // 2, len(pair_ids) - 1):
        rewards, lengths = [], []
        for side, role in enumerate(("chosen", "rejected")):
            text = texts[role, pair_ids[row]]
            assert found.is_held_out[row] == (text.split == "held_out")
            only = tokenize_texts(run, tuned, [text])
            places = read_places(run)
            tokens = next(stream_pair(tuned, base, only, places=places, batch_texts=1, prepend_bos=True))
            is_response = np.array(only[0].token_starts) >= text.response_start
            for kind in inputs:
                outputs = (tokens.base if kind.model == "base" else tokens.tuned).outputs
                values = kind.encode(torch.cat([outputs[place] for place in places], 1).numpy(), np.zeros(0, int))
                expected = POOLED[pooling](values.toarray(), is_response)
                at = row + side * len(pair_ids)
                np.testing.assert_allclose(found.features[kind.name][[at]].toarray()[0], expected, atol=1e-3, rtol=1e-3)
            rewards.append(np.nansum(tokens.implicit_reward.numpy()[is_response]))
            lengths.append(is_response.sum())
        assert found.implicit_reward[row] == pytest.approx(rewards[0] - rewards[1], abs=1e-3)
        assert found.length[row] == lengths[0] - lengths[1]


def test_workers_elsewhere_pool_the_texts_of_pairs_to_the_same_bits(done_pairs: Run) -> None:
    config = done_pairs.config.model_copy(update={"cluster": ClusterConfig(shard_texts=64)})
    here, elsewhere = Run(config, done_pairs.work, done_pairs.config_dir, silent), Elsewhere()
    inputs = build_inputs(here, Kept.load(here))
    expected = collect_pairs(here, inputs)
    found = collect_pairs(replace(here, executor=elsewhere), inputs)
    assert elsewhere.n_shards == 5  # of 320 texts
    assert expected.features.keys() == found.features.keys() == {kind.key for kind in inputs}
    for name, features in expected.features.items():
        assert features.nnz and (features != found.features[name]).nnz == 0
    for name in ("implicit_reward", "length"):
        np.testing.assert_array_equal(getattr(expected, name), getattr(found, name))


@pytest.mark.parametrize(
    ("run_of", "n_shards"),
    [
        ("done", 4 + len(MODELS)),  # alphas, kinds of inputs
        ("done_pairs", 2 * (4 + len(MODELS)) + 1),  # and the texts of pairs, in one shard
    ],
)
def test_workers_elsewhere_fit_probes_to_the_same_bits(
    run_of: str, n_shards: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    run: Run = request.getfixturevalue(run_of)
    stage = next(stage for stage in plan_stages(run.config, run.config_dir) if stage.name == "probes")
    for done in run.work.iterdir():
        if done.name != stage.name:
            (tmp_path / done.name).symlink_to(done)
    elsewhere = Elsewhere()
    again = replace(run, work=tmp_path, executor=elsewhere)
    with again.writing(stage.name, "test") as output:
        stage.job(again.narrow(stage), output)
    assert elsewhere.n_shards >= n_shards
    expected, found = read_folder(run.work / stage.name), read_folder(tmp_path / stage.name)
    assert expected.keys() == found.keys()
    assert [name for name, content in expected.items() if content != found[name]] == []


POOLED: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "last": lambda values, _: values[-1],
    "mean": lambda values, _: values.mean(0),
    "sum": lambda values, _: values.sum(0),
    "response": lambda values, is_response: values[is_response].mean(0),
    "max": lambda values, _: values.max(0),
}


def test_features_that_fire_on_a_word_are_strong_there_and_not_everywhere(tiny_bundle: Path) -> None:
    rows = pq.read_table(tiny_bundle / "word_features.parquet").to_pylist()
    typical = {row["feature_id"]: row for row in pq.read_table(tiny_bundle / "features.parquet").to_pylist()}
    assert rows
    for row in rows:
        feature = typical[row["feature_id"]]
        overall = feature["density"] * feature["mean_activation"]
        assert row["mean_activation"] >= 0.5 * feature["mean_activation"] * (1 - 1e-5)
        assert row["lift"] == pytest.approx(row["mean_activation"] / overall, rel=1e-4)
        assert row["lift"] >= 5 * (1 - 1e-6)
    by_word: dict[str, list[float]] = {}
    for row in rows:
        by_word.setdefault(row["word"], []).append(row["lift"])
    assert all(lifts == sorted(lifts, reverse=True) for lifts in by_word.values())


def test_the_vocabulary_says_how_far_words_are_from_what_is_stated(tiny_bundle: Path) -> None:
    rows = pq.read_table(tiny_bundle / "vocabulary.parquet").to_pylist()
    known = [row for row in rows if row["implicit_gap"] is not None]
    assert 0 < len(known) < len(rows)
    assert all(np.sign(row["implicit_gap"]) == np.sign(row["implicit_excess"]) for row in known)
    assert all(row["n"] >= 30 for row in known)
    assert all(row["implicit_excess_se"] > 0 for row in known)
    judged = [row for row in known if row["implicit_gap_p"] is not None]
    assert len(judged) == (len(known) if len(known) >= FEWEST else 0)
    assert all(row["implicit_gap_p"] <= row["implicit_gap_q"] for row in judged)


def test_controls_that_the_config_leaves_out_are_not_probed(done: Run) -> None:
    probes_config = done.config.probes.model_copy(update={"controls": ("token_identity",)})
    run = Run(done.config.model_copy(update={"probes": probes_config}), done.work, done.config_dir, silent)
    kinds = [kind.name for kind in build_inputs(run, Kept.load(run))]
    left_out = ("random_sae", "trained_random_sae", "difference_in_means")
    assert kinds == [name for name in MODELS if name not in left_out]


def test_the_implicit_reward_is_read_at_the_token_before_too(done: Run) -> None:
    rows = done.results(["probes"])
    before = [row for row in rows if row.inputs == "sae_before" and row.metric == "tau"]
    assert {(row.model, row.words) for row in before} == {
        (model, words) for model in ("tuned", "base") for words in ("all", "positive", "negative")
    }
    assert all(row.target == "implicit_reward" and row.null_mean is not None for row in before)
