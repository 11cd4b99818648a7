"""What results say in plain sentences: one or more for each section of the report, and those beside its figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from lfp.evaluation.results import FATES, ResultRow, count_dictionaries, passes
from lfp.evaluation.statistics.discoveries import RATE
from lfp.report.credits import credits_sentence, trajectory_sentence
from lfp.report.figures import lines
from lfp.report.figures.intervals import Line
from lfp.report.formatting import count, estimate, number, percent, pick, plain, signed, with_interval
from lfp.util.types import SITE_NAMES

Rows = Sequence[ResultRow]

ABSENT = "This run has no such figure."


def sentence(section: str, rows: Rows) -> str:
    """Return what a section of the report says."""
    if not rows:
        return ABSENT
    return _SENTENCES[section](rows) if section in _SENTENCES else "Figures of the run."


# Against chance, and against the base model


def against_chance(row: ResultRow, what: str = "shuffles") -> str:
    """Say whether a value is above its null; empty where it has none."""
    if row.null_high is None:
        return ""
    return f"{'Above' if row.beats_null else 'Not above'} chance (95 % of {what} are below {plain(row.null_high)})."


def against_base(difference: ResultRow) -> str:
    """Say what a difference of tuned and base means, by where its interval lies and what the interval covers.

    Over one dictionary of each model it covers words or pairs only: then no model is said to score higher.
    """
    if difference.ci_low is None or difference.ci_high is None:
        return "The difference has no interval."
    unit = "pairs" if difference.target == "preference" else "words"
    n = count_dictionaries(difference.group)
    covers = f"; the interval covers {unit} and {n} dictionaries of each model" if n > 1 else ""
    if difference.ci_low <= 0 <= difference.ci_high:
        return f"No clear difference: the base model may already have known this{covers}."
    side = "tuned" if difference.ci_low > 0 else "base"
    if n == 1 and difference.inputs == "sae":
        return (
            f"The {side} model scores higher with these dictionaries; the interval covers {unit} only, and other seeds "
            "of the dictionaries may move a small difference across zero (probes.dictionary_seeds)."
        )
    if side == "tuned":
        return f"The tuned model scores higher: the interval of the difference is above zero{covers}."
    return f"The base model scores higher, so this probe is no evidence that tuning put the feedback there{covers}."


# The models


def _reward(rows: Rows) -> str:
    base, tuned, change = (
        pick(rows, metric="reward", model=model, group=None) for model in ("base", "tuned", "difference")
    )
    kl = pick(rows, metric="kl_per_token")
    strayed = f" KL divergence from the base model: {number(kl.value)} nats per token." if kl else ""
    if base is None or tuned is None or change is None:
        return f"Mean reward of completions.{strayed}"
    return (
        f"Tuning changed the mean reward of completions from {plain(base.value)} to {plain(tuned.value)}, by "
        f"{estimate(change, is_signed=True)}.{strayed}"
    )


def _implicit(rows: Rows) -> str:
    tau = pick(rows, metric="tau", words="all", target="implicit_reward")
    says = "The implicit reward of a word is how much likelier tuning made it, in nats; no probe is involved."
    if tau is None:
        return says
    return (
        f"{says} It ranks words like the reward does, with Kendall’s τ = {estimate(tau)}. {against_chance(tau)}".strip()
    )


# Words and pairs


def beating_sentence(shown: Sequence[Line]) -> str:
    """Say how many probes on held-out words beat chance."""
    passed = sum(line.chance is not None and line.value > line.chance for line in shown)
    return f"Held-out words. {passed} of {len(shown)} beat chance."


def _taus(rows: Rows) -> str:
    shown = [line for target in lines.targets(rows) for line in lines.probes(rows, "tau", target)]
    return (
        "How well each probe ranks words by their reward (Kendall’s τ), with its controls. "
        f"{beating_sentence(shown)} A probe that knows signs only would reach its sign ceiling. "
        f"{overlap_sentence(rows)}"
    ).strip()


def overlap_sentence(rows: Rows) -> str:
    """Say whether probes saw tokens of the words that they rank; empty in older bundles, where many did."""
    shared, dropped = (pick(rows, metric=metric) for metric in ("words_sharing_tokens", "rows_dropped"))
    if shared is None or dropped is None:
        return ""
    identity = pick(rows, metric="tau", words="all", inputs="token_identity", target=shared.target, split=shared.split)
    control = f" A probe of the token’s identity alone reaches {estimate(identity)}." if identity else ""
    if not shared.value:
        left_out = f"{percent(dropped.value)} of the rows of other words are left out for that"
        return f"No probe saw a token of a word that it ranks ({left_out}).{control}"
    return f"{percent(shared.value)} of the words share a token with rows that their probe was fitted on.{control}"


def _signs(rows: Rows) -> str:
    tuned = pick(rows, model="tuned", inputs="sae", words="all", target="delta")
    of_tuned = f" The probe of activation differences on the tuned model: {estimate(tuned)}." if tuned else ""
    return f"How often a probe’s estimate has the sign of the word’s reward.{of_tuned}"


def pairs_sentence(rows: Rows) -> str:
    """Say what pair accuracy is, and how often the longer response was chosen (section `preference_accuracy`)."""
    length = pick(rows, metric="accuracy_of_length")
    says = f" The longer response was chosen in {percent(length.value)} of pairs." if length else ""
    return f"How often the chosen response of a held-out pair has the higher estimate.{says}"


def calibration_facts(rows: Rows) -> dict[str, str]:
    """Return how calibrated the preference probe is on held-out pairs, by name."""
    found = [row for row in rows if (row.inputs, row.model, row.target) == ("sae", "tuned", "preference")]
    names = {"calibration_error": "calibration error", "calibration_slope": "slope", "auroc": "area under the curve"}
    return _facts(found, names)


def agreement_facts(rows: Rows) -> dict[str, str]:
    """Return the agreement of one labeller's labels with weights in numbers, by name."""
    return _facts(rows, {"odds_ratio": "odds ratio", "kappa": "Cohen’s κ", "accuracy": "agreement"})


