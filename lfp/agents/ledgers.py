"""A text's score split into parts that sum to it: over features, or over modules."""

from __future__ import annotations

from typing import Any

from lfp.agents.answers import Ledger, Part
from lfp.api.bundle import Bundle
from lfp.errors import NotInBundleError
from lfp.report.formatting import place_name

_PATHS = {"implicit reward": "full", "implicit reward, same position": "same_position"}


def split(bundle: Bundle, text_id: int, *, of: str, limit: int) -> Ledger:
    """Split a text's estimate or raw estimate over features, or its implicit reward over modules, largest part first.

    Raises NotInBundleError where the bundle cannot split it.
    """
    if of in _PATHS:
        return _over_modules(bundle, text_id, of=of, limit=limit)
    table = bundle.ledger(text_id, raw=of == "raw estimate", limit=limit, arrow=True)
    check = {key.decode(): float(value) for key, value in table.schema.metadata.items()}
    parts = [_feature_part(row) for row in table.to_pylist()]
    return _ledger(text_id, of, "units of the probe's target", check["predicted"], parts)


def _over_modules(bundle: Bundle, text_id: int, *, of: str, limit: int) -> Ledger:
    table = bundle.module_credits(text_id, arrow=True)
    stated = float(table.schema.metadata[b"reward"])
    rows = [row for row in table.to_pylist() if row["path"] == _PATHS[of]]
    if not rows:
        raise NotInBundleError(f"text {text_id}: not split on the same position; ask for the implicit reward instead")
    parts = [Part(part=_module_name(row), value=row["credit"]) for row in rows[:limit]]
    rest = [row["credit"] for row in rows[limit:]]
    if rest:
        parts.append(Part(part=f"{len(rest)} other modules", value=sum(rest)))
    return _ledger(text_id, of, "nats", stated, parts)


def _ledger(text_id: int, of: str, unit: str, stated: float, parts: list[Part]) -> Ledger:
    total = sum(part.value or 0.0 for part in parts)
    return Ledger(
        row_id=f"texts/{text_id}",
        of=of,
        unit=unit,
        stated=stated,
        total=total,
        error=abs(total - stated),
        parts=parts,
    )


def _feature_part(row: dict[str, Any]) -> Part:
    number = row["feature_id"]
    if number is None:
        return Part(part=row["part"], value=row["contribution"])
    return Part(
        part=f"feature {number}",
        value=row["contribution"],
        feature_row_id=f"features/{number}",
        description=row["description"],
    )


def _module_name(row: dict[str, Any]) -> str:
    module = str(row["module"]).replace("_", " ")
    return module if row["layer"] is None else f"{module} of {place_name(row['layer'])}"
