"""Tables of the report: which figures stand in which column, row by row, and how they are laid out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lfp.evaluation.results import ResultRow
from lfp.report.formatting import in_order, interval, is_single, number, place, with_interval
from lfp.util.sanitize import visible


@dataclass(frozen=True)
class Shown:
    """A table as text: heads, rows of cells, and which columns are figures (set to the right)."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    are_figures: tuple[bool, ...]


def tables(report_row: str, figures: Sequence[ResultRow]) -> list[Shown]:
    """The tables of a row of the report. Figures that no column takes stand in a table of their own at the end."""
    shown, rest = [], list(figures)
    for layout in LAYOUTS.get(report_row, ()):
        mine = [one for one in rest if _is_of(one, layout)]
        table, taken = _laid_out(mine, layout)
        rest = [one for one in rest if id(one) not in taken]
        shown += [table] if taken else []
    while rest:  # once, unless two figures have the same keys
        table, taken = _laid_out(rest, general(rest))
        rest = [one for one in rest if id(one) not in taken]
        shown.append(table)
    return shown


def _is_of(figure: ResultRow, layout: Layout) -> bool:
    is_named = not layout.metrics or figure.metric in layout.metrics
    return is_named and (layout.takes is None or layout.takes(figure))


def _laid_out(figures: Sequence[ResultRow], layout: Layout) -> tuple[Shown, set[int]]:
    """The table, and which figures it shows (by identity): the first that a column asks for, of every line."""
    places: dict[tuple[Any, ...], list[ResultRow]] = {}
    ordered = sorted(figures, key=layout.order) if layout.order else in_order(figures, *layout.keys)
    for one in ordered:
        places.setdefault(tuple(getattr(one, key) for key in layout.keys), []).append(one)
    picked = [[_first(line, column) for column in layout.columns] for line in places.values()]
    cells = [
        [*map(_name, place), *("" if one is None else c.show(one) for one, c in zip(line, layout.columns, strict=True))]
        for place, line in zip(places, picked, strict=True)
        if any(one is not None for one in line)
    ]
    heads = [*layout.keys.values(), *(column.head for column in layout.columns)]
    used = [i for i in range(len(heads)) if any(row[i] for row in cells)]
    shown = Shown(
        tuple(heads[i] for i in used),
        tuple(tuple(row[i] for i in used) for row in cells),
        tuple(i >= len(layout.keys) for i in used),
    )
    return shown, {id(one) for line in picked for one in line if one is not None}


def _first(line: Sequence[ResultRow], column: Column) -> ResultRow | None:
    return next((one for one in line if all(getattr(one, k) == v for k, v in column.where.items())), None)


def _name(key: Any) -> str:
    return "" if key is None else visible(str(key))


_KEYS = ("target", "model", "inputs", "layer", "words", "split", "group", "metric")


@dataclass(frozen=True)
class Column:
    """A column that shows something of the one figure of a line which has the keys in `where`."""

    head: str
    show: Callable[[ResultRow], str]
    where: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """One table: a line for each combination of `keys`, which are named for the reader, and its columns.

    `metrics` and `takes` say which figures it takes (all where there are none); `order` sorts lines by the first figure
    of each.
    """

    keys: Mapping[str, str]
    columns: tuple[Column, ...]
    metrics: frozenset[str] = frozenset()
    order: Callable[[ResultRow], Any] | None = None
    takes: Callable[[ResultRow], bool] | None = None


def _value(figure: ResultRow) -> str:
    return number(figure.value)


def _of(name: str) -> Callable[[ResultRow], str]:
    return lambda figure: "" if getattr(figure, name) is None else number(getattr(figure, name))


def _p(figure: ResultRow) -> str:
    p = figure.null_p
    return "" if p is None else f"{p:.4f}"


def general(figures: Sequence[ResultRow]) -> Layout:
    """A line a figure: every key, the figure, its interval and its null."""
    keys = {key: key for key in _KEYS if any(getattr(one, key) is not None for one in figures)}
    if any(one.probe_id is not None for one in figures):
        keys["probe_id"] = "probe"
    return Layout(keys, _full("value"))