def _facts(rows: Rows, names: Mapping[str, str]) -> dict[str, str]:
    """Return the first row of each metric in `names`, with its interval and its null, by the metric's name."""
    facts = {}
    for metric, name in names.items():
        row = pick(rows, metric=metric)
        if row is not None:
            chance = "" if row.null_high is None else f" · chance {plain(row.null_high)}"
            facts[name] = estimate(row) + chance
    return facts


def _words(rows: Rows) -> str:
    n = len({row.group for row in rows})
    return (
        f"The {n} scored words that the tuned model writes most. Estimates are the headline probe’s, from the fold "
        "that held the word out, on the lexicon’s range; p is the share of scored words that lie as far to the word’s "
        "true side."
    )


def errors_sentence(rows: Rows) -> str:
    """Say how far off the estimate is (section `error_by_frequency`)."""
    whole = pick(rows, group="all")
    says = "Mean error of the probe estimate, on the lexicon’s range"
    if whole is None or whole.null_mean is None:
        return f"{says}."
    side = "below" if whole.ci_high is not None and whole.ci_high < whole.null_mean else "not clearly below"
    return f"{says}: {estimate(whole)}, {side} that of shuffled estimates ({plain(whole.null_mean)})."


def gaps_sentence(metric: str) -> str:
    """Say what the gaps of a list are, and what chance means there."""
    if metric.endswith("_paid"):
        return (
            "Preference beyond what the reward explains, in standard errors. Chance: the average gap at this rank if "
            "all words differed as those in the middle of the list do."
        )
    return (
        "Difference of the two percentile ranks. Chance: the average gap at this rank of two rankings that agree as "
        "much as these on the whole (older bundles: of a shuffled ranking)."
    )


def largest_gap_sentence(rows: Rows, *, metric: str, kind: str) -> str:
    """Say how large the largest gap of a list is, against shuffled ranks; empty where the report has none."""
    shown = [row for row in rows if row.metric == metric and (row.group or "").startswith(f"{kind}:")]
    if not shown:
        return ""
    top = max(shown, key=lambda row: abs(row.value))
    return (
        f"The largest gap of {count(top.n)} {kind}s is {plain(abs(top.value))}; that of rankings that agree as much on "
        f"the whole (older bundles: of shuffled ones) exceeds {plain(top.null_high)} in 5 % of draws."
    )


