"""The table `labels`, and rows of the table `results`: what runs measure, and what is read off other tables."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lfp.labels import prompts
from lfp.labels.evidence import cut_silent_stretch, read_excerpt
from lfp.labels.types import TASKS, Excerpt
from lfp.testing.synthetic.corpus import LEXICON, Array, Made, Random, listed
from lfp.testing.synthetic.features import Places, example_columns
from lfp.util.types import Flags, Floats

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
    columns = {name: pa.array([row[name] for row in said], pa.bool_() if name == "related" else pa.string()).take(which)
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
    excerpts = (_excerpt(made, examples, at) for at in range(low, high))
    found = {excerpt.key: excerpt for excerpt in excerpts if excerpt is not None}
    shown = sorted(found.values(), key=lambda one: (one.fires, -one.activations[one.at]))[:N_SHOWN]
    shown.sort(key=lambda one: -one.activations[one.at])
    task = TASKS["sentiment"]
    describe = prompts.describe(shown, max_activation=highest, answer_tokens=0)
    description = "" if feature % 12 == 9 else _named(made.corpus.words[made.theme[feature]])
    relate = prompts.relate(description, task, answer_tokens=0)
    return {
        "prompt_version": prompts.PROMPT_VERSION, "prompt_sha256": prompts.hash_prompts([describe, relate]),
        "task": task, "examples_used": [excerpt.key for excerpt in shown],
    }  # fmt: skip


def _excerpt(made: Made, examples: Mapping[str, Any], at: int) -> Excerpt | None:
    """An example as a labeller is shown it."""
    row = {name: examples[name][at].item() for name in ("text_id", "position", "bucket", "window_start")}
    first, last = made.corpus.offsets[row["text_id"] : row["text_id"] + 2]
    text = {"text": made.corpus.texts[row["text_id"]], "token_starts": made.corpus.starts[first:last].tolist()}
    one = read_excerpt({**row, **text, "window_values": examples["window_values"][at].as_py()})
    return one if one.fires else cut_silent_stretch(one)


Row = dict[str, Any]


def figure(
    report_row: str,
    metric: str,
    value: float,
    *,
    half: float | None = None,
    null: tuple[float, float] | None = None,
    **keys: Any,
) -> Row:
    """A row of `results`: `half` is half its interval's width, `null` the null's mean and 95th percentile."""
    row: Row = {"report_row": report_row, "metric": metric, "value": value, **keys}
    if half is not None:
        row |= {"ci_low": value - half, "ci_high": value + half}
    if null is not None:
        row |= {"null_mean": null[0], "null_high": null[1], "null_p": 0.005 if value > null[1] else 0.4}
    return row


def measured_rows(layers: list[dict[str, Any]], saes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a run measures of itself; nothing where it trained no autoencoder."""
    if not saes:
        return []
    divergence = [figure("divergence_by_layer", "divergence", row["divergence"], layer=row["layer"]) for row in layers]
    quality = [
        figure("sae_quality", metric, row[metric], layer=row["layer"], group=f"width={row['width']}", model="tuned")
        for row in saes for metric in ("fvu", "l0", "dead_fraction") if row["model"] == "tuned"
    ]  # fmt: skip
    return [*divergence, *quality, *_reward_rows(), *_tau_rows(), *_sign_rows(), *_implicit_rows()]


def _reward_rows() -> list[dict[str, Any]]:
    return [
        figure("reward", "reward", 0.052, model="base", half=0.04, n=500),
        figure("reward", "reward", 0.413, model="tuned", half=0.05, n=500),
        figure("reward", "reward", 0.361, model="difference", half=0.06, n=500),
        figure("reward", "kl_per_token", 0.087, model="tuned", half=0.008, n=500),
    ]


def _tau_rows() -> list[dict[str, Any]]:
    rows = []
    scores = {("tuned", "sae"): 0.47, ("base", "base_sae"): 0.41, ("difference", "sae"): 0.06}
    for (model, inputs), tau in scores.items():
        for words, part in {"all": 1.0, "positive": 0.4, "negative": 0.3}.items():
            for split, gain in {"held_out_words": 0.0, "random_rows": 0.12}.items():
                keys: dict[str, Any] = {
                    "model": model,
                    "inputs": inputs,
                    "words": words,
                    "split": split,
                    "target": "delta",
                }
                value = tau * part + gain * (model != "difference")
                rows.append(figure("kendall_tau", "tau", value, half=0.09, null=(0.01, 0.14), n=312, **keys))
                if words == "all" and model != "difference":
                    rows.append(figure("kendall_tau", "sign_ceiling", 0.52, n=312, **keys))
                    rows.append(figure("kendall_tau", "tau_within_sign", tau * 0.35, half=0.1, null=(0, 0.11), **keys))
    return rows