def _full(head: str, **where: str) -> tuple[Column, ...]:
    """Everything known of one figure: value, interval, null and what is behind it."""
    return (
        Column(head, _value, where),
        Column("95 % interval", interval, where),
        Column("null", _of("null_mean"), where),
        Column("null 95 %", _of("null_high"), where),
        Column("p", _p, where),
        Column("n", _of("n"), where),
    )


def _only(*metrics: str) -> tuple[Column, ...]:
    """A column a metric, the figure alone or with its interval."""
    return tuple(Column(metric, with_interval, {"metric": metric}) for metric in metrics)


def _by_n(figure: ResultRow) -> Any:
    return place(figure.words), -(figure.n or 0), str(figure.group)


def _is_of_group(figure: ResultRow) -> bool:
    return not is_single(figure) and figure.group != "features"


def _is_of_curve(figure: ResultRow) -> bool:
    return figure.group is not None


def _as_given(figure: ResultRow) -> int:  # noqa: ARG001 (the form of an order)
    return 0


def _by_size(figure: ResultRow) -> Any:
    kind, _, name = str(figure.group).partition(":")
    return figure.metric, kind, -abs(figure.value or 0.0), name


_PROBE = {"target": "target", "inputs": "inputs", "model": "model", "split": "split"}


_TAU = (
    *_full("tau", metric="tau", words="all")[:-1],
    Column("positive", with_interval, {"metric": "tau", "words": "positive"}),
    Column("negative", with_interval, {"metric": "tau", "words": "negative"}),
    Column("n", _of("n"), {"metric": "tau", "words": "all"}),
)


_TAU_CEILING = (
    *_full("within sign", metric="tau_within_sign")[:-1],
    Column("sign ceiling", with_interval, {"metric": "sign_ceiling"}),
)


_PAID = frozenset({"gap_over_paid", "gap_under_paid"})


_CONTINGENCY = ("related_and_weighty", "related_only", "weighty_only", "neither")


_SAE = {"model": "model", "layer": "layer", "group": "autoencoder"}


_SAE_COLUMNS = _only("fvu", "l0", "dead_fraction", "mmcs", "ce_recovered", "mmcs_seeds")