def _disagreements(rows: Rows) -> str:
    flagged = pick(rows, metric="words_flagged")
    paid = [row for row in rows if row.metric.endswith("_paid")]
    ranked = max((row for row in rows if row is not flagged and row not in paid), key=_size, default=None)
    parts = ["Where two judges disagree most about a text or word. A gap is the difference of two percentile ranks."]
    if ranked:
        parts.append(
            f"The largest is {signed(ranked.value)}, {ranked.group}. Chance is the gap at the same rank of two judges "
            "that agree as much on the whole (older bundles: of shuffled ranks)."
        )
    for metric, side in (("gap_over_paid", "more"), ("gap_under_paid", "less")):
        top = max((row for row in paid if row.metric == metric), key=_size, default=None)
        if top:
            parts.append(
                f"Preferred {side} than the reward explains: {top.group}, by {plain(abs(top.value), 1)} standard "
                f"errors{_chance_of_first(top)}."
            )
    if flagged:
        parts.append(flagged_sentence(flagged))
    return " ".join(parts)


def _chance_of_first(top: ResultRow) -> str:
    if top.null_high is None:
        return ""
    return (
        f" (the first of {count(top.n)} words like the others is beyond {plain(abs(top.null_high), 1)} in 5 % of lists)"
    )


def flagged_sentence(flagged: ResultRow) -> str:
    """Say how many words stand out from the others, and what that does not show."""
    stand = "word stands" if flagged.value == 1 else "words stand"
    return (
        f"{count(flagged.value)} of {count(flagged.n)} {stand} out from the others (false discovery rate 5 %). That "
        "says that tuning treated them unlike other words, not why: only models tuned again on the same reward can."
    )


def twins_sentence(rows: Rows) -> str:
    """Say how many words differ from the twins, beside each twin left out, and where the differences lie."""
    n, found = pick(rows, metric="twins"), pick(rows, metric="words_differing")
    if n is None or found is None:
        return ABSENT
    differ = "word is" if found.value == 1 else "words are"
    parts = [
        f"Compared with {count(n.value)} models tuned on the same stated feedback by other seeds, "
        f"{count(found.value)} of {count(found.n)} {differ} preferred otherwise (false discovery rate 10 %)."
    ]
    if found.null_mean is not None and found.null_high is not None:
        parts.append(
            f"Tested like that against the others, each of these models has {plain(found.null_mean, 1)} on average and "
            f"{count(found.null_high)} at most."
        )
    for metric, side in (("preferred_more", "more"), ("preferred_less", "less")):
        top = next((row for row in rows if row.metric == metric), None)
        if top:
            parts.append(f"First of those preferred {side}: {top.group}, by {estimate(top, is_signed=True)} nats.")
    of_unembedding = pick(rows, metric="part", group="unembedding")
    if of_unembedding:
        parts.append(
            f"Of the differences, {percent(of_unembedding.value)} are made by the unembedding alone, where no feature "
            "shows them."
        )
    return " ".join(parts)


def _size(row: ResultRow) -> float:
    return abs(row.value) if math.isfinite(row.value) else -1.0


def variance_sentence(rows: Rows) -> str:
    """Say how much of the texts' variance two components explain; empty where the report does not."""
    shares = [row for row in rows if row.metric == "explained_share"]
    spans = [f"{estimate(row)} (chance {plain(row.null_high)})" for row in shares]
    return f"Share of variance explained: {' and '.join(spans)}." if spans else ""


def _pca(rows: Rows) -> str:
    says = f"Two principal components of texts’ mean features. {variance_sentence(rows)}"
    return f"{says} Chance: each feature shuffled over texts."


# The models, their layers and features


def _tuning(rows: Rows) -> str:
    return f"How the tuning went, by step. {lines.tuning_change(rows)}."


