"""Queries on a text's implicit reward: what each module carries of it, and features within modules, exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lfp.bundle.queries.feature import named_features
from lfp.bundle.queries.ledgers import Checked
from lfp.bundle.queries.texts import TokenLedger, TokenPart
from lfp.bundle.store.connection import Store

Path = Literal["full", "same_position"]
"""Kinds of paths: through every later layer and position, or for the next token alone, keys and values held fixed."""


@dataclass(frozen=True)
class ModuleCredit:
    """What a module carries of a text's implicit reward, in nats."""

    layer: int | None
    module: str
    credit: float


@dataclass(frozen=True)
class ModuleLedger(Checked):
    """A text's implicit reward (`predicted`), split: the credits of `modules`, largest first, make `total`.

    `tolerance` is the share of their sizes that the integral behind the credits misses, as the bundle states it.
    """

    modules: tuple[ModuleCredit, ...]
    total: float
    predicted: float
    tolerance: float


@dataclass(frozen=True)
class FeatureCreditPart:
    """What tuning's change of a feature carries of a text's implicit reward, over the tokens where it is active."""

    feature_id: int
    layer: int
    site: str
    description: str | None
    n_tokens: int
    credit: float


@dataclass(frozen=True)
class FeatureLedger(Checked):
    """What modules with a dictionary carry of a text's implicit reward (`predicted`), split.

    `shown` and `rest` (the sum over all other features), `bias` (of the dictionaries) and `residual` (what they do not
    reconstruct) make `total`. `places` are the layers and sites of the modules.
    """

    shown: tuple[FeatureCreditPart, ...]
    n_features: int
    rest: float
    bias: float
    residual: float
    total: float
    predicted: float
    places: tuple[tuple[int, str], ...]


def module_ledger(store: Store, text_id: int, *, path: Path) -> ModuleLedger | None:
    """Split a text's implicit reward over modules, largest first; None where that was not measured on such paths."""
    rows = store.rows(_MODULES, {"text_id": text_id, "path": path})
    if not rows:
        return None
    modules = tuple(ModuleCredit(row["layer"], row["module"], row["credit"]) for row in rows)
    return ModuleLedger(
        modules=modules,
        total=sum(module.credit for module in modules),
        predicted=rows[0]["reward"],
        tolerance=rows[0]["tolerance"] if path == "full" else 0.0,
    )


def feature_ledger(store: Store, text_id: int, *, path: Path, limit: int | None = 10) -> FeatureLedger | None:
    """Split what modules with a dictionary carry of a text's implicit reward over features, largest first.

    None where the text was not split over features.
    """
    bound = {"text_id": text_id, "path": path}
    sums, rows = store.rows(_SUMS, bound), store.rows(_FEATURES, bound)
    if not sums:
        return None
    names = named_features(store, [row["feature_id"] for row in rows[:limit]])
    shown = tuple(FeatureCreditPart(description=names.get(row["feature_id"]), **row) for row in rows[:limit])
    bias, residual = sum(row["bias"] for row in sums), sum(row["residual"] for row in sums)
    features = sum(row["credit"] for row in rows)
    return FeatureLedger(
        shown=shown,
        n_features=len(rows),
        rest=features - sum(part.credit for part in shown),
        bias=bias,
        residual=residual,
        total=features + bias + residual,
        predicted=sum(row["module"] for row in sums),
        places=tuple((row["layer"], row["site"]) for row in sums),
    )


def text_features(store: Store, text_id: int, *, path: Path) -> tuple[FeatureCreditPart, ...]:
    """Return what every feature carries of a text's implicit reward, largest first; empty where it was not split."""
    ledger = feature_ledger(store, text_id, path=path, limit=None)
    return ledger.shown if ledger else ()


def token_credits(store: Store, text_id: int, *, path: Path, limit: int = 4) -> list[TokenLedger]:
    """Split over features what they carry at each token, largest first; empty where the text was not split.

    On full paths: of the text's implicit reward, by what features at the token write. On the same position: of the
    token's own implicit reward, by what features at the token before it write.
    """
    rows = store.rows(_TOKENS, {"text_id": text_id, "path": path, "limit": limit, "shift": _SHIFTS[path]})
    if not rows:
        return []
    names = named_features(store, sorted({row["feature_id"] for row in rows if row["feature_id"] is not None}))
    found: list[TokenLedger] = [TokenLedger() for _ in range(rows[0]["n_tokens"])]
    for row in rows:
        if row["feature_id"] is None or not row["position"] < len(found):
            continue
        part = TokenPart(row["feature_id"], names.get(row["feature_id"]), row["credit"])
        before = found[row["position"]]
        found[row["position"]] = TokenLedger((*before.shown, part), row["n_features"], row["total"])
    return found


def split_texts(store: Store, *, limit: int = 3) -> list[int]:
    """Return the first texts whose implicit reward is split, those over features and modules before the others."""
    return [row["text_id"] for row in store.rows(_SPLIT, {"limit": limit})]


_SHIFTS: Mapping[Path, int] = {"full": 0, "same_position": 1}
"""Tokens from where features are written to the token that shows what they carry."""

_MODULES = """
SELECT m.layer, m.module, m.credit, credit_reward::DOUBLE AS reward, credit_error::DOUBLE AS tolerance
FROM (SELECT * FROM module_credits WHERE text_id = $text_id AND path = $path) m
JOIN (SELECT * FROM texts WHERE text_id = $text_id AND credit_reward IS NOT NULL) ON true
ORDER BY abs(m.credit) DESC, m.layer NULLS FIRST, m.module
"""

_SUMS = """
SELECT layer, site, "module", bias, residual FROM credit_sums WHERE text_id = $text_id AND path = $path
ORDER BY layer, site
"""

_ENTRIES = """
entries AS (
    SELECT unnest(positions) AS position, unnest(feature_ids) AS feature_id,
        unnest(CASE $path WHEN 'full' THEN credits ELSE next_credits END)::DOUBLE AS credit
    FROM feature_credits WHERE text_id = $text_id
)
"""

_FEATURES = f"""
WITH {_ENTRIES}
SELECT feature_id, f.layer, f.site, count(*) AS n_tokens, sum(credit) AS credit
FROM entries JOIN features f USING (feature_id) GROUP BY feature_id, f.layer, f.site
ORDER BY abs(sum(credit)) DESC, feature_id
"""

_TOKENS = f"""
WITH {_ENTRIES}, largest AS (
    SELECT position + $shift AS position, feature_id, credit, sum(credit) OVER token AS total,
        count(*) OVER token AS n_features
    FROM entries WHERE credit <> 0 WINDOW token AS (PARTITION BY position)
    QUALIFY row_number() OVER (PARTITION BY position ORDER BY abs(credit) DESC, feature_id) <= $limit
)
SELECT len(token_starts) AS n_tokens, position, feature_id, credit, total, n_features
FROM (SELECT text_id, token_starts FROM texts WHERE text_id = $text_id) SEMI JOIN feature_credits USING (text_id)
LEFT JOIN largest ON true
ORDER BY position, abs(credit) DESC, feature_id
"""

_SPLIT = """
SELECT text_id FROM (
    SELECT text_id, count(*) AS n FROM (
        SELECT DISTINCT text_id FROM module_credits UNION ALL SELECT text_id FROM feature_credits
    ) GROUP BY text_id
) SEMI JOIN texts USING (text_id) ORDER BY n DESC, text_id LIMIT $limit
"""
