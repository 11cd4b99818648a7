"""The table `labels`: a rule's and a language model's descriptions, with what the latter's prompts showed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from lfp.labels import prompts
from lfp.labels.evidence import excerpt, silent_stretch
from lfp.labels.protocol import Excerpt
from lfp.labels.tasks import TASKS
from lfp.synthetic.arrays import Array, Random, listed
from lfp.synthetic.examples import Places, example_columns
from lfp.synthetic.made import Made
from lfp.synthetic.reviews import LEXICON

LABELLER = "offline-tokens"
MODEL_LABELLER = "synthetic-model"
N_SHOWN, N_PROMPTED = 8, 200
"""Examples a model's label was shown, and features, from the first, whose model labels name them and keep their
prompts' hash: hashing takes too long for a million. The others name prompts that no program knows."""


def label_columns(made: Made, random: Random, places: Places, highest: Array) -> dict[str, Any]:
    """The offline labeller on every feature, and a model's on every third, some of its answers failed."""
    n = len(made.layer)
    feature = np.repeat(np.arange(n), 1 + (np.arange(n) % 3 == 0))
    by_model = np.diff(feature, prepend=-1) == 0
    failed = by_model & (feature % 12 == 9)
    says, scored = np.where(failed, 2, by_model), by_model & ~failed
    confidence, score, agreement = _label_draws(n, random)
    values = {
        "agreement": np.where(by_model, agreement[feature], 1.0), "confidence": confidence[feature],
        "score_detection": score[feature], "score_fuzzing": score[feature] - 0.05,
        "score_ci_low": score[feature] - 0.1, "score_ci_high": np.minimum(score[feature] + 0.1, 1.0),
    }  # fmt: skip
    values = {name: pa.array(one, mask=failed if name in ("agreement", "confidence") else ~scored)
              for name, one in values.items()}  # fmt: skip
    keeps = _kept_prompts(made, feature[by_model & (feature < N_PROMPTED)], places, highest)
    columns = values | _label_words(made, feature, says, keeps)
    fixed = {
        "labeller": [LABELLER, MODEL_LABELLER, MODEL_LABELLER], "model": [None, "a-language-model", "a-language-model"],
        "status": ["ok", "ok", "failed"], "failure": [None, None, "the answer was not JSON, three times"],
        "created_at": [None, "2026-01-01T00:00:00+00:00", None],
    }  # fmt: skip
    columns |= {name: pa.array(one, pa.string()).take(pa.array(says)) for name, one in fixed.items()}
    one_of = {"score_n": [None, 40, None], "cost_usd": [None, 0.0004, None], "score_swapped": [None] * 3}
    columns |= {name: pa.array(one).take(pa.array(says)) for name, one in one_of.items()}
    return {"feature_id": feature, **columns}


def _label_draws(n: int, random: Random) -> tuple[Array, Array, Array]:
    """Confidence, detection score and agreement of each feature's labels, NaN where no model gave one."""
    confidence, score, agreement = (np.full(n, np.nan) for _ in range(3))
    for feature in range(n):
        confidence[feature] = random.uniform(0.6, 0.95)
        if feature % 3 == 0 and feature % 12 != 9:
            score[feature], agreement[feature] = random.uniform(0.55, 0.95), random.choice([0.8, 1.0])
    return confidence, score, agreement


def _label_words(made: Made, feature: Array, says: Array, keeps: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """The columns of words; `says` is 0 for the offline labeller's row, 1 for a model's, 2 for one that failed."""
    said: list[dict[str, Any]] = []
    for word in made.corpus.words:
        value = LEXICON.get(word)
        offline = {"description": _described(word, value), "related": value is not None, "reason": _reason(word, value),
                   "prompt_version": "tokens-1", "prompt_sha256": None}  # fmt: skip
        model = {"prompt_version": "describe-1", "prompt_sha256": hashlib.sha256(word.encode()).hexdigest()}
        failed = {"description": None, "related": None, "reason": None}
        said += [offline, {**offline, **model, "description": _named(word)}, {**offline, **model, **failed}]
    which = pa.array(made.theme[feature] * 3 + says, pa.int64())
    columns = {name: pa.array([one[name] for one in said], pa.bool_() if name == "related" else pa.string()).take(which)
               for name in ("description", "related", "reason", "prompt_version", "prompt_sha256")}  # fmt: skip
    columns |= {"task": pa.nulls(len(feature), pa.string()), "examples_used": listed(np.zeros(len(feature) + 1, int),
                pa.array([], pa.string()))}  # fmt: skip
    n_first = int(np.searchsorted(feature, N_PROMPTED))
    for name in ("prompt_version", "prompt_sha256", "task", "examples_used"):
        first, type_ = columns[name].slice(0, n_first).to_pylist(), columns[name].type
        for at in np.flatnonzero(says[:n_first]).tolist():
            first[at] = keeps[int(feature[at])][name]
        columns[name] = pa.concat_arrays([pa.array(first, type_), columns[name].slice(n_first)])
    return columns


def _described(word: str, value: float | None) -> str:
    if value is None:
        return f"Mentions of “{word}”, whatever is said of it"
    return f"{'Praise' if value > 0 else 'Complaint'}, above all the word “{word}”"


def _named(word: str) -> str:
    return f"{'Judging' if LEXICON.get(word) else 'Naming'} a film with “{word}” and its synonyms"


def _reason(word: str, value: float | None) -> str:
    if value is None:
        return f"The lexicon does not score “{word}”."
    return f"Most of its activation falls on “{word}”, which the lexicon scores {value:+.1f}."


def _kept_prompts(made: Made, features: Array, places: Places, highest: Array) -> dict[int, dict[str, Any]]:
    """What these features' model labels keep of their prompts, by feature."""
    examples = example_columns(made, places.part(0, int(np.searchsorted(places.feature, N_PROMPTED))))
    return {feature: _prompted(made, examples, feature, float(highest[feature])) for feature in features.tolist()}


def _prompted(made: Made, examples: Mapping[str, Any], feature: int, highest: float) -> dict[str, Any]:
    """What a model's label keeps of its prompts, the feature's strongest and its silent examples being shown."""
    low, high = np.searchsorted(examples["feature_id"], [feature, feature + 1])
    found = {one.key: one for one in (_excerpt(made, examples, at) for at in range(low, high)) if one is not None}
    shown = sorted(found.values(), key=lambda one: (one.fires, -one.activations[one.at]))[:N_SHOWN]
    shown.sort(key=lambda one: -one.activations[one.at])
    task = TASKS["sentiment"]
    describe = prompts.describe(shown, max_activation=highest, answer_tokens=0)
    description = "" if feature % 12 == 9 else _named(made.corpus.words[made.theme[feature]])
    relate = prompts.relate(description, task, answer_tokens=0)
    return {
        "prompt_version": prompts.PROMPT_VERSION, "prompt_sha256": prompts.sha256([describe, relate]), "task": task,
        "examples_used": [one.key for one in shown],
    }  # fmt: skip


def _excerpt(made: Made, examples: Mapping[str, Any], at: int) -> Excerpt | None:
    """An example as a labeller is shown it."""
    row = {name: examples[name][at].item() for name in ("text_id", "position", "bucket", "window_start")}
    first, last = made.corpus.offsets[row["text_id"] : row["text_id"] + 2]
    text = {"text": made.corpus.texts[row["text_id"]], "token_starts": made.corpus.starts[first:last].tolist()}
    one = excerpt({**row, **text, "window_values": examples["window_values"][at].as_py()})
    return one if one.fires else silent_stretch(one)