def _base_model(rows: Rows) -> str:
    bits, tokens, kept = (pick(rows, metric=metric) for metric in ("bits_per_byte", "tokens", "kept_step"))
    if bits is None or tokens is None or kept is None:
        return "How the base model was trained from scratch."
    return (
        f"The base model was trained from scratch on {count(tokens.value)} tokens, counting repeats. The weights of "
        f"step {count(kept.value)} were kept; held-out texts take {plain(bits.value, 3)} bits per byte."
    )


def _divergence(rows: Rows) -> str:
    top = max((row for row in rows if row.metric == "divergence"), key=_size, default=None)
    most = f" Layer {top.layer} moved most, by {number(top.value)}." if top else ""
    return f"How far tuning moved each layer: the sum over its parameters of the L2 norm of tuned minus base.{most}"


def layers_sentence(n_selected: int, n: int, sites: Sequence[str] = ("mlp_out",)) -> str:
    """Say how many layers have an SAE, and of what unless it is the MLP output."""
    names = " and ".join(SITE_NAMES.get(site, site) for site in sites)
    read = f", on their {names}" if set(sites) - {"mlp_out"} else ""
    return (
        f"SAEs were trained on {n_selected} of {n} layers{read}. Divergence is the sum of the L2 "
        "norms of tuned minus base over a layer’s parameters."
    )


def _drift(rows: Rows) -> str:
    born = pick(rows, metric="count", inputs="sae", group="born")
    gone = pick(rows, metric="count", inputs="base_sae", group="gone")
    carried = [row for row in rows if row.metric == "carried_share" and row.group != "steady"]
    parts = ["How tuning changed when features fire; both models are read through the same dictionary."]
    if born and gone:
        parts.append(
            f"{count(born.value)} of {count(born.n)} features of the tuned model’s dictionary are new, "
            f"{count(gone.value)} of {count(gone.n)} of the base model’s are gone{_exchanged(born, gone)}. How these "
            "counts would differ in another tuning on the same feedback is not known from one."
        )
    if carried:
        share = percent(sum(row.value for row in carried))
        parts.append(f"Features whose firing changed carry {share} of the change of the estimate.")
    largest = [row for row in rows if row.metric == "drifted_contribution" and row.null_high is not None]
    if born and born.null_p is not None:
        parts.append(
            "Chance in this older bundle is too easily passed: its counts take features as independent, and its "
            "changes of contribution are compared with weights shuffled among features."
        )
    elif largest:
        beyond = sum(abs(row.value) > (row.null_high or 0.0) for row in largest)
        parts.append(
            f"Of the {count(len(largest))} features whose contribution changed most, {count(beyond)} changed more than "
            "95 % of those at the same rank in probes of shuffled feedback."
        )
    return " ".join(parts)


def _exchanged(born: ResultRow, gone: ResultRow) -> str:
    """Say what both counts are on average with the models exchanged; empty where the report does not."""
    if born.null_mean is None or gone.null_mean is None:
        return ""
    return f" (with the models exchanged, on average {count(born.null_mean)} and {count(gone.null_mean)})"


def _feature_credits(rows: Rows) -> str:
    """Say how much of their modules' credit features carry, and which carries most."""
    shares = [row for row in rows if row.metric == "features_share" and row.group == "same_position"]
    if not shares:
        return ABSENT
    values = sorted(row.value for row in shares)
    span = percent(values[0]) if len(values) == 1 else f"{percent(values[0])} to {percent(values[-1])}"
    where = "the module" if len(values) == 1 else f"their modules ({len(values)} layers and sites)"
    says = [f"Features carry {span} of what {where} changed in the log-probability of the next token."]
    constant = sorted(row.value for row in rows if row.metric == "bias_share" and row.group == "same_position")
    if constant and constant[-1] > _NOTED_SHARE:
        says.append(f"Up to {percent(constant[-1])} is the same at every token: the dictionary's bias.")
    top = max((row for row in rows if row.metric == "credit"), key=_size, default=None)
    if top is not None:
        says.append(f"Largest: {str(top.group).replace(':', ' ')}, {estimate(top, is_signed=True)} nats per token.")
    return " ".join(says)


