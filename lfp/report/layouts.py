"""How each section of the report is laid out: which rows stand in which line and column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lfp.evaluation.results import DICTIONARIES, KINDS, ResultRow
from lfp.report import formatting
from lfp.report.columns import Column, Layout, full, only, show_field, show_value, values
from lfp.report.formatting import reading_order


def _by_times_written(row: ResultRow) -> Any:
    return reading_order(row.words), -(row.n or 0), str(row.group)


def _as_given(row: ResultRow) -> int:  # noqa: ARG001 (the signature of an order)
    return 0


def _by_module(row: ResultRow) -> Any:
    """Totals first, those of the dictionaries on top, then layer by layer."""
    return (
        row.layer is not None,
        row.layer or 0,
        row.group != DICTIONARIES,
        str(row.group) in KINDS and KINDS.index(str(row.group)),
    )


def _by_size(row: ResultRow) -> Any:
    kind, _, name = str(row.group).partition(":")
    return row.metric, kind, -abs(row.value), name


def is_single(row: ResultRow) -> bool:
    """Return whether a row of section `ablation` is of one feature that was ablated alone."""
    return str(row.group).startswith("feature:")


def _is_group(row: ResultRow) -> bool:
    return not is_single(row) and row.group != "features"


_PROBE = {"target": "target", "inputs": "inputs", "model": "model", "split": "split"}
_TAU = (
    *full("tau", metric="tau", words="all")[:-1],
    Column("positive", formatting.estimate, {"metric": "tau", "words": "positive"}),
    Column("negative", formatting.estimate, {"metric": "tau", "words": "negative"}),
    Column("n", show_field("n"), {"metric": "tau", "words": "all"}),
)
_TAU_CEILING = (
    *full("within sign", metric="tau_within_sign")[:-1],
    Column("sign ceiling", formatting.estimate, {"metric": "sign_ceiling"}),
)
_CEILINGS = frozenset({"tau_within_sign", "sign_ceiling"})
_FLAGGED = frozenset({"words_flagged"})
_BY_DICTIONARY = frozenset({"tau_by_dictionary"})
_TOKENS_SHARED = frozenset({"words_sharing_tokens", "rows_dropped"})
_PAID = frozenset({"gap_over_paid", "gap_under_paid"})
_CONTINGENCY = ("related_and_weighty", "related_only", "weighty_only", "neither")
_FLUENCY = {
    "features": "features", "scale": "scale", "perplexity": "perplexity", "perplexity_before": "before",
    "perplexity_control": "controls’", "perplexity_ratio": "ratio", "repetition": "repetition",
    "repetition_control": "controls’ repetition", "removed_energy": "energy", "energy_ratio": "energy ratio",
}  # fmt: skip
"""What an ablation does to the text, by metric: the heads of its columns."""
_SAE = {"model": "model", "layer": "layer", "site": "site", "group": "dictionary"}
_SAE_COLUMNS = only("fvu", "fvu_tuned", "fvu_base", "l0", "dead_fraction", "mmcs", "ce_recovered", "mmcs_seeds")

LAYOUTS: Mapping[str, tuple[Layout, ...]] = {
    "reward": (Layout({"metric": "metric", "model": "model"}, full("mean")),),
    "implicit_reward": (
        Layout({"target": "measured", "group": "of"}, _TAU, frozenset({"tau"})),
        Layout({"target": "measured", "group": "of"}, _TAU_CEILING, _CEILINGS),
    ),
    "module_credits": (
        Layout(
            {"layer": "layer", "group": "modules"},
            (*full("share", metric="share"), *full("nats per token", metric="nats")[:2]),
            frozenset({"share", "nats"}),
            order=_by_module,
        ),
        Layout(
            {"layer": "layer", "group": "modules"},
            full("of what tells texts apart", metric="differences"),
            frozenset({"differences"}),
            order=_by_module,
        ),
        Layout(
            {"layer": "layer", "group": "modules, same position"},
            (
                *full("share", metric="share_same_position")[:2],
                *full("share by token", metric="share_by_token")[:2],
                *full("nats per token", metric="nats_same_position")[:2],
                Column("n", show_field("n"), {"metric": "share_same_position"}),
            ),
            frozenset({"share_same_position", "share_by_token", "nats_same_position"}),
            order=_by_module,
        ),
        Layout(
            {"layer": "layer", "group": "modules, same position"},
            full("of what tells texts apart", metric="differences_same_position"),
            frozenset({"differences_same_position"}),
            order=_by_module,
        ),
    ),
    "kendall_tau": (
        Layout(_PROBE, _TAU, frozenset({"tau"})),
        Layout(_PROBE, _TAU_CEILING, _CEILINGS),
        Layout(
            {**_PROBE, "group": "dictionary of each model"}, full("tau", metric="tau_by_dictionary"), _BY_DICTIONARY
        ),
        Layout(_PROBE, full("R2 of target", metric="r2_of_target"), frozenset({"r2_of_target"})),
        Layout({"metric": "tokens of held-out words", "target": "target"}, full("share"), _TOKENS_SHARED),
    ),
    "sign_accuracy": (
        Layout(
            _PROBE,
            tuple(
                Column(head, show, {"words": words})
                for words in ("all", "positive", "negative")
                for head, show in (
                    (words, formatting.estimate),
                    ("null 95 %", show_field("null_high")),
                    ("p", show_field("null_p")),
                )
            ),
        ),
    ),
    "preference_accuracy": (
        Layout(_PROBE, full("accuracy", metric="accuracy"), frozenset({"accuracy"})),
        Layout(
            {"target": "target", "inputs": "inputs", "model": "model"},
            full("length controlled", metric="accuracy_length_controlled"),
            frozenset({"accuracy_length_controlled"}),
        ),
    ),
    "token_sentiment": (
        Layout(
            {"words": "words", "group": "word"},
            (
                *values({"true": "reward", "predicted": "estimate, rescaled"}),
                Column("p of estimate", show_field("null_p"), {"metric": "predicted"}),
                Column("implicit reward", show_value, {"metric": "implicit"}),
                Column("p of implicit", show_field("null_p"), {"metric": "implicit"}),
                Column("in matched contexts", formatting.estimate, {"metric": "implicit_matched"}),
                Column("times written", show_field("n"), {"metric": "true"}),
            ),
            order=_by_times_written,
        ),
    ),
    "error_by_frequency": (Layout({"group": "times written"}, full("mean error")),),
    "forecast": (
        Layout({"metric": "features left out", "group": "of"}, full("figure"), frozenset({"r2", "rank_correlation"})),
        Layout(
            {"group": "features", "metric": "counted"},
            (Column("number", show_value), Column("of", show_field("n"))),
            frozenset({"count", "in_data_count"}),
        ),
    ),
    "disagreements": (
        Layout({"metric": "list", "group": "of"}, full("gap"), _PAID, _by_size),
        Layout({"metric": "words"}, (Column("flagged", show_value, {}), Column("of", show_field("n"), {})), _FLAGGED),
        Layout({"metric": "between", "group": "of"}, full("gap of ranks"), order=_by_size),
    ),
    "twins": (
        Layout(
            {"metric": "list", "group": "of"},
            (Column("difference, nats", formatting.estimate, {}), Column("p", show_field("null_p"), {})),
            frozenset({"preferred_more", "preferred_less"}),
            _by_size,
        ),
        Layout(
            {"metric": "words"},
            (
                Column("differing", show_value, {}),
                Column("of", show_field("n"), {}),
                Column("twins", show_field("null_mean"), {}),
            ),
            frozenset({"words_differing"}),
        ),
        Layout({"group": "part of the differences"}, (Column("share", show_value, {}),), frozenset({"part"})),
    ),
    "tuning": (
        Layout(
            {"group": "step"},
            values(
                {
                    "reward": "reward",
                    "margin": "margin",
                    "accuracy": "accuracy",
                    "kl": "KL, nats per token",
                    "chosen": "chosen, nats",
                    "rejected": "rejected, nats",
                    "entropy": "entropy, nats per token",
                    "loss": "loss",
                }
            ),
        ),
    ),
    "trajectory": (
        Layout({"group": "half of the final credit"}, full("step", metric="half"), frozenset({"half"})),
        Layout(
            {"group": "largest change of pace"},
            (
                Column("after step", formatting.estimate),
                Column("p", show_field("null_p")),
                Column("n", show_field("n")),
            ),
            frozenset({"change"}),
        ),
        Layout(
            {"group": "half of a feature's credit"}, full("step", metric="feature_half"), frozenset({"feature_half"})
        ),
        Layout(
            {"group": "a feature's largest change of pace"},
            (
                Column("after step", formatting.estimate),
                Column("p", show_field("null_p")),
                Column("n", show_field("n")),
            ),
            frozenset({"feature_change"}),
        ),
    ),
    "base_model": (
        Layout(
            {"group": "step"},
            values({"train_loss": "loss, nats per token", "held_out_bits": "held-out bits per byte"}),
            accepts=lambda row: row.group is not None,
        ),
    ),
    "divergence_by_layer": (Layout({"layer": "layer"}, only("divergence", "divergence_mlp", "relative_divergence")),),
    "drift": (
        Layout(
            {"inputs": "dictionary", "group": "status"},
            (Column("features", show_value, {"metric": "count"}), *full("share", metric="share")),
            frozenset({"count", "share"}),
        ),
        Layout(
            {"group": "status"},
            (
                Column("features", show_value, {"metric": "twin_count"}),
                Column("of", show_field("n"), {}),
                Column("twins’ mean", show_field("null_mean"), {}),
                Column("most", show_field("null_high"), {}),
                Column("p", show_field("null_p"), {}),
            ),
            frozenset({"twin_count"}),
        ),
        Layout({"group": "status"}, full("share of change"), frozenset({"carried_share"})),
        Layout({"group": "feature"}, full("change"), frozenset({"drifted_contribution"}), order=_by_size),
        Layout({"group": "feature"}, full("unexplained"), frozenset({"unexplained_contribution"}), order=_by_size),
    ),
    "label_scores": tuple(
        Layout({"group": "labels"}, full(metric, metric=metric), frozenset({metric}))
        for metric in ("detection", "fuzzing", "agreement")
    ),
    "label_agreement": (
        Layout(
            {"group": "labels"},
            tuple(Column(name.replace("_", " "), show_value, {"metric": name}) for name in _CONTINGENCY),
            frozenset(_CONTINGENCY),
        ),
        Layout({"group": "labels"}, full("odds ratio", metric="odds_ratio"), frozenset({"odds_ratio"})),
        Layout({"group": "labels"}, full("rank", metric="rank_correlation"), frozenset({"rank_correlation"})),
        Layout({"group": "labels"}, full("kappa", metric="kappa"), frozenset({"kappa"})),
        Layout({"group": "labels"}, full("accuracy", metric="accuracy"), frozenset({"accuracy"})),
    ),
    "labellers": tuple(
        Layout({"group": "labels"}, full(name, metric=metric), frozenset({metric}))
        for metric, name in (
            ("detection_difference", "detection, first less second"),
            ("shared_word", "a word in common"),
            ("kappa", "kappa of related"),
            ("accuracy", "same related"),
        )
    ),
    "activation_frequency": (Layout({"metric": "share of features", "group": "features and texts"}, full("share")),),
    "ablation": (
        Layout(
            {"group": "ablated", "layer": "layer", "site": "site"},
            (
                *only("before", "clean", "after", "effect"),
                Column("controls’ mean", show_value, {"metric": "control"}),
                *only("contrast"),
                Column("controls’ 95 %", show_field("null_high"), {"metric": "contrast"}),
                Column("p", show_field("null_p"), {"metric": "contrast"}),
                Column("n", show_field("n"), {"metric": "effect"}),
                Column("predicted", show_value, {"metric": "predicted"}),
            ),
            order=_as_given,
            accepts=_is_group,
        ),
        Layout(
            {"group": "ablated", "layer": "layer", "site": "site"},
            values(_FLUENCY),
            order=_as_given,
            accepts=_is_group,
        ),
        Layout(
            {"metric": "single features"},
            full("figure"),
            frozenset({"predicted_measured", "inert_count", "inert_share"}),
        ),
        Layout(
            {"group": "ablated alone", "layer": "layer", "site": "site"},
            (
                Column("predicted", show_value, {"metric": "predicted"}),
                *only("before", "after", "effect", "contrast"),
                Column("controls’ 95 %", show_field("null_high"), {"metric": "contrast"}),
                Column("p", show_field("null_p"), {"metric": "contrast"}),
            ),
            frozenset({"predicted", "before", "after", "effect", "contrast"}),
            order=_as_given,
            accepts=is_single,
        ),
        Layout(
            {"group": "large weight, no effect", "layer": "layer", "site": "site"},
            (Column("predicted effect", show_value),),
            frozenset({"inert"}),
            order=_by_size,
        ),
    ),
    "pca_explained": (Layout({"group": "component"}, full("variance explained")),),
    "sae_check": (
        Layout(
            {"model": "model", "layer": "layer", "site": "site", "group": "dictionary"},
            only("fvu", "l0", "dead_fraction", "input_scale"),
        ),
    ),
    "sae_quality": (Layout(_SAE, _SAE_COLUMNS),),
    "differences": (
        Layout(
            {"layer": "layer", "site": "site", "group": "direction: tokens that it raises"},
            (
                Column("mean’s share of the square", formatting.estimate, {"metric": "mean_share"}),
                Column("share of the variance", formatting.estimate, {"metric": "component_share"}),
            ),
        ),
    ),
    "latent_scaling": (
        Layout(
            {"model": "features of", "layer": "layer", "site": "site"},
            (
                Column("that model alone", show_value, {"metric": "exclusive"}),
                Column("features", show_field("n"), {"metric": "exclusive"}),
                *values({"median_ratio": "median ratio", "median_ratio_error": "on the error"}),
            ),
        ),
    ),
    "sae_sweep": (Layout(_SAE, _SAE_COLUMNS),),
    "triples": (Layout({"metric": "", "group": "reason"}, full("triples")),),
    "cost": (
        Layout(
            {"group": "stage"},
            values({"minutes": "minutes", "cpu_minutes": "CPU minutes", "peak_rss_mb": "peak MB"}),
            frozenset({"minutes", "cpu_minutes", "peak_rss_mb"}),
            order=_as_given,
        ),
        Layout(
            {"group": "machine"},
            values({"cores": "cores", "memory_gb": "memory, GB", "gpus": "GPUs"}),
            frozenset({"cores", "memory_gb", "gpus"}),
            order=_as_given,
        ),
    ),
}
