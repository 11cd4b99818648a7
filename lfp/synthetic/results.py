"""Rows of the table `results` that runs measure: reward, divergence, autoencoders, taus, signs, pairs."""

from __future__ import annotations

from typing import Any

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
    """How well chosen is told from rejected, and how well length alone tells it."""
    keys: dict[str, Any] = {"target": "preference", "n": 120, "half": 0.08, "null": (0.5, 0.56)}
    estimate = {"model": "tuned", "inputs": "sae", **keys}
    return [
        figure("preference_accuracy", "accuracy", 0.66, **estimate),
        figure("preference_accuracy", "accuracy_length_controlled", 0.62, **estimate),
        figure("preference_accuracy", "accuracy_of_length", 0.58, **keys),
    ]