_NOTED_SHARE = 0.05


def _interventions(rows: Rows) -> str:
    """Say how well credits predict what taking features out does, beside weights and drift."""
    found = {str(row.group): row for row in rows if row.metric == "rank_correlation"}
    credit = found.get("credit")
    if credit is None:
        return ABSENT
    says = [
        f"The {count(credit.n or 0)} features of largest credit, each taken out of what tuning changed: predicted and "
        f"measured effects on the implicit reward have a rank correlation of {estimate(credit)}. "
        f"{against_chance(credit)}".strip()
    ]
    names = {"weight": "probe weights", "drift": "drift"}
    others = [f"{plain(found[name].value)} by {says_}" for name, says_ in names.items() if name in found]
    if others:
        says.append(f"The same is {' and '.join(others)}.")
    sizes = {str(row.group): row for row in rows if row.metric == "size"}
    if {"feature", "control"} <= sizes.keys() and sizes["control"].value > 0:
        ratio = sizes["feature"].value / sizes["control"].value
        says.append(f"Their effects are {plain(ratio, 1)} times those of matched controls.")
    return " ".join(says)


def _autoencoders(rows: Rows) -> str:
    controls = [row.value for row in rows if row.metric == "fvu" and _is_control(row)]
    rows = [row for row in rows if not _is_control(row)]
    worst = max((row.value for row in rows if row.metric == "fvu"), default=None)
    n = len({(row.model, row.layer, row.site, row.group) for row in rows})
    left = f"; none leaves more than {percent(worst)} of the variance unexplained" if worst is not None else ""
    beside = (
        f" Controls whose decoder stayed random while the rest was trained leave {percent(min(controls))} or more."
        if controls
        else ""
    )
    return f"{n} sparse autoencoders, measured on held-out texts{left}.{beside}"


def _is_control(row: ResultRow) -> bool:
    return str(row.group).endswith("random decoder")


def _differences(rows: Rows) -> str:
    """Say what the mean change of activations raises where it is the largest share, and what components add."""
    means = [row for row in rows if row.metric == "mean_share"]
    if not means:
        return "What tuning changed of activations, without a dictionary."
    row = max(means, key=lambda row: row.value)
    where = f"layer {row.layer}" + (f", {SITE_NAMES[row.site]}" if row.site not in (None, "mlp_out") else "")
    first = pick(rows, metric="component_share", layer=row.layer, site=row.site)
    more = f" The first principal component holds {percent(first.value)} of their variance." if first else ""
    tokens = str(row.group).partition(": ")[2]
    return (
        f"At {where} the mean change of activations, over all tokens, is {percent(row.value)} of the changes’ mean"
        f" square; read through the unembedding it raises: {tokens}.{more}"
    )


def _latent_scaling(rows: Rows) -> str:
    tuned, base = (pick(rows, metric="exclusive", model=model, layer=None) for model in ("tuned", "base"))
    if tuned is None or base is None:
        return "How far each feature's direction explains both models' activations."
    twin, of_twins = (pick(rows, metric="exclusive", model=model, layer=None) for model in ("twin", "twin_of_twin"))
    beside = ""
    if twin is not None and of_twins is not None:
        beside = (
            f" In a twin tuned by another seed it is {count(twin.value)} of {count(twin.n)} against the base model, and"
            f" {count(of_twins.value)} of {count(of_twins.n)} against another twin."
        )
    return (
        f"The directions of {count(tuned.value)} features of {count(tuned.n)} explain the tuned model’s activations and"
        f" not the base model’s. With the two models exchanged it is {count(base.value)} of {count(base.n)}: what does"
        f" not exceed that share says nothing of tuning.{beside}"
    )


def _pretrained(rows: Rows) -> str:
    checked = [row for row in rows if row.metric == "fvu"]
    worst = max((row.value for row in checked), default=None)
    left = f"; none left more than {percent(worst)} of the variance unexplained" if worst is not None else ""
    return f"{len(checked)} sparse autoencoders made elsewhere, checked on a few thousand tokens of their place{left}."


