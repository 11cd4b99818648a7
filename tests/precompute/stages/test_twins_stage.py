"""Stage `twins`: tuned once per base, feedback and settings, kept for other runs, and loaded one at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lfp.errors import ConfigError
from lfp.evaluation.results import STATUSES
from lfp.evaluation.statistics.twins import TwinTest
from lfp.evaluation.twin_words import TwinWords
from lfp.ml.models.activations import stream_pair
from lfp.ml.models.loading import LanguageModel
from lfp.ml.sae.autoencoders import Dictionary
from precompute.pipeline import plan_stages, run_stages
from precompute.run.inputs import load_pair
from precompute.run.work_folder import Run
from precompute.stages.features.corpus_pass import build_corpus
from precompute.stages.findings import feature_credits, twin_words
from precompute.stages.models import twins
from precompute.stages.models.tuning import tune_base
from precompute.stages.models.twins import draw_seeds, find_kept, load_compared, load_twins
from tests.lfp.builders import tiny_sae
from tests.precompute.conftest import silent, tiny_config

_TUNE = {"steps": 2, "completion_tokens": 32}  # enough that a word of the lexicon is among them


@pytest.fixture(scope="module")
def run(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with corpus, base and three twins."""
    config = tiny_config(twins={"n": 3}, tune=_TUNE)
    made = Run(config, tmp_path_factory.mktemp("run") / ".bundle.run", corpus_folder, silent)
    run_stages(made, ["twins"])
    return made


def test_twins_differ_from_each_other_and_from_the_base(run):
    loaded = list(load_twins(run))
    assert len({twin.sha256 for twin in loaded}) == len(loaded) == 3
    assert run.json("twins", "twins") == [10_001, 10_002, 10_003]


def test_the_words_difference_is_split_to_its_sum(run, tmp_path):
    run_stages(run, ["twin_words"])
    table = run.made("twins")
    assert table.num_rows > 10
    assert run.results(["twin_words"])[0].value == 3
    base, tuned = load_pair(run)
    corpus = build_corpus(run, tuned, with_lexicon=False)
    word = int(corpus.tokens.words[corpus.tokens.words >= 0][0])
    q = np.where(np.arange(len(corpus.vocabulary.words)) == word, 0.01, 1.0)
    found = TwinWords(q, q[None], TwinTest(q, q, q, q, q, 1.0), [])
    parts = twin_words._split(run, base, tuned, found, corpus=corpus)[word]
    excerpts = twin_words._find_excerpts([word], corpus)

    def mean_reward(model: LanguageModel) -> float:
        batches = stream_pair(model, base, excerpts.texts, places=[], batch_texts=8, prepend_bos=True)
        reward = torch.cat([tokens.implicit_reward for tokens in batches]).numpy()
        return float(reward[np.concatenate(excerpts.counted)].sum() / excerpts.n.sum())

    expected = mean_reward(tuned) - np.mean([mean_reward(twin) for twin in load_twins(run)])
    assert sum(parts.values()) == pytest.approx(expected, abs=1e-3 * sum(map(abs, parts.values())) + 1e-6)
    assert len([value for value in parts.values() if value]) >= 4


def test_features_credits_are_compared_with_every_twin(run, tmp_path):
    run_stages(run, ["twin_words"])
    base, tuned = load_pair(run, exact=True)
    dictionary = Dictionary([tiny_sae(d_in=base.d_model, width=16)])
    rows = [
        {"text_id": i, "text": text.text, "token_ids": text.token_ids, "token_starts": text.token_starts,
         "counted": np.ones(len(text.token_ids), bool)}
        for i, text in enumerate(build_corpus(run, tuned, with_lexicon=False).texts[:3])
    ]  # fmt: skip
    splitter = feature_credits.FeatureSplitter(run, (base, tuned), dictionary, {})
    split = splitter(feature_credits.FeatureShard(rows, None), lambda n: None)
    found = feature_credits._compare_twins(splitter, rows, tmp_path, split)
    assert found is not None and found.twins.shape == (3, 16) and len(np.unique(found.twins, axis=0)) == 3
    n_tokens = sum(len(row["token_ids"]) for row in rows)
    assert found.tuned.sum() * n_tokens == pytest.approx(sum(text.credits[0].sum() for text in split))
    np.testing.assert_allclose(np.nan_to_num(found.test.contrast), found.tuned - found.twins.mean(axis=0))
    alone = replace(run, config=tiny_config(twins={"n": 3}, tune=_TUNE, feature_credits={"twin_texts": 0}))
    assert feature_credits._compare_twins(replace(splitter, run=alone), rows, tmp_path, split) is None


