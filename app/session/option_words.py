"""How the options of widgets are shown, where that is not their value."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from app.components.feature import columns
from app.components.feature.drift import STATUS_NAMES
from lfp.util.types import SITE_NAMES

_TITLES = {name: column.title for name, column in columns.COLUMNS.items()}
WORDS: Mapping[str, Mapping[str, str]] = {
    "word_axes": {
        "implicit reward against true": "implicit reward vs reward",
        "estimate against true": "probe estimate vs reward",
        "estimate against implicit reward": "probe estimate vs implicit reward",
    },
    "tau_target": {"true feedback": "reward"},
    "text_colour": {"true feedback": "reward", "estimate": "probe estimate"},
    "gap_list": {
        "words paid more than stated": "words preferred more than the reward explains",
        "words paid less than stated": "words preferred less than the reward explains",
        "words: implicit reward against true": "words: implicit reward vs reward",
        "words: estimate against true": "words: probe estimate vs reward",
        "texts: implicit reward against true": "texts: implicit reward vs reward",
        "texts: estimate against true": "texts: probe estimate vs reward",
        "texts: true against rating": "texts: reward vs human rating",
    },
    "weighty_by": {
        "weights that beat their null": "weights beyond chance (false discovery rate 5 %)",
        "the top tenth of weights": "top tenth of weights",
    },
    "null": {"any": "any", "beats": "beyond chance (FDR 5 %)", "within": "within chance"},
    "drifts": STATUS_NAMES,
    "became": {"any": "any", **STATUS_NAMES, "flipped": "sign flipped"},
    "site": SITE_NAMES,
    "drift_site": SITE_NAMES,
    "sort": {
        **{name: title for name, title in _TITLES.items() if name != "mean_abs_contribution"},
        "contribution": "Contribution", "strength": "Size of weight", "drift": "Size of change",
        "credit_size": "Size of credit", "match": "Best match",
        "id": "Number", "top_token": "Top token", "raised_token": "Raised token", "lowered_token": "Lowered token",
    },
    "shown": _TITLES,
    "map_colour": _TITLES,
    "examples": {"top": "max", "4": "high", "3": "mid", "2": "low", "1": "lowest", "silent": "zero"},
    "texts": {"split": "with a ledger"},
    "split": {"held_out": "held out"},
    "half": {"held_out": "held out"},
    "by": {
        "gap": "gap: probe, reward", "implicit gap": "gap: implicit reward, reward",
        "rating gap": "gap: reward, rating", "predicted": "probe estimate", "feedback": "reward",
        "implicit_reward": "implicit reward", "rating": "rating", "id": "number",
    },
    "account": {
        "estimate": "probe estimate",
        "against the average text": "vs average text",
        "raw estimate, with what is missed": "raw-activation probe",
    },
    "written_by": {"drawn": "drawn at random", "changed": "largest rise of the reward first"},
    "doing": {"continue": "continue it", "score": "score its tokens"},
    "written_as": {"plain": "plain text", "message": "message in the chat template"},
    "queue": {
        "estimate against true": "probe vs reward",
        "implicit against true": "tuned model vs reward",
        "true against rating": "reward vs human rating",
    },
    "drift_by": {
        "drifted": "size of change", "risen": "change", "base_contribution": "contribution, base",
        "base_density": "density, base", "id": "number",
    },
}  # fmt: skip
"""How the options of some widgets are shown, by field and value.

Streamlit writes the shown words into the URL. Links with the values themselves, which older versions wrote, work too.
"""


def words_for(name: str) -> Callable[[str], str]:
    """Return the `format_func` of a widget whose options WORDS renames."""
    return lambda value: WORDS[name].get(value, value)