def _triples(rows: Rows) -> str:
    kept = pick(rows, metric="kept")
    dropped = sum(row.value for row in rows if row.metric == "dropped")
    return f"{count(kept.value) if kept else 0} contrastive triples kept, {count(dropped)} dropped, by reason."


# Labels


def agreement_sentence(found: Mapping[str, ResultRow]) -> str:
    """Say whether features labelled related have large weights; `found` are one labeller's rows by metric."""
    odds = found.get("odds_ratio")
    if odds is None:
        return ""
    if odds.beats_null:
        return f"Features labelled related have large weights more often than the others: odds ratio {estimate(odds)}."
    reach = f"; shuffled labels reach {plain(odds.null_high)}" if odds.null_high is not None else ""
    return f"No association between “related” labels and probe weight: odds ratio {estimate(odds)}{reach}."


def rank_sentence(rows: Rows, labeller: str) -> str:
    """Say how a labeller's confidence and the sizes of weights correlate; empty where the report does not."""
    shown = (row for row in rows if lines.keys_of(row).get("labeller") == labeller)
    row = next((row for row in shown if row.metric == "rank_correlation"), None)
    if row is None:
        return ""
    reach = f"; shuffled labels reach ±{plain(row.null_high)}" if row.null_high is not None else ""
    return f"Rank correlation of confidence and size of weight {estimate(row, is_signed=True)}{reach}."


def labels_sentence(rows: Rows) -> str:
    """Say how many labellers' labels predict which features matter (section `label_agreement`)."""
    kappas = [row for row in rows if row.metric == "kappa"]
    passed = sum(row.beats_null for row in kappas)
    says = "Labels predict which features matter" if passed else "Labels do not predict which features matter"
    return f"{says}: {passed} of {len(kappas)} tests beat shuffled labels."


SCORES = {
    "detection": "Share of held-out texts that the label sorts right into firing and silent (balanced). "
    "Chance: another feature’s label.",
    "fuzzing": "Share of marked tokens of held-out texts that the label sorts right into firing and silent (balanced).",
    "agreement": "How often a label made again from other examples agrees on whether the feature is related.",
}
"""What the scores of labels are, by metric."""


def _label_scores(rows: Rows) -> str:
    parts = ["How well labels predict on which held-out examples their feature fires: mean balanced accuracy."]
    for row in rows:
        keys = lines.keys_of(row)
        if row.metric == "detection" and keys.get("features") == "all":
            other = f" (another feature’s label: {plain(row.null_mean)})" if row.null_mean is not None else ""
            parts.append(f"{keys['labeller']}: {estimate(row)}{other}.")
    return " ".join(parts)


def frequencies_sentence(found: Mapping[str, ResultRow]) -> str:
    """Say whether related features fire more where the estimate is high; `found` are rows by group."""
    change = found.get("related_high_less_rest")
    if change is None or change.ci_low is None or change.ci_high is None:
        return "High: the texts in the top quarter of the headline estimate."
    does = "more often" if change.ci_low > 0 else "less often" if change.ci_high < 0 else "about as often"
    says = with_interval(100 * change.value, 100 * change.ci_low, 100 * change.ci_high, is_signed=True)
    return (
        f"On texts in the top quarter of the headline estimate, features labelled related fire {does}: {says} "
        "percentage points. Chance: as many random features that fire as often."
    )


# Forecast


def forecast_sentence(rows: Rows) -> str:
    """Say how well the preference data forecast what was learned; empty where nothing was forecast."""
    explained = pick(rows, metric="r2", group="preferred")
    if explained is None:
        return ""
    chance = f"; chance {plain(explained.null_high)}" if explained.null_high is not None else ""
    verdict = "forecasts" if explained.beats_null else "does not forecast"
    parts = [
        f"How chosen responses differ from rejected ones of the same length {verdict} which of {count(explained.n)} "
        "features the implicit reward of held-out responses prefers: R² on features left out "
        f"{estimate(explained)}{chance}."
    ]
    for measure, name in _MEASURES_OF_LEARNING.items():
        ranked = pick(rows, metric="rank_correlation", group=measure)
        if ranked:
            reach = f"; chance {plain(ranked.null_high)}" if ranked.null_high is not None else ""
            parts.append(f"Rank correlation with {name}: {estimate(ranked, is_signed=True)}{reach}.")
    counts = {row.group: row for row in rows if row.metric == "count"}
    if FATES[0] in counts and FATES[1] in counts and FATES[2] in counts:
        parts.append(
            f"{count(counts[FATES[0]].value)} features are in the data and learned, {count(counts[FATES[1]].value)} in "
            f"the data and not learned, {count(counts[FATES[2]].value)} learned and not in the data (false discovery "
            "rates 5 %). The forecast was made before the tuning, and is hashed."
        )
    return " ".join(parts)


