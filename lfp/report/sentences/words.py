"""What results say of words, texts and pairs: how probes rank them, where judges disagree, what twins prefer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lfp.evaluation.results import TWINS_RATE, ResultRow
from lfp.evaluation.written_words import WrittenWord, split_words
from lfp.report.figures import lines
from lfp.report.figures.intervals import Line
from lfp.report.formatting import count, estimate, percent, pick, plain, signed
from lfp.report.sentences.common import ABSENT, Rows, name_estimates, size_of


def beating_sentence(shown: Sequence[Line]) -> str:
    """Say how many probes on held-out words beat chance."""
    passed = sum(line.chance is not None and line.value > line.chance for line in shown)
    return f"Held-out words. {passed} of {len(shown)} beat chance."


def taus_sentence(rows: Rows) -> str:
    """Say how well probes rank words, and whether they saw tokens of them (section `kendall_tau`)."""
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


def signs_sentence(rows: Rows) -> str:
    """Say how often estimates have the sign of the word's reward (section `sign_accuracy`)."""
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
    bounded = [replace(row, null_high=None) if row.metric == "calibration_slope" else row for row in found]
    return name_estimates(bounded, names)  # shuffled preferences leave no margin for a slope to be of


def words_sentence(rows: Rows) -> str:
    """Say what the table of words holds (section `token_sentiment`)."""
    n = len({row.group for row in rows})
    return (
        f"The {n} scored words that the tuned model writes most. Estimates are the headline probe’s, from the fold "
        "that held the word out, on the lexicon’s range; p is the share of scored words that lie as far to the word’s "
        "true side."
    )


def writing_sentence(words: Sequence[WrittenWord], n: int) -> str:
    """Say which words the tuned model writes in more and in fewer of `n` continuations than the base model."""
    risen, fallen = split_words(words)
    if not risen and not fallen:
        return f"No word is in more, or fewer, of the tuned model's {count(n)} continuations beyond chance."
    parts = [
        f"{name}: " + ", ".join(f"{word.word} ({count(word.n_base)} to {count(word.n_tuned)})" for word in found[:5])
        for name, found in (("more", risen), ("less", fallen))
        if found
    ]
    return (
        f"Words in {count(n)} continuations of the same prompts, base to tuned model: {'; '.join(parts)}. "
        f"Beyond chance {count(len(risen))} more often and {count(len(fallen))} less often (sign test over prompts, "
        "false discovery rate 5 %)."
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
            "Preference beyond what the reward explains, in standard errors. Chance: if all words differed as "
            "those in the middle of the list do, 95 % of gaps at this rank were smaller."
        )
    return (
        "Difference of the two percentile ranks. Chance: 95 % of gaps at this rank are smaller where two rankings "
        "agree as much as these on the whole (older bundles: where one is shuffled)."
    )


def largest_gap_sentence(rows: Rows, *, metric: str, kind: str) -> str:
    """Say how large the largest gap of a list is, against shuffled ranks; empty where the report has none."""
    shown = [row for row in rows if row.metric == metric and (row.group or "").startswith(f"{kind}:")]
    if not shown:
        return ""
    top = max(shown, key=lambda row: abs(row.value))
    says = f"The largest gap of {count(top.n)} {kind}s is {plain(abs(top.value))}"
    if top.null_high is None:
        return f"{says}."
    side = "beyond" if abs(top.value) > top.null_high else "within"
    return (
        f"{says}, {side} chance: two rankings that agree as much on the whole exceed "
        f"{plain(top.null_high)} in 5 % of draws (in older bundles: two unrelated rankings)."
    )


def disagreements_sentence(rows: Rows) -> str:
    """Say where two judges disagree most, and which words stand out (section `disagreements`)."""
    flagged = pick(rows, metric="words_flagged")
    paid = [row for row in rows if row.metric.endswith("_paid")]
    ranked = max((row for row in rows if row is not flagged and row not in paid), key=size_of, default=None)
    parts = ["Where two judges disagree most about a text or word. A gap is the difference of two percentile ranks."]
    if ranked:
        parts.append(
            f"The largest is {signed(ranked.value)}, {ranked.group}. Chance is the gap at the same rank of two judges "
            "that agree as much on the whole (older bundles: of shuffled ranks)."
        )
    for metric, side in (("gap_over_paid", "more"), ("gap_under_paid", "less")):
        top = max((row for row in paid if row.metric == metric), key=size_of, default=None)
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
        "says that tuning treated them unlike other words, not why: only models tuned again on the same reward can. "
        "Each is judged by its own scatter, so it may stand out and yet be within what chance reaches at its rank."
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
        top = max((row for row in rows if row.metric == metric), key=size_in_errors, default=None)
        if top:
            beyond = is_among(top, found)
            says = ", not at that false discovery rate" if beyond is False else ""
            parts.append(
                f"First of those preferred {side}: {top.group}, by {estimate(top, is_signed=True)} nats{says}."
            )
    of_unembedding = pick(rows, metric="part", group="unembedding")
    if of_unembedding:
        parts.append(
            f"Of the differences, {percent(of_unembedding.value)} are made by the unembedding alone, where no feature "
            "shows them."
        )
    return " ".join(parts)


def size_in_errors(row: ResultRow) -> float:
    """Return a figure's size in half-widths of its interval: items of one test are ordered by it as by their t."""
    if row.ci_high is None or row.ci_high <= row.value:
        return size_of(row)
    return abs(row.value) / (row.ci_high - row.value)


def is_among(row: ResultRow, found: ResultRow) -> bool | None:
    """Whether an item is among those found to differ; None where it has no p-value.

    The discoveries of Benjamini and Hochberg are the p-values up to TWINS_RATE times their share of all tests.
    """
    return None if row.null_p is None or not found.n else row.null_p <= TWINS_RATE * found.value / found.n


def variance_sentence(rows: Rows) -> str:
    """Say how much of the texts' variance two components explain; empty where the report does not."""
    shares = [row for row in rows if row.metric == "explained_share"]
    spans = [f"{estimate(row)} (chance {plain(row.null_high)})" for row in shares]
    return f"Share of variance explained: {' and '.join(spans)}." if spans else ""


def pca_sentence(rows: Rows) -> str:
    """Say what the principal components of texts explain (section `pca_explained`)."""
    says = f"Two principal components of texts’ mean features. {variance_sentence(rows)}"
    return f"{says} Chance: each feature shuffled over texts."


def triples_sentence(rows: Rows) -> str:
    """Say how many triples were kept and dropped (section `triples`)."""
    kept = pick(rows, metric="kept")
    dropped = sum(row.value for row in rows if row.metric == "dropped")
    return f"{count(kept.value) if kept else 0} contrastive triples kept, {count(dropped)} dropped, by reason."
