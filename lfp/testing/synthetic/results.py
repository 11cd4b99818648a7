"""The table `labels`, and rows of the table `results`: what runs measure, and what is read off other tables."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from lfp.evaluation.module_credits import check_rows, credit_rows, group_rows, modules_read
from lfp.evaluation.results import DICTIONARIES, FATES
from lfp.evaluation.statistics.resampling import Draws
from lfp.evaluation.trajectory import trajectory_rows
from lfp.labels import prompts
from lfp.labels.evidence import cut_silent_stretch, read_excerpt
from lfp.labels.types import TASKS, Excerpt
from lfp.testing.synthetic.corpus import LEXICON, N_SPLIT, STANDING, Array, Made, Random, listed
from lfp.testing.synthetic.credits import build_trajectory, text_credits
from lfp.testing.synthetic.examples import Places, example_columns
from lfp.util.types import Flags, Floats

Row = dict[str, Any]
LABELLER = "offline-tokens"
MODEL_LABELLER = "synthetic-model"
N_SHOWN, N_PROMPTED = 8, 200
"""Examples a model's label was shown, and features, from the first, whose model labels name them and keep their
prompts' hash: hashing takes too long for a million. The others name prompts that no program knows."""


def tuning_rows(*, steps: int = 60) -> list[Row]:
    """A reward that rises by steps, with the KL that it costs, as smooth curves with a ripple."""
    ends = {"reward": (0.4, 0.05), "kl": (0.09, 0.004), "loss": (0.01, 0.02)}
    return [
        {"metric": metric, "step": step, "value": end * (1 - math.exp(-3 * step / steps)) + ripple * math.sin(9 * step)}
        for metric, (end, ripple) in ends.items()
        for step in range(1, steps + 1)
    ]


_OFFLINE_SCORE, _OFFLINE_CHANCE = 0.62, 0.52  # below every score of the model


def label_columns(made: Made, random: Random, places: Places, highest: Array) -> dict[str, Any]:
    """The offline labeller on every feature, and a model's on every third, which detects better or failed."""
    n = len(made.place)
    feature = np.repeat(np.arange(n), 1 + (np.arange(n) % 3 == 0))
    by_model = np.diff(feature, prepend=-1) == 0
    failed = by_model & (feature % 12 == 9)
    says = np.where(failed, 2, by_model)
    confidence, score, agreement = (np.full(n, np.nan) for _ in range(3))  # NaN where no model gave one
    for number in range(n):
        confidence[number] = random.uniform(0.6, 0.95)
        if number % 3 == 0 and number % 12 != 9:
            score[number], agreement[number] = random.uniform(0.65, 0.95), random.choice([0.8, 1.0])
    detection = np.where(by_model, score[feature], np.where(feature % 11 == 7, _OFFLINE_CHANCE, _OFFLINE_SCORE))
    values = {
        "agreement": np.where(by_model, agreement[feature], 1.0), "confidence": confidence[feature],
        "score_detection": detection, "score_fuzzing": detection - 0.05,
        "score_ci_low": detection - 0.1, "score_ci_high": np.minimum(detection + 0.1, 1.0),
        "score_p": np.full(len(feature), 0.01), "score_q": np.full(len(feature), 0.02),
    }  # fmt: skip
    columns: dict[str, Any] = {name: pa.array(value, mask=failed) for name, value in values.items()}
    examples = example_columns(made, places.part(0, int(np.searchsorted(places.feature, N_PROMPTED))))
    prompted = feature[by_model & (feature < N_PROMPTED)].tolist()
    keeps = {number: _prompted(made, examples, number, float(highest[number])) for number in prompted}
    columns |= _label_words(made, feature, says, keeps)
    fixed = {
        "labeller": [LABELLER, MODEL_LABELLER, MODEL_LABELLER], "model": [None, "a-language-model", "a-language-model"],
        "status": ["ok", "ok", "failed"], "failure": [None, None, "the answer was not JSON, three times"],
        "created_at": [None, "2026-01-01T00:00:00+00:00", None], "score_n": [40, 40, None],
        "cost_usd": [None, 0.0004, None], "score_swapped": [None] * 3,
    }  # fmt: skip
    columns |= {name: pa.array(values).take(pa.array(says)) for name, values in fixed.items()}
    return {"feature_id": feature, **columns}


