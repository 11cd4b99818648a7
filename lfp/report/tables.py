"""Tables of the report: which rows stand in which line and column, and how they are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lfp.evaluation.results import DICTIONARIES, KINDS, ResultRow
from lfp.report import formatting
from lfp.report.formatting import digits_for, number, pick, plain, reading_order, sort_rows
from lfp.util.sanitize import visible
from lfp.util.types import SITE_NAMES

Order = Callable[[ResultRow], Any]
"""What lines are sorted by, from the first row of each."""


@dataclass(frozen=True)
class TextTable:
    """A table as text: heads, rows of cells, and which columns are numbers (set to the right)."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    are_figures: tuple[bool, ...]


@dataclass(frozen=True)
class Column:
    """A column that shows something of the first row of a line with the keys in `where`."""

    head: str
    show: Callable[[ResultRow], str]
    where: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """One table: a line for each combination of `keys`, which are given the heads of their columns, and its columns.

    `metrics` and `accepts` say which rows it takes, all where there are none.
    """

    keys: Mapping[str, str]
    columns: tuple[Column, ...]
    metrics: frozenset[str] = frozenset()
    order: Order | None = None
    accepts: Callable[[ResultRow], bool] | None = None


def tables(section: str, rows: Sequence[ResultRow]) -> list[TextTable]:
    """Return the tables of a section. Rows that no column shows stand in a general table at the end."""
    found, rest = [], list(rows)
    for layout in LAYOUTS.get(section, ()):
        wanted = [row for row in rest if not layout.metrics or row.metric in layout.metrics]
        table, shown = _lay_out([row for row in wanted if layout.accepts is None or layout.accepts(row)], layout)
        rest = [row for row in rest if id(row) not in shown]
        found += [table] if shown else []
    while rest:  # once, unless two rows have the same keys
        keys = {key: key for key in _KEYS if any(getattr(row, key) is not None for row in rest)}
        if any(row.probe_id is not None for row in rest):
            keys["probe_id"] = "probe"
        table, shown = _lay_out(rest, Layout(keys, _full("value")))
        rest = [row for row in rest if id(row) not in shown]
        found.append(table)
    return found


_KEYS = ("target", "model", "inputs", "layer", "site", "words", "split", "group", "metric")


def _lay_out(rows: Sequence[ResultRow], layout: Layout) -> tuple[TextTable, set[int]]:
    """Return the table without its empty columns, and which rows it shows (by identity)."""
    if not any(row.site not in (None, "mlp_out") for row in rows):  # then sites go without saying
        layout = replace(layout, keys={key: head for key, head in layout.keys.items() if key != "site"})
    lines: dict[tuple[Any, ...], list[ResultRow]] = {}
    for row in sorted(rows, key=layout.order) if layout.order else sort_rows(rows, *layout.keys):
        lines.setdefault(tuple(getattr(row, key) for key in layout.keys), []).append(row)
    cells, shown = [], set()
    for keys, of_line in lines.items():
        line = [_key_text(name, key) for name, key in zip(layout.keys, keys, strict=True)]
        for column in layout.columns:
            first = pick(of_line, **column.where)
            line.append("" if first is None else column.show(first))
            shown |= set() if first is None else {id(first)}
        if any(line[len(keys) :]):
            cells.append(line)
    heads = [*layout.keys.values(), *(column.head for column in layout.columns)]
    used = [place for place in range(len(heads)) if any(line[place] for line in cells)]
    table = TextTable(
        tuple(heads[place] for place in used),
        tuple(tuple(line[place] for place in used) for line in cells),
        tuple(place >= len(layout.keys) for place in used),
    )
    return table, shown


def _key_text(name: str, key: Any) -> str:
    return "" if key is None else visible(SITE_NAMES.get(key, str(key)) if name == "site" else str(key))


def _value(row: ResultRow) -> str:
    """The value, with the decimals that its interval deserves."""
    if row.ci_low is None or row.ci_high is None or float(row.value).is_integer():
        return number(row.value)
    return plain(row.value, digits_for(row.ci_low, row.ci_high))


