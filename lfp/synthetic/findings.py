"""Rows of the table `results` that are read off other tables: words, texts, labels, drift, single ablations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lfp.synthetic.labels import LABELLER, MODEL_LABELLER
from lfp.synthetic.made import Made
from lfp.synthetic.results import Row, figure
from lfp.synthetic.reviews import LEXICON
from lfp.util.types import Flags, Floats


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