def _sign_rows() -> list[dict[str, Any]]:
    keys: dict[str, Any] = {"target": "delta", "split": "held_out_words"}
    return [
        figure("sign_accuracy", "accuracy", value, half=0.05, null=(0.5, 0.58), n=150, model=model, inputs=inputs,
                words=words, **keys)
        for model, inputs, shift in (("tuned", "sae", 0.0), ("base", "base_sae", -0.04))
        for words, value in (("positive", 0.84 + shift), ("negative", 0.79 + shift))
    ]  # fmt: skip


def _implicit_rows() -> list[dict[str, Any]]:
    taus = {"all": 0.58, "positive": 0.27, "negative": 0.22}
    keys: dict[str, Any] = {"model": "difference", "target": "implicit_reward"}
    rows = [figure("implicit_reward", "tau", tau, half=0.06, null=(0.0, 0.08), n=312, words=words, **keys)
            for words, tau in taus.items()]  # fmt: skip
    return [*rows, figure("implicit_reward", "mean", 0.031, half=0.004, n=20_000, words="all", **keys)]


def preference_rows() -> list[dict[str, Any]]:
    """Accuracy of telling chosen from rejected answers, by the implicit reward and by length alone."""
    keys: dict[str, Any] = {"target": "preference", "n": 120, "half": 0.08, "null": (0.5, 0.56)}
    estimate = {"model": "tuned", "inputs": "sae", **keys}
    return [
        figure("preference_accuracy", "accuracy", 0.66, **estimate),
        figure("preference_accuracy", "accuracy_length_controlled", 0.62, **estimate),
        figure("preference_accuracy", "accuracy_of_length", 0.58, **keys),
    ]


def finding_rows(made: Made) -> list[dict[str, Any]]:
    """What the report says of words, labels and single ablations."""
    if not len(made.layer):
        return []
    related = np.array([made.corpus.words[theme] in LEXICON for theme in made.theme[:3000].tolist()])
    answered = [i for i in range(0, len(related), 3) if i % 12 != 9]
    rows = [
        *_label_rows(LABELLER, related, made.weights[0][: len(related)]),
        *_label_rows(MODEL_LABELLER, related[answered], made.weights[0][answered]),
    ]
    words = [word for word in LEXICON if word in made.corpus.words][:3]
    return [*_word_rows(words, len(made.corpus.texts)), *rows, *_frequency_rows(), *_inert_rows(made.weightiest)]


def _word_rows(words: Sequence[str], n_texts: int) -> list[Row]:
    """Errors by frequency and the largest disagreements, of words and texts that the bundle holds."""
    errors = {"all": 1.2, "0": 1.4, "1-3": 1.1, "4-30": 0.8}
    rows = [
        figure("error_by_frequency", "mean_absolute_error", value, half=0.1, null=(1.9, 2.0), group=group, n=30)
        for group, value in errors.items()
    ]
    lists = ("gap_over_paid", "gap_predicted_true", "gap_implicit_true")
    rows += [
        figure("disagreements", metric, 0.9 - 0.1 * place, null=(0.8, 0.95), group=f"word:{word}", n=38)
        for metric in lists
        for place, word in enumerate(words)
    ]
    if n_texts:
        rows.append(figure("disagreements", "gap_predicted_true", -0.7, null=(0.6, 0.8), group="text:0", n=n_texts))
    shares = {"pc1": 0.21, "pc2": 0.12}
    return rows + [
        figure("pca_explained", "explained_share", share, half=0.03, null=(0.08, 0.09), group=name, n=n_texts)
        for name, share in shares.items()
    ]