def _label_words(made: Made, feature: Array, says: Array, keeps: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """The columns of words; `says` is 0 for the offline labeller's row, 1 for a model's, 2 for one that failed."""
    said: list[dict[str, Any]] = []
    for word in made.corpus.words:
        value = LEXICON.get(word)
        described, reason = f"Mentions of “{word}”, whatever is said of it", f"The lexicon does not score “{word}”."
        if value is not None:
            described = f"{'Praise' if value > 0 else 'Complaint'}, above all the word “{word}”"
            reason = f"Most of its activation falls on “{word}”, which the lexicon scores {value:+.1f}."
        offline = {"description": described, "related": value is not None, "reason": reason,
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


def _named(word: str) -> str:
    return f"{'Judging' if LEXICON.get(word) else 'Naming'} a film with “{word}” and its synonyms"


def _prompted(made: Made, examples: Mapping[str, Any], feature: int, highest: float) -> dict[str, Any]:
    """What a model's label keeps of its prompts, the feature's strongest and its silent examples being shown."""
    low, high = np.searchsorted(examples["feature_id"], [feature, feature + 1])
    found: dict[str, Excerpt] = {}
    for at in range(low, high):
        row = {name: examples[name][at].item() for name in ("text_id", "position", "bucket", "window_start")}
        first, last = made.corpus.offsets[row["text_id"] : row["text_id"] + 2]
        text = {"text": made.corpus.texts[row["text_id"]], "token_starts": made.corpus.starts[first:last].tolist()}
        excerpt = read_excerpt({**row, **text, "window_values": examples["window_values"][at].as_py()})
        shown_as = excerpt if excerpt.fires else cut_silent_stretch(excerpt)
        if shown_as is not None:
            found[shown_as.key] = shown_as
    shown = sorted(found.values(), key=lambda excerpt: (excerpt.fires, -excerpt.activations[excerpt.at]))[:N_SHOWN]
    shown.sort(key=lambda excerpt: -excerpt.activations[excerpt.at])
    task = TASKS["sentiment"]
    describe = prompts.describe(shown, max_activation=highest, answer_tokens=0)
    description = "" if feature % 12 == 9 else _named(made.corpus.words[made.theme[feature]])
    relate = prompts.relate(description, task, answer_tokens=0)
    return {
        "prompt_version": prompts.PROMPT_VERSION, "prompt_sha256": prompts.hash_prompts([describe, relate]),
        "task": task, "examples_used": [excerpt.key for excerpt in shown],
    }  # fmt: skip


def figure(
    report_row: str, metric: str, value: float, *, half: float | None = None, null: tuple[float, float] | None = None,
    **keys: Any,
) -> Row:  # fmt: skip
    """A row of `results`: `half` is half its interval's width, `null` the null's mean and 95th percentile."""
    row: Row = {"report_row": report_row, "metric": metric, "value": value, **keys}
    if half is not None:
        row |= {"ci_low": value - half, "ci_high": value + half}
    if null is not None:
        row |= {"null_mean": null[0], "null_high": null[1], "null_p": 0.005 if value > null[1] else 0.4}
    return row


def result_rows(made: Made, layers: list[Row], saes: list[Row], drift: Mapping[str, Any]) -> list[Row]:
    """Every row of `results`: most are fixed numbers, the rest are counted from the other tables."""
    rows = _measured_rows(layers, saes) if saes else []
    if made.n_pairs:  # telling chosen from rejected answers, by the implicit reward and by length alone
        keys: Row = {"target": "preference", "n": 120, "half": 0.08, "null": (0.5, 0.56)}
        for metric, value in {"accuracy": 0.66, "accuracy_length_controlled": 0.62}.items():
            rows.append(figure("preference_accuracy", metric, value, model="tuned", inputs="sae", **keys))
        rows.append(figure("preference_accuracy", "accuracy_of_length", 0.58, **keys))
    if len(made.corpus.texts) > 1:
        rows += _credit_rows(made)
    return [*rows, *_finding_rows(made), *_drift_rows(drift)] if len(made.place) else rows


def _credit_rows(made: Made) -> list[Row]:
    """Shares of the modules in the implicit reward, as a run computes them from the table `module_credits`."""
    n = min(len(made.corpus.texts), N_SPLIT)
    of_texts = np.bincount(made.corpus.text, np.nan_to_num(made.implicit), n)[:n].astype(float)
    credits, draws = text_credits(made, of_texts), Draws(50, 40, 0)
    members = credits.select(modules_read(credits.modules, made.places))
    rows = [
        *check_rows(np.full(n, 4e-4), np.full(n, 3), 13.5),
        *credit_rows(credits, draws),
        *group_rows(credits, members, DICTIONARIES, draws),
        *trajectory_rows(build_trajectory(made), draws),
    ]
    return [row.as_dict() for row in rows]


def difference_rows(made: Made) -> list[Row]:
    """The mean change of activations and a component, of every place that features are read from."""
    tokens = [{"token": f" {word}", "value": 0.5} for word in list(made.corpus.words)[:2]]
    return [
        {
            **place._asdict(), "rank": rank, "share": share, "size": 0.4, "n_tokens": 1000, "pos_logits": tokens,
            "neg_logits": tokens[::-1], "vector": [0.25] * 4,
        }
        for place in made.places for rank, share in enumerate((0.3, 0.2))
    ]  # fmt: skip


def _measured_rows(layers: list[Row], saes: list[Row]) -> list[Row]:
    """What a run measures of its models, autoencoders and probes."""
    rows = [figure("divergence_by_layer", "divergence", row["divergence"], layer=row["layer"]) for row in layers]
    rows += [
        figure(
            "sae_quality", metric, row[metric], layer=row["layer"], site=row["site"], model="tuned",
            group=f"width={row['width']}",
        )
        for row in saes for metric in ("fvu", "l0", "dead_fraction") if row["model"] == "tuned"
    ]  # fmt: skip
    rows += [
        figure("latent_scaling", "exclusive", count, model=model, n=96) for model, count in (("tuned", 4), ("base", 3))
    ]
    rows += [
        figure("reward", "reward", 0.052, model="base", half=0.04, n=500),
        figure("reward", "reward", 0.413, model="tuned", half=0.05, n=500),
        figure("reward", "reward", 0.361, model="difference", half=0.06, n=500),
        figure("reward", "kl_per_token", 0.087, model="tuned", half=0.008, n=500),
    ]
    for model, inputs, tau in (("tuned", "sae", 0.47), ("base", "base_sae", 0.41), ("difference", "sae", 0.06)):
        for words, part in {"all": 1.0, "positive": 0.4, "negative": 0.3}.items():
            for split, gain in {"held_out_words": 0.0, "random_rows": 0.12}.items():
                keys: Row = {"model": model, "inputs": inputs, "words": words, "split": split, "target": "delta"}
                value = tau * part + gain * (model != "difference")
                rows.append(figure("kendall_tau", "tau", value, half=0.09, null=(0.01, 0.14), n=312, **keys))
                if words == "all" and model != "difference":
                    rows.append(figure("kendall_tau", "sign_ceiling", 0.52, n=312, **keys))
                    rows.append(figure("kendall_tau", "tau_within_sign", tau * 0.35, half=0.1, null=(0, 0.11), **keys))
    for model, inputs, shift in (("tuned", "sae", 0.0), ("base", "base_sae", -0.04)):
        for words, value in {"positive": 0.84 + shift, "negative": 0.79 + shift}.items():
            keys = {"model": model, "inputs": inputs, "words": words, "split": "held_out_words", "target": "delta"}
            rows.append(figure("sign_accuracy", "accuracy", value, half=0.05, null=(0.5, 0.58), n=150, **keys))
    keys = {"model": "difference", "target": "implicit_reward"}
    for words, value in {"all": 0.58, "positive": 0.27, "negative": 0.22}.items():
        rows.append(figure("implicit_reward", "tau", value, half=0.06, null=(0.0, 0.08), n=312, words=words, **keys))
    return [*rows, figure("implicit_reward", "mean", 0.031, half=0.004, n=20_000, words="all", **keys)]


def _finding_rows(made: Made) -> list[Row]:
    """What the report says of words, texts, labels and single ablations that the bundle holds."""
    words, n_texts = [word for word in LEXICON if word in made.corpus.words][:3], len(made.corpus.texts)
    rows = [
        figure("error_by_frequency", "mean_absolute_error", value, half=0.1, null=(1.9, 2.0), group=group, n=30)
        for group, value in {"all": 1.2, "0": 1.4, "1-3": 1.1, "4-30": 0.8}.items()
    ]
    rows += [
        figure("disagreements", metric, 0.9 - 0.1 * place, null=(0.8, 0.95), group=f"word:{word}", n=38)
        for metric in ("gap_over_paid", "gap_predicted_true", "gap_implicit_true")
        for place, word in enumerate(words)
    ]
    flagged = float(STANDING)
    rows.append(
        figure("disagreements", "words_flagged", flagged, n=38, model="difference", target="implicit_advantage")
    )
    rows += [
        figure("twins", "preferred_more", 0.5 - 0.1 * place, half=0.2, group=f"word:{word}", model="difference", n=38)
        for place, word in enumerate(words)
    ]
    rows.append(figure("twins", "twins", 8.0))
    rows.append(figure("twins", "words_differing", 2.0, null=(0.4, 1.0), model="difference", n=38))
    rows.append(figure("twins", "part", 0.6, group="unembedding", n=2))
    if n_texts:
        rows.append(figure("disagreements", "gap_predicted_true", -0.7, null=(0.6, 0.8), group="text:0", n=n_texts))
    rows += [
        figure("pca_explained", "explained_share", share, half=0.03, null=(0.08, 0.09), group=name, n=n_texts)
        for name, share in {"pc1": 0.21, "pc2": 0.12}.items()
    ]
    related = np.array([made.corpus.words[theme] in LEXICON for theme in made.theme[:3000].tolist()])
    answered = [i for i in range(0, len(related), 3) if i % 12 != 9]
    rows += _label_rows(LABELLER, related, made.weights[0][: len(related)])
    rows += _label_rows(MODEL_LABELLER, related[answered], made.weights[0][answered])
    shares = {"related_high": 0.06, "related_rest": 0.04, "related_high_less_rest": 0.02, "all_high": 0.05,
              "all_rest": 0.05}  # fmt: skip
    rows += [
        figure("activation_frequency", metric, times * share, half=0.005 * times, group=group, n=30,
               null=(0.045 * times, 0.055 * times) if group in ("related_high", "related_rest") else None)
        for metric, times in (("per_token", 1.0), ("per_text", 8.0))
        for group, share in shares.items()
    ]  # fmt: skip
    keys: Row = {"group": "features", "n": len(made.weightiest)}
    rows.append(figure("ablation", "predicted_measured", 0.5, half=0.4, null=(0.0, 0.4), **keys))
    return [*rows, figure("ablation", "inert_count", len(made.weightiest) - 1, **keys)]


def _label_rows(labeller: str, related: Flags, weight: Floats) -> list[Row]:
    """A labeller's `related` against the weights [features] it judges, counted as they are, and its scores."""
    sizes, n = np.abs(weight), len(related)
    rows: list[Row] = []
    for against, share in {"beats_null": 0.7, "top_decile": 0.9}.items():
        weighty = sizes >= np.quantile(sizes, share)
        both, first = int((related & weighty).sum()), int((related & ~weighty).sum())
        second, neither = int((~related & weighty).sum()), int((~related & ~weighty).sum())
        counts = {"related_and_weighty": both, "related_only": first, "weighty_only": second, "neither": neither}
        odds = (both + 0.5) * (neither + 0.5) / ((first + 0.5) * (second + 0.5))
        keys: Row = {"group": f"labeller={labeller},against={against}", "n": n}
        rows += [
            *(figure("label_agreement", name, count, half=2.0, **keys) for name, count in counts.items()),
            figure("label_agreement", "odds_ratio", odds, half=0.2, null=(1, 1.9), **keys),
            figure("label_agreement", "kappa", 0.3, half=0.1, null=(0, 0.12), **keys),
            figure("label_agreement", "accuracy", 0.7, half=0.1, null=(0.5, 0.6), **keys),
        ]
    keys = {"group": f"labeller={labeller},against=weight", "n": n}
    rows.append(figure("label_agreement", "rank_correlation", 0.2, half=0.1, null=(0, 0.15), **keys))
    for metric, value in {"detection": 0.78, "fuzzing": 0.7, "agreement": 0.9}.items():
        for features, gain in {"all": 0.0, "weighted": 0.05, "random": -0.04}.items():
            keys = {"group": f"labeller={labeller},features={features}", "n": n}
            null = (0.5, 0.55) if metric == "detection" else None
            rows.append(figure("label_scores", metric, value + gain, half=0.05, null=null, **keys))
    return rows


def _drift_rows(drift: Mapping[str, Any]) -> list[Row]:
    """Counts of the table of drift, beside made-up ones of the base model's dictionary, and its largest features."""
    n, status = len(drift["feature_id"]), np.asarray(drift["status"].to_pylist())
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


def forecast_columns() -> dict[str, Any]:
    """The forecast and receipt of forty features of a base model, by a seed of its own."""
    random, n = np.random.default_rng(7), 40
    in_data, noise = random.normal(0, 0.1, n), random.normal(0, 0.01, n)
    learned = 0.3 * in_data + noise
    status = [FATES[0]] * 3 + [FATES[1]] * 2 + [FATES[2]] * 2 + [FATES[3]] * (n - 7)
    return {
        "feature_id": np.arange(n), "layer": np.ones(n, np.int64), "site": ["mlp_out"] * n,
        "top_tokens": [[{"token": f" word{i}", "value": 1.0}] for i in range(n)], "density": np.full(n, 0.1),
        "spread": np.full(n, 0.5), "in_data": in_data, "in_data_low": in_data - 0.05, "in_data_high": in_data + 0.05,
        "in_data_q": np.where(np.arange(n) < 5, 0.001, 0.5), "expected": 0.3 * in_data, "preferred": learned,
        "preferred_low": learned - 0.02, "preferred_high": learned + 0.02, "preferred_q": np.full(n, 0.3),
        "moved": noise, "moved_low": noise - 0.02, "moved_high": noise + 0.02, "credit": 0.1 * in_data,
        "status": status,
    }  # fmt: skip


def forecast_rows() -> list[Row]:
    """What the report says of that forecast."""
    counts = {FATES[0]: 3.0, FATES[1]: 2.0, FATES[2]: 2.0, FATES[3]: 33.0}
    keys: Row = {"model": "difference", "split": "held_out_features", "layer": 1, "n": 40}
    return [
        figure("forecast", "r2", 0.4, half=0.1, null=(0.0, 0.05), group="preferred", **keys),
        figure("forecast", "rank_correlation", 0.6, half=0.1, null=(0.0, 0.2), group="preferred", **keys),
        figure("forecast", "rank_correlation", 0.1, half=0.2, null=(0.0, 0.2), group="credit", **keys),
        figure("forecast", "in_data_count", 5.0, n=40, layer=1),
        *(figure("forecast", "count", value, group=fate, n=40, layer=1) for fate, value in counts.items()),
    ]