def test_a_worker_loads_the_twin_of_a_number_or_the_tuned_model(run):
    run_stages(run, ["tuned"])
    pair = load_pair(run)
    for number, other in ((None, pair[1]), (1, list(load_twins(run))[1])):
        assert [model.sha256 for model in load_compared(run, number)] == [pair[0].sha256, other.sha256]


def test_changed_features_are_counted_in_every_twin(run):
    run_stages(run, ["twin_drift"])
    rows = run.results(["twin_drift"])
    assert [row.group for row in rows] == list(STATUSES)
    assert all(row.metric == "twin_count" and row.null_mean <= row.null_high for row in rows)
    assert sum(row.value for row in rows) == rows[0].n > 0


def test_a_run_of_another_seed_finds_them_again(run, corpus_folder, tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("tuned again")

    monkeypatch.setattr(twins, "tune_base", refuse)
    other = replace(run, config=run.config.model_copy(update={"seed": 1}), work=run.work.parent / ".other.run")
    other.work.mkdir()
    for stage in ("corpus", "base"):
        (other.work / stage).symlink_to(run.work / stage)
    assert find_kept(other) == find_kept(run)
    assert find_kept(other).parent == run.work.parent / ".twins"
    with other.writing("twins", "key") as output:
        twins.run_twins(other, output)
    assert [twin.sha256 for twin in load_twins(other)] == [twin.sha256 for twin in load_twins(run)]


_DIFFERENT = {
    "tune": {
        "steps": 3, "learning_rate": 2e-4, "adapter": {"r": 2}, "freeze_embeddings": True, "gradient_accumulation": 2,
        "beta": 0.01, "prompts_per_step": 2, "group_size": 2, "pairs_batch": 4, "prefix_tokens": (1, 2),
        "completion_tokens": 31, "temperature": 0.9,
    },
    "feedback": {
        "reward": "lexicon", "classifier": "org/reward-b", "classifier_revision": "1" * 40, "classifier_label": "good",
        "classifier_batch": 4,
    },
}  # fmt: skip
"""Another value of every key of the config that the weights of twins depend on."""
_UNREAD = {
    "tune": {"method", "keep_every", "logger", "eval_prefixes"}  # the method is that of every case here
    | {f"pairs{name}" for name in ("", "_as", "_config", "_data_dir", "_verdict", "_split", "_revision")},
    "feedback": {"lexicon"},  # but where it is the reward; then its file counts
}
"""Keys that they do not depend on, or by the texts of the corpus alone."""


@pytest.mark.parametrize("section", ["tune", "feedback"])
def test_whatever_a_twin_depends_on_gives_it_another_folder(run, section):
    fields = type(getattr(run.config, section)).model_fields
    assert set(fields) == set(_DIFFERENT[section]) | _UNREAD[section]
    start = {"twins": {"n": 3}, "tune": _TUNE}
    for key, value in _DIFFERENT[section].items():
        by_classifier = {"reward": "classifier", "classifier": "org/reward-a"} if key.startswith("classifier") else {}
        own = start | ({"feedback": by_classifier} if by_classifier else {})
        before = replace(run, config=tiny_config(**own))
        after = replace(run, config=tiny_config(**own | {section: {**own.get(section, {}), key: value}}))
        assert find_kept(after) != find_kept(before), key


def test_a_folder_of_a_classifier_counts_by_its_files_not_its_name(run, tmp_path):
    kept = []
    for name, content in (("a", "{}"), ("b", "{}"), ("c", "{ }")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content)
        feedback = {"reward": "classifier", "classifier": str(tmp_path / name)}
        kept.append(find_kept(replace(run, config=tiny_config(twins={"n": 3}, tune=_TUNE, feedback=feedback))))
    assert kept[0] == kept[1] != kept[2]


def test_another_base_pairing_or_version_has_other_twins(run, monkeypatch):
    kept = {find_kept(run)}
    load, read, versions = twins.load_alone, twins.read_texts, twins.find_versions
    with monkeypatch.context() as patch:

        def load_with_other_end(*args: object) -> LanguageModel:
            model = load(*args)
            model.network.generation_config.eos_token_id = 5
            return model

        patch.setattr(twins, "load_alone", load_with_other_end)
        kept.add(find_kept(run))

        def load_with_other_tokenizer(*args: object) -> LanguageModel:
            model = load(*args)
            model.tokenizer.add_tokens(["<another>"])
            return model

        patch.setattr(twins, "load_alone", load_with_other_tokenizer)
        kept.add(find_kept(run))
    for change in ({"role": "chosen"}, {"pair_id": 3}, {"response_start": 2}):
        with monkeypatch.context() as patch:
            patch.setattr(twins, "read_texts", lambda *args, own=change: [replace(row, **own) for row in read(*args)])
            kept.add(find_kept(run))
    monkeypatch.setattr(twins, "find_versions", lambda libraries: versions(libraries) | {"trl": "0.0"})
    kept.add(find_kept(run))
    assert len(kept) == 7


def test_an_adapter_is_kept_as_an_adapter_and_merged_when_loaded(run, tmp_path):
    config = tiny_config(twins={"n": 3, "folder": str(tmp_path)}, tune={**_TUNE, "adapter": {"r": 2}})
    adapted = replace(run, config=config)
    kept = find_kept(adapted)
    folder = twins.tune_twin(adapted, kept, seed=10_001)
    assert kept.parent == tmp_path
    assert (folder / "adapter_config.json").is_file()
    assert not (folder / "model.safetensors").exists()
    twin, base = twins.load_twin(adapted, folder), next(load_twins(run))
    assert twin.adapter is None
    assert {name: value.shape for name, value in twin.parameters.items()} == {
        name: value.shape for name, value in base.parameters.items()
    }


def test_an_interrupted_twin_is_tuned_again_to_the_same_weights(run, tmp_path, monkeypatch):
    def fail(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(twins, "tune_base", fail)
        with pytest.raises(KeyboardInterrupt):
            twins.tune_twin(run, tmp_path, seed=10_001)
    assert not (tmp_path / "twin-10001").exists()
    again = twins.load_twin(run, twins.tune_twin(run, tmp_path, seed=10_001))
    first = next(load_twins(run))
    assert all(torch.equal(again.parameters[name], value) for name, value in first.parameters.items())
    assert not (tmp_path / ".twin-10001").exists()


def test_no_twin_has_the_seed_of_the_run():
    assert draw_seeds(3, other_than=10_002) == [10_001, 10_003, 10_004]
    assert draw_seeds(0, other_than=7) == []


def test_two_twins_are_refused_and_none_reads_nothing(corpus_folder):
    with pytest.raises(ConfigError, match=r"n 2 leaves fewer than two"):
        tiny_config(twins={"n": 2})
    (stage,) = [stage for stage in plan_stages(tiny_config(), corpus_folder) if stage.name == "twins"]
    assert (stage.after, stage.reads) == ((), ("twins",))


def test_a_twin_is_what_the_tuning_makes_by_its_seed(run, tmp_path):
    tune_base(run, tmp_path / "model", seed=10_002, scratch=tmp_path)
    made = twins.load_twin(run, tmp_path / "model")
    assert made.sha256 == list(load_twins(run))[1].sha256
