"""Queries on a prediction: what each feature adds to it, exactly, and how two predictions differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lfp.bundle.queries.common import ONE, OTHER, headline, pooled, pooling
from lfp.bundle.store.connection import Store


@dataclass(frozen=True)
class Contribution:
    """What one feature adds to a text's prediction: weight times pooled activation."""

    feature_id: int
    layer: int
    site: str
    description: str | None
    weight: float
    pooled: float
    contribution: float


class Checked:
    """A split with the sum of its parts and the stated value that they should make."""

    total: float
    predicted: float

    @property
    def error(self) -> float:
        """Distance of the sum from the value that the bundle states."""
        return abs(self.total - self.predicted)


@dataclass(frozen=True)
class Ledger(Checked):
    """A text's prediction, split: `shown` and `rest` (the sum over all other features) and `intercept` make `total`."""

    shown: tuple[Contribution, ...]
    n_features: int
    rest: float
    intercept: float
    total: float
    predicted: float


@dataclass(frozen=True)
class RawLedger(Ledger):
    """The raw probe's estimate of a text, split: `shown` and `rest` (all other features), `bias` (its value for the
    autoencoders' biases), `intercept` and `miss` (what the autoencoders do not reconstruct) make `total`.

    Contributions are raw weight times pooled activation. Where a feature has no raw weight, since an autoencoder
    normalises its inputs, nothing is shown and `rest` is all that the autoencoders reconstruct.
    """

    bias: float
    miss: float


@dataclass(frozen=True)
class Difference:
    """What one feature adds to a text's prediction (`here`), to another's or the average one's, and how they differ."""

    feature_id: int
    layer: int
    site: str
    description: str | None
    weight: float
    here: float
    there: float
    difference: float


@dataclass(frozen=True)
class Contrast(Checked):
    """A difference of predictions, split: `shown` and `rest` (all other features) make `total`; intercepts cancel.

    `predicted` is the text's stated prediction minus `reference`, the other's.
    """

    shown: tuple[Difference, ...]
    n_features: int
    rest: float
    total: float
    predicted: float
    reference: float


def ledger(store: Store, text_id: int, *, limit: int | None = 12) -> Ledger | None:
    """Split a text's prediction over features, largest first; None without a probe or the text's activations."""
    probe = headline(store)
    if probe is None:
        return None
    rows = store.rows(_LEDGER, {**pooling(probe), "text_id": text_id})
    if not rows:
        return None
    total, split = _split(rows, limit)
    stated = {"predicted": rows[0]["predicted"], "intercept": probe.intercept}
    return Ledger(total=total + probe.intercept, **split, **stated)


def raw_ledger(store: Store, text_id: int, *, limit: int | None = 12) -> RawLedger | None:
    """Split a text's raw estimate over features, largest first; None without a raw probe or the text's activations."""
    probe = headline(store)
    if probe is None:
        return None
    rows = store.rows(_RAW_LEDGER, {**pooling(probe), "text_id": text_id})
    if not rows:
        return None
    stated = {key: rows[0][key] for key in ("predicted", "intercept", "miss")}
    if rows[0]["bias"] is None:
        kept = stated["predicted"] - stated["intercept"] - stated["miss"]
        return RawLedger(shown=(), n_features=0, rest=kept, bias=0.0, total=stated["predicted"], **stated)
    bias, (total, split) = rows[0]["bias"], _split(rows, limit)
    return RawLedger(bias=bias, total=total + bias + stated["intercept"] + stated["miss"], **split, **stated)


def average_ledger(store: Store, text_id: int, *, limit: int | None = 12) -> Contrast | None:
    """Compare what each feature adds to a text's prediction and to the average text's, largest difference first.

    The average is over the texts whose activations are kept. None where `ledger` is None.
    """
    return _contrast(store, _AVERAGE_LEDGER, {"text_id": text_id}, limit)


def pair_ledger(store: Store, pair_id: int, *, limit: int | None = 12) -> Contrast | None:
    """Compare what each feature adds to the predictions of a pair's chosen and rejected text, largest first.

    None without a probe or where the activations of one of the two are not kept.
    """
    ids = {row["role"]: row["text_id"] for row in store.rows(_PAIR_TEXTS, {"pair_id": pair_id})}
    if ids.keys() != {"chosen", "rejected"}:
        return None
    return _contrast(store, _PAIR_LEDGER, {"text_id": ids["chosen"], "other_id": ids["rejected"]}, limit)


def _split(rows: list[dict[str, Any]], limit: int | None) -> tuple[float, dict[str, Any]]:
    """Return the sum of all contributions, and the fields of a ledger that list the largest and sum the others."""
    keys = [field.name for field in fields(Contribution)]
    parts = [Contribution(**{key: row[key] for key in keys}) for row in rows if row["feature_id"] is not None]
    shown = tuple(parts[:limit])
    total = sum(part.contribution for part in parts)
    rest = total - sum(part.contribution for part in shown)
    return total, {"shown": shown, "n_features": len(parts), "rest": rest}


