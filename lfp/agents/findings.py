"""What to look at first: words preferred otherwise than stated, disagreements about texts, features that changed."""

from __future__ import annotations

from lfp.agents.answers import Disagreement, Finding, Findings
from lfp.bundle import queries
from lfp.bundle.queries.features import PRESETS
from lfp.bundle.store.connection import Store
from lfp.evaluation.results import FATES
from lfp.report.formatting import plain, signed
from lfp.report.sentences.sections import sentence
from lfp.report.sentences.words import gaps_sentence
from lfp.util.sanitize import shortened

_ERRORS, _RANKS = "standard errors", "difference of percentile ranks"


def find(store: Store, *, limit: int) -> Findings:
    """Return every kind of finding with its `limit` strongest cases."""
    return Findings(
        findings=[
            *(_paid(store, over=over, limit=limit) for over in (True, False)),
            *(_beside_twins(store, over=over, limit=limit) for over in (True, False)),
            _texts(store, limit=limit),
            _words(store, limit=limit),
            *(_features(store, name, limit=limit) for name in PRESETS),
            *(_fates(store, fate, limit=limit) for fate in FATES[:3]),
        ]
    )


def _paid(store: Store, *, over: bool, limit: int) -> Finding:
    side = "more" if over else "less"
    cases = [
        Disagreement(
            row_id=f"vocabulary/{word.word}",
            what=f"“{word.word}”",
            says=f"{signed(word.excess)} nats beyond what its feedback explains, in {word.n:,} occurrences",
            value=word.gap,
            unit=_ERRORS,
        )
        for word in queries.words.paid_words(store, over=over, limit=limit)
    ]
    says = gaps_sentence(f"gap_{'over' if over else 'under'}_paid")
    return Finding(kind=f"words paid {side} than stated", says=says, cases=cases)


def _beside_twins(store: Store, *, over: bool, limit: int) -> Finding:
    cases = [
        Disagreement(
            row_id=f"vocabulary/{word.word}",
            what=f"“{word.word}”",
            says=f"{signed(word.difference)} nats from the twins’ mean; false discovery rate {plain(word.q, 3)}",
            value=word.t,
            unit=_ERRORS,
        )
        for word in queries.words.twin_words(store, over=over, limit=limit)
    ]
    says = sentence("twins", queries.run.figures(store, "twins"))
    return Finding(kind=f"words preferred {'more' if over else 'less'} than by twins", says=says, cases=cases)


def _texts(store: Store, *, limit: int) -> Finding:
    cases = [
        Disagreement(
            row_id=f"texts/{text.text_id}",
            what=shortened(text.text, 160),
            says=f"estimate {plain(text.first)}, true feedback {plain(text.second)}",
            value=text.gap,
            unit=_RANKS,
        )
        for text in queries.words.queued_texts(store, "gap", limit=limit)
    ]
    says = "The probe's estimate and the true feedback rank these texts most differently. " + gaps_sentence("gap")
    return Finding(kind="texts that estimate and feedback disagree on", says=says, cases=cases)


def _words(store: Store, *, limit: int) -> Finding:
    cases = [
        Disagreement(
            row_id=f"vocabulary/{word.word}",
            what=f"“{word.word}”",
            says=f"implicit reward {plain(word.first)} nats, stated feedback {plain(word.second)}",
            value=word.gap,
            unit=_RANKS,
        )
        for word in queries.words.queued_words(store, "implicit gap", limit=limit)
    ]
    says = "Tuning and the stated feedback rank these words most differently. " + gaps_sentence("gap")
    return Finding(kind="words that tuning and feedback disagree on", says=says, cases=cases)


def _features(store: Store, name: str, *, limit: int) -> Finding:
    preset = PRESETS[name]
    columns = ("feature_id", "description", "weight", "drifted_contribution", "mean_abs_contribution")
    table = queries.features.features(store, preset.wanted, order=preset.order, columns=columns, limit=limit)
    cases = [
        Disagreement(
            row_id=f"features/{row['feature_id']}",
            what=row["description"] or f"feature {row['feature_id']}",
            says=f"weight {plain(row['weight'])}, drifted contribution {plain(row['drifted_contribution'], 4)}",
            value=row["mean_abs_contribution"],
            unit="mean absolute contribution",
        )
        for row in table.to_pylist()
    ]
    return Finding(kind=f"features: {name}", says=preset.says, cases=cases)


def _fates(store: Store, fate: str, *, limit: int) -> Finding:
    """Features of the base model that the preference data or the tuning singled out, the largest difference first."""
    found = [row for row in queries.run.forecast(store) if row.status == fate]
    found.sort(key=lambda row: (-abs(row.in_data), row.feature_id))
    cases = [
        Disagreement(
            row_id=f"forecast/{row.feature_id}",
            what=f"base feature {row.feature_id}, layer {row.layer}: {', '.join(row.tokens[:3])}",
            says=f"differs by {signed(row.in_data)} in the data; preferred by {signed(row.preferred)} after tuning",
            value=row.in_data,
            unit="standard deviations over responses",
        )
        for row in found[:limit]
    ]
    return Finding(kind=fate, says=sentence("forecast", queries.run.figures(store, "forecast")), cases=cases)
