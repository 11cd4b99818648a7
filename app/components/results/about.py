"""What a bundle is: its manifest's facts, files with their hashes, and how to cite it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from lfp.bundle.manifest import Manifest
from lfp.report.formatting import NONE, count, plain
from lfp.report.summary import stage_costs, total_cost
from lfp.util.sanitize import visible

PAPER = """@inproceedings{marks2024interpreting,
  title     = {Interpreting Learned Feedback Patterns in Large Language Models},
  author    = {Marks, Luke and Abdullah, Amir and Neo, Clement and Arike, Rauno and Krueger, David and Torr, Philip
               and Barez, Fazl},
  booktitle = {Advances in Neural Information Processing Systems (NeurIPS)},
  year      = {2024},
  note      = {arXiv:2310.08164}
}"""
"""The paper whose method this is."""


def run_facts(manifest: Manifest) -> dict[str, str]:
    """Return numbers of a run, by name."""
    rows = {name: info.rows for name, info in manifest.tables.items()}
    base = manifest.models.get("base")
    found = {
        "parameters": count(base.parameters) if base else None,
        "layers with dictionaries": count(len({name.split(".")[1] for name in manifest.hook_points})),
        "features": count(rows.get("features")),
        "texts to browse": count(rows.get("texts")),
        "labeller": manifest.labeller,
        "made": manifest.created_at[:10],
        "licence": manifest.licence,
        "bundle": manifest.bundle_id,
    }
    return {name: value for name, value in found.items() if value}


def facts(manifest: Manifest) -> dict[str, str]:
    """Return what the manifest says of the bundle as a whole, by name."""
    found = {
        "bundle": manifest.bundle_id,
        "made": f"{manifest.created_at[:16].replace('T', ' ')} UTC",
        "seed": str(manifest.seed),
        "labeller": manifest.labeller,
        "licence": manifest.licence or "none stated",
        "schema": str(manifest.schema_version),
        "size": size(manifest.bytes + sum(file.bytes for file in manifest.artifacts.values())),
    }
    return {name: value for name, value in found.items() if value}


def models(manifest: Manifest) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows: each model with its parameters and the hash of its weights."""
    rows = [
        [f"{role}: {model.name}", model.revision or "–", count(model.parameters), model.sha256]
        for role, model in sorted(manifest.models.items())
    ]
    return ["model", "revision", "parameters", "SHA-256 of its weights"], rows


def tables(manifest: Manifest) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows: each table with its rows, size and hash."""
    rows = [[name, count(info.rows), size(info.bytes), info.sha256] for name, info in sorted(manifest.tables.items())]
    return ["table", "rows", "size", "SHA-256"], rows


def artifacts(manifest: Manifest) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows: each file of models and dictionaries."""
    rows = [[name, size(info.bytes), info.sha256] for name, info in sorted(manifest.artifacts.items())]
    return ["file", "size", "SHA-256"], rows


def cost(manifest: Manifest) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows: what each stage took by the clock, and all of them last; no row if unknown."""
    stages = stage_costs(manifest)
    rows = [
        [stage.stage, *map(plain, (stage.minutes, stage.cpu_minutes)), count(stage.peak_rss_mb)]
        for stage in ([*stages, total_cost(stages)] if stages else [])
    ]
    return ["stage", "minutes", "processor minutes", "peak MB"], rows


def machine(manifest: Manifest) -> dict[str, str]:
    """Return the machine that the bundle was written on, by name; empty if unknown."""
    found = manifest.hardware
    if found is None:
        return {}
    return {
        "processor": found.processor or NONE,
        "cores": count(found.cores),
        "memory": NONE if found.memory_gb is None else f"{found.memory_gb:g} GB",
        "GPU": found.gpu or "none",
    }


def size(n_bytes: int) -> str:
    """Return bytes as people read them, in powers of ten."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.1f} {unit}"
    return f"{n_bytes} bytes"


def checked(manifest: Manifest, hashed_up_to: int) -> str:
    """Say what was checked when the bundle was opened."""
    if manifest.bytes <= hashed_up_to:
        return "Every table’s size and SHA-256 were checked when this bundle was opened."
    return (
        "Every table’s size was checked when this bundle was opened. It is too large to hash each time: "
        "python -m precompute validate reads all of it."
    )


def citation(manifest: Manifest) -> str:
    """Return the bundle as BibTeX; its identity and its models' hashes say which run it was."""
    hashes = ", ".join(f"{role} {model.sha256[:16]}" for role, model in sorted(manifest.models.items()))
    fields: Mapping[str, str] = {
        "title": manifest.title,
        "year": manifest.created_at[:4],
        "howpublished": f"LFP Explorer {manifest.versions.get('lfp-explorer', '')} bundle".replace("  ", " "),
        "note": f"bundle {manifest.bundle_id}, models {hashes}" if hashes else f"bundle {manifest.bundle_id}",
    }
    lines = []
    for name, value in fields.items():
        # what BibTeX or TeX would act on is escaped, and braces balance
        plain_text = re.sub(
            r"([\\{}$&%#_~^])", lambda found: "" if found[1] in "\\{}~^" else f"\\{found[1]}", visible(value)
        )
        if value:
            lines.append(f"  {name:<12} = {{{plain_text}}}")
    return f"@misc{{lfp-{manifest.bundle_id},\n" + ",\n".join(lines) + "\n}"


def as_toml(values: Mapping[str, Any]) -> str:
    """Return values as TOML: sections last, nulls left out, since TOML has none and they are defaults."""
    return "\n".join(_table(values, ())).strip() + "\n"


def as_json(values: Mapping[str, Any]) -> str:
    """Return values as JSON, nulls and all."""
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


WRITERS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {"TOML": as_toml, "JSON": as_json}
"""By the name people choose."""


def _table(values: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    lines, sections = [], []
    for name, value in values.items():
        if isinstance(value, Mapping):
            inside = (*path, name)
            sections += ["", f"[{'.'.join(map(_key, inside))}]", *_table(value, inside)]
        elif value is not None:
            lines.append(f"{_key(name)} = {_value(value)}")
    return lines + sections


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):  # JSON's escapes are among TOML's, which wants one more
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(part) for part in value if part is not None)}]"
    if isinstance(value, Mapping):
        pairs = (f"{_key(name)} = {_value(part)}" for name, part in value.items() if part is not None)
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else f"{'-' if value < 0 else ''}inf"
    return repr(value)
