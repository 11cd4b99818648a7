"""Sentences that pages show about texts, pairs, gaps, ledgers, examples and features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lfp.bundle.queries.common import Probe
from lfp.bundle.queries.feature import Feature, Label
from lfp.bundle.queries.features import Place
from lfp.bundle.queries.ledgers import Contrast, Ledger, RawLedger
from lfp.report.formatting import count, plain

GAPS = "Gap = difference of the two percentile ranks."
_SCORES = {
    "gap": "probe estimate and reward",
    "implicit gap": "implicit reward and reward",
    "rating gap": "reward and human rating",
}
RESPONSIBLE = (
    "For each text, the three features that contribute most to the gap (compared with an average text). Number = texts "
    "affected."
)
FIRES = "The three features that fire most on each word. Number = words."
PAID = (
    "How much more (or less) the tuned model favours a word than the reward explains, in nats and in standard errors. "
    "Chance: with signs flipped at random, 95 % of gaps at this rank are smaller."
)
NO_TEXT_PASSES = "No matches. Use fewer words or a wider rating."
SAMPLED_PAIRS = "Sampled: a random sample with the activations of both sides, whose difference can be split by feature."
VERDICT = "Right: it ranks the chosen response above the rejected one."
MARGIN = "Estimate of the chosen response minus that of the rejected one."
NO_PAIRS = "This bundle holds no preference pairs: its model was tuned on a reward."
NO_PAIR_PASSES = "No matches. Use fewer words, or look at all pairs."
PAIR_LEDGER = (
    "Contribution of each feature to the estimate, chosen minus rejected. Blue: in favour of the chosen response. The "
    "intercept cancels."
)
NO_PAIR_LEDGER = "This pair has no stored activations, so its difference cannot be split. Look at sampled pairs."
NO_RAW_LEDGER = "This bundle does not split the raw-activation probe’s estimate."
SAMPLED = "Sampled: a random sample with full activations. Others appear only as feature examples."
NO_ACTIVATIONS = (
    "This text has no stored activations, as it appears only as a feature example. Its estimate cannot be split by "
    "feature."
)


def gap_sentence(gap: str) -> str:
    """Say which two scores a gap is between."""
    return f"Difference of the percentile ranks of {_SCORES[gap]}."


def queue_sentence(first: str, second: str, n: int, things: str) -> str:
    """Say what a list of disagreements holds."""
    which = f"{n:,} {things}" if n > 1 else things.removesuffix("s")
    return f"The {which} with the largest difference between the percentile ranks of {first} and {second}."


def nothing_queued(gap: str, things: str, side: str) -> str:
    """Say why a list of disagreements is empty."""
    if side != "any":
        return f"No {things} on this side. Choose any."
    if gap == "rating gap":
        return "This bundle has no human ratings to compare the reward with."
    return f"This bundle holds no {things} with both scores."


def ledger_sentence(ledger: Ledger | RawLedger | Contrast) -> str:
    """Say what the bars of a ledger are."""
    if isinstance(ledger, Ledger):
        return "Weight times activation of each feature, over the text’s tokens. Click a bar to see it on the tokens."
    if isinstance(ledger, RawLedger):
        return "The probe on raw MLP activations, split by SAE feature. Hatched: SAE error."
    return (
        f"Contribution of each feature, compared with the average sampled text (estimate {plain(ledger.reference, 4)})."
    )


def bucket_sentence(bucket: int, highest: int) -> str:
    """Say what the examples of a bucket are; `highest` is the number of intervals of activation quantiles."""
    if bucket == 0:
        return "Strongest examples, one per context. Text outside the stored window is grey."
    if bucket == -2:
        return "Near misses: same token or a co-active feature, but this one stays silent."
    if bucket < 0:
        return "Random tokens from all texts in which the feature is silent."
    names = {1: "lowest", 2: "second-lowest", 3: "second-highest", 4: "highest"}
    which = f"{names[bucket]} activation quartile" if highest == 4 else f"activation interval {bucket} of {highest}"
    return f"Random examples from the {which}."


def best_label(labels: Sequence[Label]) -> Label | None:
    """Return the label that names a feature: the first that did not fail."""
    return next((label for label in labels if label.status == "ok" and label.description), None)


def target_name(probe: Probe) -> str:
    """Return what the headline probe estimates."""
    names = {"implicit_reward": "implicit reward", "delta": "activation difference", "feedback": "reward"}
    return names.get(probe.target, probe.target)


def measured_reward(config: Mapping[str, Any]) -> str:
    """Return what an ablation measures the effect on."""
    return "implicit reward (nats)" if config.get("tune", {}).get("method") == "dpo" else "reward of completions"


def place_sentence(place: Place, *, is_list: bool) -> str:
    """Say where a feature is in the list that Previous and Next step through."""
    if place.position is None:
        return "Not in the list that you came from." if is_list else ""
    return f"{count(place.position + 1)} of {count(place.total)}" + (" in the list" if is_list else "")


def weight_sentence(feature: Feature, probe: Probe) -> str:
    """Say what a feature does to the headline probe's estimate."""
    if feature.weight is None:
        return "No probe reads this feature."
    return f"{'Raises' if feature.weight >= 0 else 'Lowers'} the estimated {target_name(probe)}."
