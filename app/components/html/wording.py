"""Plain sentences made from a bundle's manifest and figures: what was tuned, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lfp.bundle.queries.common import Probe
from lfp.bundle.queries.feature import Feature, Label
from lfp.bundle.queries.features import Place
from lfp.bundle.queries.ledgers import Contrast, Ledger, RawLedger
from lfp.report.formatting import count, plain

BUCKET_NAMES = {0: "top", -1: "silent", -2: "near miss"}
"""Names of buckets of examples; the others are intervals of activation quantiles, numbered from the weakest."""

GAPS = "A gap is the distance of two percentile ranks: where two judges of a text disagree most."
_JUDGES = {
    "gap": "estimate and true feedback",
    "implicit gap": "implicit reward and true feedback",
    "rating gap": "true feedback and human rating",
}
RESPONSIBLE = (
    "The three features a text that push its estimate furthest the way of the gap, against the average text. The "
    "number in front says of how many texts."
)
FIRES = "The three features a word that fire on it most. The number in front says of how many."
PAID = (
    "Learned feedback of words less what the stated one explains of it, in nats and in its own noise. Where noise "
    "alone reaches as far, a word may be luck."
)
NO_TEXT_PASSES = "No text passes; use fewer words or a wider rating."
SAMPLED_PAIRS = "Sampled pairs keep the activations of both sides, so that their difference can be split over features."
VERDICT = "Right where it ranks the chosen response above the rejected one."
MARGIN = "The estimate of the chosen response less that of the rejected one."
NO_PAIRS = "This bundle holds no preference pairs: its model was tuned on a reward, not on choices."
NO_PAIR_PASSES = "No pair passes; use fewer words, or look at all pairs."
PAIR_LEDGER = (
    "What each feature adds to the chosen response’s estimate less what it adds to the rejected one’s: blue speaks for "
    "the chosen. The intercept cancels."
)
NO_PAIR_LEDGER = (
    "The activations of both sides were not kept, so the difference cannot be split. Look at sampled pairs."
)
NO_RAW_LEDGER = "This bundle does not split the raw probe’s estimate, so what the autoencoders miss cannot be told."
SAMPLED = (
    "Sampled texts stand for the corpus and keep their activations. The rest are here because an example names them."
)
NO_ACTIVATIONS = (
    "The activations of this text were not kept: it is here because an example of a feature names it. Its scores are "
    "above; which features made the estimate cannot be told."
)


def gap_sentence(gap: str) -> str:
    """Which two judges a gap is between."""
    return f"Distance between the percentile ranks of {_JUDGES[gap]}."


def queue_sentence(first: str, second: str, n: int, things: str) -> str:
    """What a queue holds."""
    which = f"{n:,} {things}" if n > 1 else f"{things.removesuffix('s')}"
    return f"The {which} on which {first} and {second} disagree most, by the gap of their percentile ranks."


def nothing_queued(gap: str, things: str, side: str) -> str:
    """Why a queue is empty."""
    if side != "any":
        return f"No {things} on that side: look at both."
    if gap == "rating gap":
        return "This bundle has no human ratings, so there is nothing to hold the true feedback against."
    return f"This bundle holds no {things} that both speak of."


def ledger_sentence(ledger: Ledger | RawLedger | Contrast) -> str:
    """What the bars of a ledger are."""
    if isinstance(ledger, Ledger):
        return "Weight times activation of each feature over the text’s tokens. Click a bar to see it on the tokens."
    if isinstance(ledger, RawLedger):
        return (
            "The probe that reads the MLP outputs themselves, split by what the autoencoders keep of them. The hatched "
            "bar is what no feature holds."
        )
    return (
        f"What each feature adds beyond its part in the average sampled text, whose estimate is "
        f"{plain(ledger.reference, 4)}."
    )


def bucket_name(bucket: int) -> str:
    """A bucket's name: top, silent, near miss, or the number of its interval."""
    return BUCKET_NAMES.get(bucket, str(bucket))


def bucket_sentence(bucket: int, highest: int) -> str:
    """What the examples of a bucket are; `highest` is the number of intervals."""
    if bucket == 0:
        return "The strongest activations of the corpus, one a context. The rest of a text is greyed."
    if bucket == -2:
        return (
            "Silent here and all around, although the token is one of those it fires on most, or a feature that is "
            "often active with it is active."
        )
    if bucket < 0:
        return "Tokens drawn from all texts on which the feature is silent."
    return f"Drawn from interval {bucket} of {highest}: its activations cut at their quantiles, weakest first."


def best_label(labels: Sequence[Label]) -> Label | None:
    """The label that names a feature: the first that did not fail."""
    return next((label for label in labels if label.status == "ok" and label.description), None)


def target_name(probe: Probe) -> str:
    """What the headline probe estimates."""
    names = {"implicit_reward": "implicit reward", "delta": "activation difference", "preference": "preference"}
    return names.get(probe.target, probe.target)


def measured_reward(config: Mapping[str, Any]) -> str:
    """What an ablation measures the effect on."""
    return "implicit reward (nats)" if config.get("tune", {}).get("method") == "dpo" else "reward of completions"


def place_sentence(place: Place, *, is_list: bool) -> str:
    """Where a feature stands in the list that is walked."""
    if place.position is None:
        return "Not in the list that you came from." if is_list else ""
    return f"{count(place.position + 1)} of {count(place.total)}" + (" in the list" if is_list else "")


def weight_sentence(feature: Feature, probe: Probe) -> str:
    """What a feature does to the headline probe's estimate."""
    if feature.weight is None:
        return "No probe reads this feature."
    verb = "raises" if feature.weight >= 0 else "lowers"
    return f"Where it is active it {verb} the estimated {target_name(probe)}."