def _interval(row: ResultRow) -> str:
    if row.ci_low is None or row.ci_high is None:
        return ""
    if abs(row.value) > 1 and float(row.value).is_integer():  # a count
        return f"{number(row.ci_low)} to {number(row.ci_high)}"
    return formatting.interval(row.ci_low, row.ci_high)


def _field(name: str) -> Callable[[ResultRow], str]:
    """Return what shows a field of a row; empty where the row has none."""
    return lambda row: "" if getattr(row, name) is None else number(getattr(row, name))


def _full(head: str, **where: str) -> tuple[Column, ...]:
    """Everything known of one row: value, interval, null and what is behind it."""
    return (
        Column(head, _value, where),
        Column("95 % interval", _interval, where),
        Column("null mean", _field("null_mean"), where),
        Column("null 95 %", _field("null_high"), where),
        Column("p", _field("null_p"), where),
        Column("n", _field("n"), where),
    )


def _values(heads: Mapping[str, str]) -> tuple[Column, ...]:
    """A column per metric under its head, the value alone."""
    return tuple(Column(head, _value, {"metric": metric}) for metric, head in heads.items())


def _only(*metrics: str) -> tuple[Column, ...]:
    """A column per metric, the value alone or with its interval."""
    return tuple(Column(metric, formatting.estimate, {"metric": metric}) for metric in metrics)


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
    *_full("tau", metric="tau", words="all")[:-1],
    Column("positive", formatting.estimate, {"metric": "tau", "words": "positive"}),
    Column("negative", formatting.estimate, {"metric": "tau", "words": "negative"}),
    Column("n", _field("n"), {"metric": "tau", "words": "all"}),
)
_TAU_CEILING = (
    *_full("within sign", metric="tau_within_sign")[:-1],
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
_SAE = {"model": "model", "layer": "layer", "site": "site", "group": "SAE"}
_SAE_COLUMNS = _only("fvu", "fvu_tuned", "fvu_base", "l0", "dead_fraction", "mmcs", "ce_recovered", "mmcs_seeds")

LAYOUTS: Mapping[str, tuple[Layout, ...]] = {
    "reward": (Layout({"metric": "metric", "model": "model"}, _full("mean")),),
    "implicit_reward": (
        Layout({"target": "measured", "group": "of"}, _TAU, frozenset({"tau"})),
        Layout({"target": "measured", "group": "of"}, _TAU_CEILING, _CEILINGS),
    ),
    "module_credits": (
        Layout(
            {"layer": "layer", "group": "modules"},
            (*_full("share", metric="share"), *_full("nats per token", metric="nats")[:2]),
            frozenset({"share", "nats"}),
            order=_by_module,
        ),
        Layout(
            {"layer": "layer", "group": "modules"},
            _full("of what tells texts apart", metric="differences"),
            frozenset({"differences"}),
            order=_by_module,
        ),
        Layout(
            {"layer": "layer", "group": "modules, same position"},
            (
                *_full("share", metric="share_same_position")[:2],
                *_full("nats per token", metric="nats_same_position")[:2],
                Column("n", _field("n"), {"metric": "share_same_position"}),
            ),
            frozenset({"share_same_position", "nats_same_position"}),
            order=_by_module,
        ),
        Layout(
            {"layer": "layer", "group": "modules, same position"},
            _full("of what tells texts apart", metric="differences_same_position"),
            frozenset({"differences_same_position"}),
            order=_by_module,
        ),
    ),
    "kendall_tau": (
        Layout(_PROBE, _TAU, frozenset({"tau"})),
        Layout(_PROBE, _TAU_CEILING, _CEILINGS),
        Layout(
            {**_PROBE, "group": "dictionary of each model"}, _full("tau", metric="tau_by_dictionary"), _BY_DICTIONARY
        ),
        Layout(_PROBE, _full("R2 of target", metric="r2_of_target"), frozenset({"r2_of_target"})),
        Layout({"metric": "tokens of held-out words", "target": "target"}, _full("share"), _TOKENS_SHARED),
    ),
    "sign_accuracy": (
        Layout(
            _PROBE,
            tuple(
                Column(head, show, {"words": words})
                for words in ("all", "positive", "negative")
                for head, show in (
                    (words, formatting.estimate),
                    ("null 95 %", _field("null_high")),
                    ("p", _field("null_p")),
                )
            ),
        ),
    ),
    "preference_accuracy": (
        Layout(_PROBE, _full("accuracy", metric="accuracy"), frozenset({"accuracy"})),
        Layout(
            {"target": "target", "inputs": "inputs", "model": "model"},
            _full("length controlled", metric="accuracy_length_controlled"),
            frozenset({"accuracy_length_controlled"}),
        ),
    ),
    "token_sentiment": (
        Layout(
            {"words": "words", "group": "word"},
            (
                *_values({"true": "reward", "predicted": "estimate, rescaled"}),
                Column("p of estimate", _field("null_p"), {"metric": "predicted"}),
                Column("implicit reward", _value, {"metric": "implicit"}),
                Column("p of implicit", _field("null_p"), {"metric": "implicit"}),
                Column("in matched contexts", formatting.estimate, {"metric": "implicit_matched"}),
                Column("times written", _field("n"), {"metric": "true"}),
            ),
            order=_by_times_written,
        ),
    ),
    "error_by_frequency": (Layout({"group": "times written"}, _full("mean error")),),
    "forecast": (
        Layout({"metric": "features left out", "group": "of"}, _full("figure"), frozenset({"r2", "rank_correlation"})),
        Layout(
            {"group": "features", "metric": "counted"},
            (Column("number", _value), Column("of", _field("n"))),
            frozenset({"count", "in_data_count"}),
        ),
    ),
    "disagreements": (
        Layout({"metric": "list", "group": "of"}, _full("gap"), _PAID, _by_size),
        Layout({"metric": "words"}, (Column("flagged", _value, {}), Column("of", _field("n"), {})), _FLAGGED),
        Layout({"metric": "between", "group": "of"}, _full("gap of ranks"), order=_by_size),
    ),
    "twins": (
        Layout(
            {"metric": "list", "group": "of"},
            (Column("difference, nats", formatting.estimate, {}), Column("p", _field("null_p"), {})),
            frozenset({"preferred_more", "preferred_less"}),
            _by_size,
        ),
        Layout(
            {"metric": "words"},
            (Column("differing", _value, {}), Column("of", _field("n"), {}), Column("twins", _field("null_mean"), {})),
            frozenset({"words_differing"}),
        ),
        Layout({"group": "part of the differences"}, (Column("share", _value, {}),), frozenset({"part"})),
    ),
    "tuning": (
        Layout(
            {"group": "step"},
            _values(
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
        Layout({"group": "half of the final credit"}, _full("step", metric="half"), frozenset({"half"})),
        Layout(
            {"group": "largest change of pace"},
            (Column("after step", _value), Column("p", _field("null_p")), Column("n", _field("n"))),
            frozenset({"change"}),
        ),
    ),
    "base_model": (
        Layout(
            {"group": "step"},
            _values({"train_loss": "loss, nats per token", "held_out_bits": "held-out bits per byte"}),
            accepts=lambda row: row.group is not None,
        ),
    ),
    "divergence_by_layer": (Layout({"layer": "layer"}, _only("divergence", "divergence_mlp", "relative_divergence")),),
    "drift": (
        Layout(
            {"inputs": "dictionary", "group": "status"},
            (Column("features", _value, {"metric": "count"}), *_full("share", metric="share")),
            frozenset({"count", "share"}),
        ),
        Layout({"group": "status"}, _full("share of change"), frozenset({"carried_share"})),
        Layout({"group": "feature"}, _full("change"), frozenset({"drifted_contribution"}), order=_by_size),
        Layout({"group": "feature"}, _full("unexplained"), frozenset({"unexplained_contribution"}), order=_by_size),
    ),
    "label_scores": tuple(
        Layout({"group": "labels"}, _full(metric, metric=metric), frozenset({metric}))
        for metric in ("detection", "fuzzing", "agreement")
    ),
    "label_agreement": (
        Layout(
            {"group": "labels"},
            tuple(Column(name.replace("_", " "), _value, {"metric": name}) for name in _CONTINGENCY),
            frozenset(_CONTINGENCY),
        ),
        Layout({"group": "labels"}, _full("odds ratio", metric="odds_ratio"), frozenset({"odds_ratio"})),
        Layout({"group": "labels"}, _full("rank", metric="rank_correlation"), frozenset({"rank_correlation"})),
        Layout({"group": "labels"}, _full("kappa", metric="kappa"), frozenset({"kappa"})),
        Layout({"group": "labels"}, _full("accuracy", metric="accuracy"), frozenset({"accuracy"})),
    ),
    "activation_frequency": (Layout({"metric": "share of features", "group": "features and texts"}, _full("share")),),
    "ablation": (
        Layout(
            {"group": "ablated", "layer": "layer", "site": "site"},
            (
                *_only("before", "clean", "after", "effect"),
                Column("controls’ mean", _value, {"metric": "control"}),
                *_only("contrast"),
                Column("controls’ 95 %", _field("null_high"), {"metric": "contrast"}),
                Column("p", _field("null_p"), {"metric": "contrast"}),
                Column("n", _field("n"), {"metric": "effect"}),
                Column("predicted", _value, {"metric": "predicted"}),
            ),
            order=_as_given,
            accepts=_is_group,
        ),
        Layout(
            {"group": "ablated", "layer": "layer", "site": "site"},
            _values(_FLUENCY),
            order=_as_given,
            accepts=_is_group,
        ),
        Layout(
            {"metric": "single features"},
            _full("figure"),
            frozenset({"predicted_measured", "inert_count", "inert_share"}),
        ),
        Layout(
            {"group": "ablated alone", "layer": "layer", "site": "site"},
            (
                Column("predicted", _value, {"metric": "predicted"}),
                *_only("before", "after", "effect", "contrast"),
                Column("controls’ 95 %", _field("null_high"), {"metric": "contrast"}),
                Column("p", _field("null_p"), {"metric": "contrast"}),
            ),
            frozenset({"predicted", "before", "after", "effect", "contrast"}),
            order=_as_given,
            accepts=is_single,
        ),
        Layout(
            {"group": "large weight, no effect", "layer": "layer", "site": "site"},
            (Column("predicted effect", _value),),
            frozenset({"inert"}),
            order=_by_size,
        ),
    ),
    "pca_explained": (Layout({"group": "component"}, _full("variance explained")),),
    "sae_check": (
        Layout(
            {"model": "model", "layer": "layer", "site": "site", "group": "SAE"},
            _only("fvu", "l0", "dead_fraction", "input_scale"),
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
                Column("that model alone", _value, {"metric": "exclusive"}),
                Column("features", _field("n"), {"metric": "exclusive"}),
                *_values({"median_ratio": "median ratio", "median_ratio_error": "on the error"}),
            ),
        ),
    ),
    "sae_sweep": (Layout(_SAE, _SAE_COLUMNS),),
    "triples": (Layout({"metric": "", "group": "reason"}, _full("triples")),),
    "cost": (
        Layout(
            {"group": "stage"},
            _values({"minutes": "minutes", "cpu_minutes": "CPU minutes", "peak_rss_mb": "peak MB"}),
            frozenset({"minutes", "cpu_minutes", "peak_rss_mb"}),
            order=_as_given,
        ),
        Layout(
            {"group": "machine"},
            _values({"cores": "cores", "memory_gb": "memory, GB", "gpus": "GPUs"}),
            frozenset({"cores", "memory_gb", "gpus"}),
            order=_as_given,
        ),
    ),
}