def _label_rows(labeller: str, related: Flags, weight: Floats) -> list[Row]:
    """A labeller's `related` against the weights [features] it judges, counted as they are, and its scores."""
    sizes, n = np.abs(weight), len(related)
    rows: list[Row] = []
    for against, share in {"beats_null": 0.7, "top_decile": 0.9}.items():
        weighty = sizes >= np.quantile(sizes, share)
        pairs = list(zip(related.tolist(), weighty.tolist(), strict=True))
        rows += _agreement(pairs, f"labeller={labeller},against={against}")
    keys: Row = {"group": f"labeller={labeller},against=weight", "n": n}
    rows.append(figure("label_agreement", "rank_correlation", 0.2, half=0.1, null=(0, 0.15), **keys))
    for metric, value in {"detection": 0.78, "fuzzing": 0.7, "agreement": 0.9}.items():
        for features, gain in {"all": 0.0, "weighted": 0.05, "random": -0.04}.items():
            keys = {"group": f"labeller={labeller},features={features}", "n": n}
            null = (0.5, 0.55) if metric == "detection" else None
            rows.append(figure("label_scores", metric, value + gain, half=0.05, null=null, **keys))
    return rows


_CELLS = {(True, True): "related_and_weighty", (True, False): "related_only", (False, True): "weighty_only",
          (False, False): "neither"}  # fmt: skip


def _agreement(pairs: Sequence[tuple[bool, bool]], group: str) -> list[Row]:
    counts = {name: pairs.count(cell) for cell, name in _CELLS.items()}
    both, first, second, neither = (count + 0.5 for count in counts.values())
    keys: Row = {"group": group, "n": len(pairs)}
    return [
        *(figure("label_agreement", name, count, half=2.0, **keys) for name, count in counts.items()),
        figure("label_agreement", "odds_ratio", both * neither / (first * second), half=0.2, null=(1, 1.9), **keys),
        figure("label_agreement", "kappa", 0.3, half=0.1, null=(0, 0.12), **keys),
        figure("label_agreement", "accuracy", 0.7, half=0.1, null=(0.5, 0.6), **keys),
    ]


def _frequency_rows() -> list[Row]:
    """How often features fire where the estimate is high, and on the rest."""
    shares = {"related_high": 0.06, "related_rest": 0.04, "related_high_less_rest": 0.02, "all_high": 0.05,
              "all_rest": 0.05}  # fmt: skip
    return [
        figure("activation_frequency", metric, times * share, half=0.005 * times, group=group, n=30,
               null=(0.045 * times, 0.055 * times) if group in ("related_high", "related_rest") else None)
        for metric, times in (("per_token", 1.0), ("per_text", 8.0))
        for group, share in shares.items()
    ]  # fmt: skip


def _inert_rows(features: Sequence[int]) -> list[Row]:
    """What `single_ablations` shows as figures of the report."""
    if not features:
        return []
    keys: Row = {"group": "features", "n": len(features)}
    return [
        figure("ablation", "predicted_measured", 0.5, half=0.4, null=(0.0, 0.4), **keys),
        figure("ablation", "inert_count", max(0, len(features) - 1), **keys),
    ]


def drift_rows(drift: Mapping[str, Any]) -> list[Row]:
    """Counts of the table of drift, beside made-up ones of the base model's dictionary, and its largest features."""
    n, status = len(drift["feature_id"]), np.asarray(drift["status"].to_pylist())
    if not n:
        return []
    pair: dict[str, Any] = {"model": "difference", "target": "implicit_reward", "inputs": "sae", "probe_id": 0}
    flips = int(drift["sign_flipped"].sum())
    rows = [figure("drift", "sign_flips", flips, half=0.1 * flips, null=(0.3 * n, 0.4 * n), n=n, **pair)]
    for became in ("born", "strengthened", "steady", "weakened", "gone"):
        count, share = int((status == became).sum()), float(drift["share"][status == became].sum())
        for inputs, counted in {"sae": count, "base_sae": n // 5}.items():
            rows.append(figure("drift", "count", counted, half=0.1 * counted, null=(0.25 * n, 0.3 * n), n=n,
                                model="difference", inputs=inputs, group=became))  # fmt: skip
        null = (share / 2, 0.8 * share)
        rows.append(figure("drift", "carried_share", share, half=share / 10, null=null, n=count, group=became, **pair))
    for feature in np.argsort(drift["rank"])[:5]:
        for metric, keys in (("drifted_contribution", pair), ("unexplained_contribution", {"model": "tuned"})):
            value = float(drift[metric][feature])
            null = (abs(value) / 3, abs(value) / 2)
            rows.append(figure("drift", metric, value, null=null, n=1000, group=f"feature:{feature}", **keys))
    return rows