def _contrast(store: Store, sql: str, texts: Mapping[str, int], limit: int | None) -> Contrast | None:
    probe = headline(store)
    if probe is None:
        return None
    rows = store.rows(sql, {**pooling(probe), **texts, "limit": limit})
    if not rows:
        return None
    keys = [field.name for field in fields(Difference)]
    shown = tuple(Difference(**{key: row[key] for key in keys}) for row in rows if row["feature_id"] is not None)
    total, reference = rows[0]["total"], rows[0]["reference"]
    return Contrast(
        shown=shown,
        n_features=rows[0]["n_features"],
        rest=total - sum(part.difference for part in shown),
        total=total,
        predicted=rows[0]["predicted"] - reference,
        reference=reference,
    )


_LEDGER = f"""
SELECT t.predicted, w.feature_id, f.layer, f.site, l.description, w.weight, p.pooled,
    w.weight::DOUBLE * p.pooled AS contribution
FROM (SELECT text_id, predicted FROM texts SEMI JOIN activations USING (text_id) WHERE text_id = $text_id) t
LEFT JOIN ({pooled(ONE)}) p ON p.text_id = t.text_id
LEFT JOIN (SELECT feature_id, weight FROM weights WHERE probe_id = $probe) w ON w.feature_id = p.feature_id
LEFT JOIN features f ON f.feature_id = w.feature_id
LEFT JOIN (SELECT feature_id, description FROM feature_table) l ON l.feature_id = w.feature_id
ORDER BY abs(contribution) DESC NULLS LAST, w.feature_id
"""

_RAW_LEDGER = f"""
SELECT t.predicted, t.miss, r.intercept, r.bias * CASE $pooling WHEN 'sum' THEN t.n_tokens ELSE 1 END AS bias,
    w.feature_id, f.layer, f.site, l.description, w.weight, p.pooled, w.weight::DOUBLE * p.pooled AS contribution
FROM (SELECT text_id, predicted_raw::DOUBLE AS predicted, sae_miss::DOUBLE AS miss, len(token_starts) AS n_tokens
      FROM texts SEMI JOIN activations USING (text_id)
      WHERE text_id = $text_id AND predicted_raw IS NOT NULL AND sae_miss IS NOT NULL) t
JOIN (SELECT raw_intercept AS intercept, raw_bias AS bias FROM probes
      WHERE probe_id = $probe AND raw_intercept IS NOT NULL) r ON true
LEFT JOIN ({pooled(ONE)}) p ON p.text_id = t.text_id
LEFT JOIN (SELECT feature_id, raw_weight AS weight FROM weights WHERE probe_id = $probe AND raw_weight IS NOT NULL) w
    ON w.feature_id = p.feature_id
LEFT JOIN features f ON f.feature_id = w.feature_id
LEFT JOIN (SELECT feature_id, description FROM feature_table) l ON l.feature_id = w.feature_id
ORDER BY abs(contribution) DESC NULLS LAST, w.feature_id
"""

_CONTRIBUTED = "SELECT feature_id, weight::DOUBLE * pooled AS part FROM ({pooled}) JOIN weighted USING (feature_id)"

_CONTRAST = """
WITH weighted AS (SELECT feature_id, weight FROM weights WHERE probe_id = $probe),
compared AS (
    SELECT *, here - there AS difference FROM (
        SELECT feature_id, coalesce(here.part, 0) AS here, coalesce(there.part, 0) AS there
        FROM ({here}) here FULL JOIN ({there}) there USING (feature_id)
    )
), summed AS (SELECT coalesce(sum(difference), 0) AS total, count(*) AS n_features FROM compared)
SELECT t.predicted, t.reference, total, n_features, c.feature_id, f.layer, f.site, l.description, w.weight, c.here,
    c.there, c.difference
FROM ({stated}) t
JOIN summed ON true
LEFT JOIN (SELECT * FROM compared ORDER BY abs(difference) DESC, feature_id LIMIT $limit) c ON true
LEFT JOIN weighted w ON w.feature_id = c.feature_id
LEFT JOIN features f ON f.feature_id = c.feature_id
LEFT JOIN (SELECT feature_id, description FROM feature_table) l ON l.feature_id = c.feature_id
ORDER BY abs(c.difference) DESC NULLS LAST, c.feature_id
"""

_AVERAGE_LEDGER = _CONTRAST.format(
    here=_CONTRIBUTED.format(pooled=pooled(ONE)),
    there=_CONTRIBUTED.format(pooled="FROM usual"),
    stated="SELECT predicted::DOUBLE AS predicted, reference FROM texts SEMI JOIN activations USING (text_id) "
    "CROSS JOIN (SELECT avg(predicted::DOUBLE) AS reference FROM texts SEMI JOIN activations USING (text_id)) "
    "WHERE text_id = $text_id",
)

_PAIR_LEDGER = _CONTRAST.format(
    here=_CONTRIBUTED.format(pooled=pooled(ONE)),
    there=_CONTRIBUTED.format(pooled=pooled(OTHER)),
    stated="SELECT sum(predicted::DOUBLE) FILTER (text_id = $text_id) AS predicted, "
    "sum(predicted::DOUBLE) FILTER (text_id = $other_id) AS reference "
    "FROM texts SEMI JOIN activations USING (text_id) WHERE text_id IN ($text_id, $other_id) HAVING count(*) = 2",
)

_PAIR_TEXTS = "SELECT role, text_id FROM texts WHERE pair_id = $pair_id AND role IN ('chosen', 'rejected')"