_MEASURES_OF_LEARNING = {
    "preferred": "that preference",
    "moved": "how far each feature’s mean moved",
    "credit": "each feature’s part of the implicit reward",
}


# Ablations


def effects_sentence(rows: Sequence[lines.Ablation]) -> str:
    """Say which ablated groups change the reward more than their matched controls."""
    groups = lines.ablated_groups(rows)
    judged = [row for row in groups if row["contrast_p"] is not None]
    if not judged:
        return "No group can be judged: its layers have too few other features for matched controls."
    runs, clean = groups[0].get("clean_runs") or 1, groups[0].get("reward_clean")
    before = f"Mean reward before: {plain(groups[0]['reward_before'] if clean is None else clean)}"
    before += f", over {runs} runs." if runs > 1 else "."
    passed = [row for row in judged if passes(row)]
    if not passed:
        return f"No group changes the reward more than its matched controls do. {before}"
    changes = [
        f"{lines.group_name(row)}, "
        f"{with_interval(row['contrast'], row['contrast_low'], row['contrast_high'], is_signed=True)}, where 95 % of "
        f"controls stay within ±{plain(row['contrast_reach'])}"
        for row in passed
    ]
    others = " The other groups do not." if len(passed) < len(judged) else ""
    return (
        f"Removing these changes the reward beyond the mean of their matched controls: {'; '.join(changes)}.{others} "
        f"{before}"
    )


def singles_sentence(rows: Rows) -> str:
    """Say how predicted and measured effects of single features correlate; empty where the report does not."""
    rank = pick(rows, metric="predicted_measured")
    if rank is None:
        return ""
    reach = f"; chance {signed(rank.null_high)}" if rank.null_high is not None else ""
    verb = "correlate" if rank.beats_null else "do not correlate"
    return (
        f"Predicted and measured effects of single features {verb} (Spearman {estimate(rank, is_signed=True)}{reach})."
    )


def inert_sentence(n_inert: int, n: int, halves: Sequence[float], n_completions: int | None) -> str:
    """Say how many of `n` features that were ablated alone show no effect, and how small an effect could be seen.

    `halves` are half the widths of their intervals.
    """
    half = sum(halves) / len(halves)
    return (
        f"{n_inert} of the {n} features with the largest weights show no effect when removed alone: compared with the "
        f"mean of controls, the interval includes 0 and other controls differ as much. With {count(n_completions)} "
        "completions, effects smaller than "
        f"about {plain(half)} are undetectable."
    )


def _ablation(rows: Rows) -> str:
    of_group: dict[str, dict[str, ResultRow]] = {}
    for row in rows:
        of_group.setdefault(str(row.group), {})[row.metric] = row
    groups = {name: found for name, found in of_group.items() if "features" in found}
    scaled = any(found["scale"].value for found in groups.values() if "scale" in found)
    parts = [
        f"Mean reward of completions with features {'scaled' if scaled else 'removed'}, with the same prefixes and "
        "seeds, against the mean of matched random features of the same layers."
    ]
    parts += [_group_sentence(name, found) for name, found in groups.items()]
    parts.append(singles_sentence(rows))
    inert = pick(rows, metric="inert_count")
    singles = [found for name, found in of_group.items() if name.startswith("feature:") and "effect" in found]
    alone = [found.get("contrast", found["effect"]) for found in singles]
    halves = [(row.ci_high - row.ci_low) / 2 for row in alone if row.ci_low is not None and row.ci_high is not None]
    if inert and halves:
        parts.append(inert_sentence(int(inert.value), inert.n or len(alone), halves, alone[0].n))
    return " ".join(part for part in parts if part)