LAYOUTS: Mapping[str, tuple[Layout, ...]] = {
    "reward": (Layout({"metric": "metric", "model": "model"}, _full("mean")),),
    "implicit_reward": (
        Layout({"target": "measured", "group": "of"}, _TAU, frozenset({"tau"})),
        Layout({"target": "measured", "group": "of"}, _TAU_CEILING, frozenset({"tau_within_sign", "sign_ceiling"})),
    ),
    "kendall_tau": (
        Layout(_PROBE, _TAU, frozenset({"tau"})),
        Layout(_PROBE, _TAU_CEILING, frozenset({"tau_within_sign", "sign_ceiling"})),
    ),
    "sign_accuracy": (
        Layout(
            _PROBE,
            tuple(
                Column(head, show, {"words": words})
                for words in ("all", "positive", "negative")
                for head, show in ((words, with_interval), ("null 95 %", _of("null_high")), ("p", _p))
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
                Column("true", _value, {"metric": "true"}),
                Column("estimate, rescaled", _value, {"metric": "predicted"}),
                Column("p of estimate", _p, {"metric": "predicted"}),
                Column("implicit reward", _value, {"metric": "implicit"}),
                Column("p of implicit", _p, {"metric": "implicit"}),
                Column("in matched contexts", with_interval, {"metric": "implicit_matched"}),
                Column("times written", _of("n"), {"metric": "true"}),
            ),
            order=_by_n,
        ),
    ),
    "error_by_frequency": (Layout({"group": "times written"}, _full("mean error")),),
    "disagreements": (
        Layout({"metric": "list", "group": "of"}, _full("gap"), _PAID, _by_size),
        Layout({"metric": "between", "group": "of"}, _full("gap of ranks"), order=_by_size),
    ),
    "base_model": (
        Layout(
            {"group": "step"},
            (
                Column("loss, nats a token", _value, {"metric": "train_loss"}),
                Column("held-out bits a byte", _value, {"metric": "held_out_bits"}),
            ),
            takes=_is_of_curve,
        ),
    ),
    "divergence_by_layer": (Layout({"layer": "layer"}, _only("divergence", "divergence_mlp", "relative_divergence")),),
    "drift": (
        Layout(
            {"inputs": "dictionary", "group": "status"},
            (Column("features", _value, {"metric": "count"}), *_full("share", metric="share")),
            frozenset({"count", "share"}),
        ),
        Layout({"group": "status"}, _full("share carried"), frozenset({"carried_share"})),
        Layout({"group": "feature"}, _full("drifted"), frozenset({"drifted_contribution"}), order=_by_size),
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
            {"group": "taken out", "layer": "layer"},
            (
                *_only("before", "after", "effect"),
                Column("controls' mean", _value, {"metric": "control"}),
                Column("controls' 95 %", _of("null_high"), {"metric": "effect"}),
                Column("p", _p, {"metric": "effect"}),
                Column("n", _of("n"), {"metric": "effect"}),
                Column("predicted", _value, {"metric": "predicted"}),
            ),
            order=_as_given,
            takes=_is_of_group,
        ),
        Layout(
            {"group": "taken out", "layer": "layer"},
            (
                Column("features", _value, {"metric": "features"}),
                Column("scale", _value, {"metric": "scale"}),
                Column("perplexity", _value, {"metric": "perplexity"}),
                Column("before", _value, {"metric": "perplexity_before"}),
                Column("controls'", _value, {"metric": "perplexity_control"}),
                Column("ratio", _value, {"metric": "perplexity_ratio"}),
                Column("repetition", _value, {"metric": "repetition"}),
                Column("controls' repetition", _value, {"metric": "repetition_control"}),
                Column("energy", _value, {"metric": "removed_energy"}),
                Column("energy, times controls'", _value, {"metric": "energy_ratio"}),
            ),
            order=_as_given,
            takes=_is_of_group,
        ),
        Layout(
            {"metric": "of single features"},
            _full("figure"),
            frozenset({"predicted_measured", "inert_count", "inert_share"}),
        ),
        Layout(
            {"group": "taken out alone", "layer": "layer"},
            (
                Column("predicted", _value, {"metric": "predicted"}),
                *_only("before", "after", "effect"),
                Column("controls' 95 %", _of("null_high"), {"metric": "effect"}),
                Column("p", _p, {"metric": "effect"}),
            ),
            frozenset({"predicted", "before", "after", "effect"}),
            order=_as_given,
            takes=is_single,
        ),
        Layout(
            {"group": "important but inert", "layer": "layer"},
            (Column("effect predicted", _value),),
            frozenset({"inert"}),
            order=_by_size,
        ),
    ),
    "pca_explained": (Layout({"group": "component"}, _full("variance explained")),),
    "sae_quality": (Layout(_SAE, _SAE_COLUMNS),),
    "sae_sweep": (Layout(_SAE, _SAE_COLUMNS),),
    "triples": (Layout({"metric": "", "group": "reason"}, _full("triples")),),
    "cost": (
        Layout(
            {"group": "stage"},
            (
                Column("minutes", _value, {"metric": "minutes"}),
                Column("processor minutes", _value, {"metric": "cpu_minutes"}),
                Column("peak MB", _value, {"metric": "peak_rss_mb"}),
            ),
            frozenset({"minutes", "cpu_minutes", "peak_rss_mb"}),
            order=_as_given,
        ),
        Layout(
            {"group": "machine"},
            (
                Column("cores", _value, {"metric": "cores"}),
                Column("memory, GB", _value, {"metric": "memory_gb"}),
                Column("GPUs", _value, {"metric": "gpus"}),
            ),
            frozenset({"cores", "memory_gb", "gpus"}),
            order=_as_given,
        ),
    ),
}
