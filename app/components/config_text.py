"""A run's config as TOML and JSON, as `python -m precompute run` reads it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def as_toml(values: Mapping[str, Any]) -> str:
    """The values as TOML: sections last, nulls left out, since TOML has none and they are defaults."""
    return "\n".join(_table(values, ())).strip() + "\n"


def as_json(values: Mapping[str, Any]) -> str:
    """The values as JSON, nulls and all."""
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


WRITERS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {"TOML": as_toml, "JSON": as_json}
"""By the name people choose."""


def _table(values: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    lines = [f"{_key(name)} = {_value(value)}" for name, value in values.items() if _is_plain(value)]
    for name, value in values.items():
        if isinstance(value, Mapping):
            inside = (*path, name)
            lines += ["", f"[{'.'.join(map(_key, inside))}]", *_table(value, inside)]
    return lines


def _is_plain(value: Any) -> bool:
    return value is not None and not isinstance(value, Mapping)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(one) for one in value if one is not None)}]"
    if isinstance(value, Mapping):
        pairs = (f"{_key(name)} = {_value(one)}" for name, one in value.items() if one is not None)
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else f"{'-' if value < 0 else ''}inf"
    return repr(value)


def _text(text: str) -> str:
    """A basic string; JSON's escapes are among TOML's, which wants one more."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