_LOOSE = 1.5  # times the energy of the controls
_CLEARLY = 1.5  # times what 95 % of controls stay within


def _group_sentence(name: str, found: Mapping[str, ResultRow]) -> str:
    """Say whether a group beats its controls, at what cost in perplexity, and how well the controls match."""
    contrast = found.get("contrast")
    if contrast is None or contrast.null_high is None or contrast.null_p is None:
        return f"Group {name}: not judged, its layers have too few other features for matched controls."
    differs = f"{estimate(contrast, is_signed=True)} beyond the mean of its controls"
    says = (
        f"Group {name}: {differs}, {_size_of_contrast(contrast)} (95 % of controls stay within "
        f"±{plain(contrast.null_high)}; p {plain(contrast.null_p, 4)})"
    )
    if "perplexity_ratio" in found:
        says += f"; perplexity {plain(found['perplexity_ratio'].value)} times the controls’"
    if "energy_ratio" in found:
        energy = found["energy_ratio"].value
        loose = "" if 1 / _LOOSE < energy < _LOOSE else ", a loose match"
        says += f"; activation energy {plain(energy)} times the controls’{loose}"
    return f"{says}."


def _size_of_contrast(contrast: ResultRow) -> str:
    """Say how a contrast compares with how far controls differ among themselves; it has a reach and a p."""
    reach = contrast.null_high or 0.0
    if (contrast.null_p or 0.0) > RATE:
        return "no more than controls differ"
    return "more than controls differ" if abs(contrast.value) < _CLEARLY * reach else "far more than controls differ"


# Cost


def _cost(rows: Rows) -> str:
    """Say what all stages took, and on which machine."""
    stages: dict[str, dict[str, float]] = {}
    for row in rows:
        stages.setdefault(str(row.group), {})[row.metric] = row.value
    timed = {name: values for name, values in stages.items() if "minutes" in values}
    peaks = [values["peak_rss_mb"] for values in timed.values() if "peak_rss_mb" in values]
    cores, memory, gpu = (pick(rows, metric=metric) for metric in ("cores", "memory_gb", "gpus"))
    machine = [
        f"{number(cores.value)} cores of {cores.group}" if cores else "",
        f"{memory.value:g} GB" if memory else "",
        str(gpu.group) if gpu else "",
    ]
    named = ", ".join(part for part in machine if part)
    says = f"{len(timed)} stages took {plain(sum(values['minutes'] for values in timed.values()), 1)} minutes"
    says += f" and at most {count(max(peaks))} MB of memory" if peaks else ""
    return f"{says}, on {named}." if named else f"{says}."


_SENTENCES: Mapping[str, Callable[[Rows], str]] = {
    "reward": _reward,
    "implicit_reward": _implicit,
    "module_credits": credits_sentence,
    "kendall_tau": _taus,
    "sign_accuracy": _signs,
    "preference_accuracy": pairs_sentence,
    "token_sentiment": _words,
    "error_by_frequency": errors_sentence,
    "disagreements": _disagreements,
    "twins": twins_sentence,
    "tuning": _tuning,
    "trajectory": trajectory_sentence,
    "base_model": _base_model,
    "divergence_by_layer": _divergence,
    "drift": _drift,
    "feature_credits": _feature_credits,
    "interventions": _interventions,
    "label_scores": _label_scores,
    "label_agreement": labels_sentence,
    "activation_frequency": lambda rows: frequencies_sentence(lines.frequencies(rows, "per_token")),
    "forecast": forecast_sentence,
    "ablation": _ablation,
    "pca_explained": _pca,
    "sae_check": _pretrained,
    "sae_quality": _autoencoders,
    "latent_scaling": _latent_scaling,
    "differences": _differences,
    "sae_sweep": _autoencoders,
    "triples": _triples,
    "cost": _cost,
}
