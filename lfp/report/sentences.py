"""One plain sentence for each row of the report, made from its figures: what was measured, and what it says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lfp.evaluation.results import ResultRow
from lfp.report.formatting import number, with_interval

ABSENT = "This run has no such figure."


def sentence(report_row: str, figures: Sequence[ResultRow]) -> str:
    """What a row of the report says."""
    if not figures:
        return ABSENT
    return _SENTENCES[report_row](figures) if report_row in _SENTENCES else "Figures of the run."


def pick(figures: Sequence[ResultRow], **keys: Any) -> ResultRow | None:
    """The first figure with these keys."""
    return next((one for one in figures if all(getattr(one, key) == value for key, value in keys.items())), None)


def headline(report: Mapping[str, Sequence[ResultRow]], target: str | None) -> list[str]:
    """The run in a few sentences: the reward, what was learned of it, and tuned against base; `target` of its probe."""
    taus = [one for one in report.get("kendall_tau", ()) if one.split != "random_rows"]
    found = [
        _reward(report["reward"]) if report.get("reward") else "",
        _implicit(report["implicit_reward"]) if report.get("implicit_reward") else "",
        _compared(taus, "tau", _TAU_OF, words="all", target=target),
        _compared(taus, "tau", _DELTA_OF, words="all", target="delta") if target != "delta" else "",
        _compared(report.get("preference_accuracy", ()), "accuracy", _ACCURACY_OF, target="preference"),
    ]
    return list(dict.fromkeys(one for one in found if one))


_TAU_OF = "Words the probe never saw, ranked from the features of"
_DELTA_OF = "The paper's probe of activation differences, judged the same way on the features of"
_ACCURACY_OF = "The chosen response of pairs it never saw, told from the features of"


def _compared(figures: Sequence[ResultRow], metric: str, of: str, **keys: str | None) -> str:
    """Tuned, base and their difference, each with its own autoencoder, and the null of the first."""
    tuned = pick(figures, metric=metric, inputs="sae", model="tuned", **keys)
    base = pick(figures, metric=metric, inputs="base_sae", model="base", **keys)
    difference = pick(figures, metric=metric, inputs="sae", model="difference", **keys)
    if tuned is None or base is None or difference is None:
        return ""
    score = "tau" if metric == "tau" else "accuracy"
    return (
        f"{of} the tuned model: {score} {with_interval(tuned)}; of the base model: {with_interval(base)}; difference "
        f"{_signed(difference)}: {_verdict(difference)}{_chance(tuned)}"
    )


def _value(figure: ResultRow) -> float:
    """The figure, not a number where the run has none."""
    value = figure.value
    return math.nan if value is None else float(value)


def _passes(figure: ResultRow) -> bool:
    """Whether the figure is above the 95th percentile of its null."""
    high = figure.null_high
    return high is not None and _value(figure) > high


def _verdict(difference: ResultRow) -> str:
    low, high = difference.ci_low, difference.ci_high
    if low is None or high is None:
        return "its interval is not known."
    if low > 0:
        return "the tuned model's features say more than the base model's."
    if high < 0:
        return "the base model's features, which no feedback reached, say more than the tuned model's."
    return "zero is within the interval, so the base model may have known as much before any feedback."


def _chance(figure: ResultRow, whose: str = "the tuned model's") -> str:
    high = figure.null_high
    if high is None:
        return ""
    side = "above" if _passes(figure) else "not above"
    return f" Shuffled feedback reaches {number(high)} one time in twenty; {whose} figure is {side} it."


def _signed(figure: ResultRow) -> str:
    text = with_interval(figure)
    return f"+{text}" if (figure.value or 0) > 0 else text


def _reward(figures: Sequence[ResultRow]) -> str:
    base, tuned, change = (
        pick(figures, metric="reward", model=model, group=None) for model in ("base", "tuned", "difference")
    )
    kl = pick(figures, metric="kl_per_token")
    strayed = f" The tuned model strays {number(kl.value)} nats a token from the base." if kl else ""
    if base is None or tuned is None or change is None:
        return f"Mean reward of completions.{strayed}"
    return (
        f"Tuning took the mean reward of completions from {number(base.value)} to {number(tuned.value)}, "
        f"a change of {_signed(change)}.{strayed}"
    )


def _implicit(figures: Sequence[ResultRow]) -> str:
    tau = pick(figures, metric="tau", words="all", target="implicit_reward")
    if tau is None:
        return "What tuning made likelier, against the true feedback; no probe is involved."
    return (
        "What tuning made likelier word by word, which needs no probe, agrees with the true feedback with tau "
        f"{with_interval(tau)}.{_chance(tau, 'this')}"
    )


def _taus(figures: Sequence[ResultRow]) -> str:
    held = [one for one in figures if one.metric == "tau" and one.words == "all"]
    judged = [one for one in held if one.model != "difference" and one.split != "random_rows"]
    passed = [one for one in judged if _passes(one)]
    return (
        "How well each probe orders held-out words by their true feedback (Kendall's tau); controls beside it. "
        f"{len(passed)} of {len(judged)} probes pass the 95th percentile of their null. A probe that knew signs and "
        "nothing of strength would reach its sign ceiling."
    )


def _signs(figures: Sequence[ResultRow]) -> str:
    tuned = pick(figures, model="tuned", inputs="sae", words="all", target="delta")
    of_tuned = f" The paper's probe on the tuned model: {with_interval(tuned)}." if tuned else ""
    return f"How often a probe's estimate has the sign of the word's true feedback.{of_tuned}"


def _preference(figures: Sequence[ResultRow]) -> str:
    length = pick(figures, metric="accuracy_of_length")
    by_length = f" The longer side was the chosen one in {number(length.value)} of the pairs." if length else ""
    return f"How often the chosen response of a held-out pair is told from the rejected one.{by_length}"


def _words(figures: Sequence[ResultRow]) -> str:
    n = len({one.group for one in figures})
    return (
        f"The {n} scored words the tuned model writes most. Estimates are the headline probe's by the fold that never "
        "saw the word, laid on the lexicon's range; p is the share of scored words as far to the word's true side."
    )


def _errors(figures: Sequence[ResultRow]) -> str:
    whole = pick(figures, group="all")
    of_all = f" Over all words: {with_interval(whole)}" if whole else ""
    null = f", and {number(whole.null_mean)} with estimates dealt anew." if whole else ""
    return (
        "Mean distance of the rescaled estimate from the true value, by how often the tuned model wrote the word; "
        f"below the null's mean is good.{of_all}{null}"
    )


def _disagreements(figures: Sequence[ResultRow]) -> str:
    paid = {side: _furthest([one for one in figures if one.metric == f"gap_{side}_paid"]) for side in _PAID}
    ranked = _furthest([one for one in figures if one.metric not in {f"gap_{side}_paid" for side in _PAID}])
    parts = [
        "Where two judges put the same text or word furthest apart, as gaps of percentile ranks, first less second."
    ]
    if ranked:
        parts.append(
            f"The largest is {number(ranked.value)}, {ranked.group or ''}. The null of the k-th gap is the "
            "k-th with ranks dealt anew, so gaps below it say that the two agree on the whole."
        )
    named = [f"{one.group or ''} most {side}-paid" for side, one in paid.items() if one]
    if named:
        parts.append(f"Against what the stated feedback explains, {' and '.join(named)}, in units of its noise.")
    return " ".join(parts)


_PAID = ("over", "under")


def _furthest(figures: Sequence[ResultRow]) -> ResultRow | None:
    return max(figures, key=lambda one: abs(one.value or 0.0), default=None)


def _base_model(figures: Sequence[ResultRow]) -> str:
    bits, tokens, kept = (pick(figures, metric=metric) for metric in ("bits_per_byte", "tokens", "kept_step"))
    if bits is None or tokens is None or kept is None:
        return "How the base model, trained from scratch, learned."
    return (
        f"The base model was trained from scratch on {number(tokens.value)} tokens, repeats counted. The weights of "
        f"step {number(kept.value)} were kept; texts that chose nothing take {number(bits.value)} bits a byte."
    )


def _divergence(figures: Sequence[ResultRow]) -> str:
    rows = [one for one in figures if one.metric == "divergence"]
    top = max(rows, key=lambda one: one.value or 0.0, default=None)
    most = f" Layer {top.layer} moved most, by {number(top.value)}." if top else ""
    return f"How far tuning moved each layer: the sum over its parameters of the L2 norm of tuned minus base.{most}"


def _drift(figures: Sequence[ResultRow]) -> str:
    born = pick(figures, metric="count", inputs="sae", group="born")
    gone = pick(figures, metric="count", inputs="base_sae", group="gone")
    carried = [one for one in figures if one.metric == "carried_share" and one.group != "steady"]
    parts = ["What tuning did to how features fire, each model read through the same dictionary."]
    if born and gone:
        parts.append(
            f"{number(born.value)} of {number(born.n)} features of the tuned model's dictionary were born "
            f"under tuning; {number(gone.value)} of {number(gone.n)} of the base model's went. The null "
            "deals the features of both dictionaries anew, as if the models could be exchanged."
        )
    if carried:
        share = sum(map(_value, carried))
        parts.append(f"Changed features carry {share:.0%} of the change of the headline estimate.")
    return " ".join(parts)


def _labels(figures: Sequence[ResultRow]) -> str:
    kappas = [one for one in figures if one.metric == "kappa"]
    passed = [one for one in kappas if _passes(one)]
    return (
        "Whether the features that a labeller calls related to the feedback are those that the headline probe weighs. "
        f"{len(passed)} of {len(kappas)} kappas pass the 95th percentile of labels dealt anew."
    )


def _label_scores(figures: Sequence[ResultRow]) -> str:
    told = [one for one in figures if one.metric == "detection" and str(one.group).endswith(",features=all")]
    parts = [
        "How well labels tell held-out examples on which their feature fires from silent ones, near misses among them:"
        " mean balanced accuracy, of texts (detection) and of marked tokens (fuzzing). The null is another feature's"
        " label on the same examples."
    ]
    for one in told:
        labeller = str(one.group).removeprefix("labeller=").removesuffix(",features=all")
        null = f", another feature's label {number(one.null_mean)}" if one.null_mean is not None else ""
        parts.append(f"{labeller} detects {with_interval(one)}{null}.")
    return " ".join(parts)


def _activity(figures: Sequence[ResultRow]) -> str:
    contrast = pick(figures, metric="per_token", group="related_high_less_rest")
    says = f" Related features, high less rest: {_signed(contrast)} a token." if contrast else ""
    return f"How often features fire on texts in the top quarter of the headline estimate, and on the rest.{says}"


def _ablation(figures: Sequence[ResultRow]) -> str:
    groups = dict.fromkeys(one.group for one in figures if one.metric == "features")
    scaled = any(one.value for one in figures if one.metric == "scale")
    parts = [
        f"Mean reward of completions with features {'scaled' if scaled else 'taken out'}, the same prefixes and seeds "
        "each time, beside matched features of the same layers drawn at random."
    ]
    parts += [_of_group([one for one in figures if one.group == group], str(group)) for group in groups]
    return " ".join([*parts, *_of_singles(figures)])


def _of_group(figures: Sequence[ResultRow], name: str) -> str:
    """Whether a group passes its controls, at what cost in perplexity, and how well they match."""
    told = {one.metric: one for one in figures}
    if not {"before", "after", "effect", "perplexity_ratio"} <= told.keys():
        return f"Group {name}: not judged, for its layers have too few other features to be its controls."
    effect = told["effect"]
    passed = abs(_value(effect)) > (effect.null_high or math.nan)
    return (
        f"Group {name}: {number(told['before'].value)} to {number(told['after'].value)}, a change of "
        f"{_signed(effect)}, which {'passes' if passed else 'does not pass'} its controls: they reach "
        f"{number(effect.null_high)} one time in twenty. Its text has {number(told['perplexity_ratio'].value)} "
        f"times their perplexity{_match(told.get('energy_ratio'))}."
    )


def _match(energy: ResultRow | None) -> str:
    if energy is None:
        return ""
    loose = "" if 1 / _LOOSE < _value(energy) < _LOOSE else ", a loose match"
    return f", its features {number(energy.value)} times their energy{loose}"


_LOOSE = 1.5  # times the energy of the controls


def _of_singles(figures: Sequence[ResultRow]) -> list[str]:
    """Predicted against measured, and what is important but inert."""
    rank, count = pick(figures, metric="predicted_measured"), pick(figures, metric="inert_count")
    found = []
    if rank:
        side = "above" if _passes(rank) else "not above"
        found.append(
            f"Feature by feature, predicted and measured effects rank alike with Spearman's {with_interval(rank)}; "
            f"dealt anew they reach {number(rank.null_high)} one time in twenty, and this is {side} it."
        )
    if count:
        found.append(
            f"{number(count.value)} of the {number(count.n)} features that the probe weighs most are inert: "
            "each taken out alone, the reward moves no further than with single controls, and its interval holds 0."
            f"{_power(figures)}"
        )
    return found


def _power(figures: Sequence[ResultRow]) -> str:
    """What effect of a single feature so many completions could have told from none."""
    alone = [one for one in figures if one.metric == "effect" and str(one.group).startswith("feature:")]
    halves = [((one.ci_high or 0.0) - (one.ci_low or 0.0)) / 2 for one in alone if one.ci_low is not None]
    if not halves:
        return ""
    half = sum(halves) / len(halves)
    n = number(alone[0].n)
    return f" With {n} completions an effect below about {number(half)} cannot be told from none."


def _pca(figures: Sequence[ResultRow]) -> str:
    share = sum(_value(one) for one in figures if one.metric == "explained_share")
    return (
        f"Two principal components hold {share:.0%} of the variance of texts' mean features; the null shuffles every "
        "feature over the texts."
    )


def _autoencoders(figures: Sequence[ResultRow]) -> str:
    worst = max((_value(one) for one in figures if one.metric == "fvu"), default=None)
    n = len({(one.model, one.layer, one.group) for one in figures})
    left = f", of which none leaves more than {number(worst)} of the variance unexplained" if worst is not None else ""
    return f"{n} sparse autoencoders{left}. They are descriptions of what was trained, on held-out texts, with no null."


def _triples(figures: Sequence[ResultRow]) -> str:
    kept = pick(figures, metric="kept")
    dropped = sum(_value(one) for one in figures if one.metric == "dropped")
    return f"{number(kept.value) if kept else 0} contrastive triples kept, {number(dropped)} dropped, by reason."


def _cost(figures: Sequence[ResultRow]) -> str:
    """State the totals and the machine."""
    by_stage: dict[str, dict[str, float]] = {}
    for one in figures:
        by_stage.setdefault(str(one.group), {})[one.metric] = _value(one)
    stages = {name: told for name, told in by_stage.items() if "minutes" in told}
    peaks = [told["peak_rss_mb"] for told in stages.values() if "peak_rss_mb" in told]
    parts = [
        f"{len(stages)} stages took {number(sum(told['minutes'] for told in stages.values()))} minutes by the clock"
        + (f", and {number(max(peaks))} MB of memory at most" if peaks else "")
        + _machine(figures)
        + "."
    ]
    return " ".join([*parts, "Nothing else in the report depends on the clock."])


def _machine(figures: Sequence[ResultRow]) -> str:
    cores, memory, gpu = (pick(figures, metric=metric) for metric in ("cores", "memory_gb", "gpus"))
    told = [
        f"{number(cores.value)} cores of {cores.group}" if cores else "",
        f"{_value(memory):g} GB" if memory else "",
        str(gpu.group) if gpu else "",
    ]
    named = [part for part in told if part]
    return f", on {', '.join(named)}" if named else ""


_SENTENCES: Mapping[str, Callable[[Sequence[ResultRow]], str]] = {
    "reward": _reward,
    "implicit_reward": _implicit,
    "kendall_tau": _taus,
    "sign_accuracy": _signs,
    "preference_accuracy": _preference,
    "token_sentiment": _words,
    "error_by_frequency": _errors,
    "disagreements": _disagreements,
    "base_model": _base_model,
    "divergence_by_layer": _divergence,
    "drift": _drift,
    "label_scores": _label_scores,
    "label_agreement": _labels,
    "activation_frequency": _activity,
    "ablation": _ablation,
    "pca_explained": _pca,
    "sae_quality": _autoencoders,
    "sae_sweep": _autoencoders,
    "triples": _triples,
    "cost": _cost,
}
