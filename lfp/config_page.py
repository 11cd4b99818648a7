"""The keys of a config as text: the page docs/CONFIG.md, and a commented TOML file to start from.

`python -m lfp.config_page docs/CONFIG.md` writes the page; with --check it says whether the page is current.
"""

from __future__ import annotations

import argparse
import ast
import functools
import inspect
import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lfp.config import COMMAND_SECTIONS, AdapterConfig, PretrainedSae, RunConfig, Section
from lfp.config_sections.commands import SweepRates

_PREFACE = """# Config: every key

A run is a TOML file: `lfp run CONFIG.toml --out BUNDLE`. A key that the file leaves out has its default, and
`--set section.key=value` changes a key on the command line. `lfp config` prints a commented file to start from, and
`lfp config --for imdb` one with the values of a preset. A relative path is searched beside the file first.

`[sweep]`, `[plant]` and `[language_model]` are settings of commands: they are not part of the run's config, and a
bundle does not hold them. `demo` is `run` with a preset. `ablate` and `label` read the config in a bundle's manifest,
and take `--set` too.

This page is generated from `lfp/config.py` and `lfp/config_sections/` by `make docs`; edit those.
"""
_KINDS = {int: "integer", float: "number", str: "text", bool: "true or false"}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_COMMENT = textwrap.TextWrapper(118, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def build_page() -> str:
    """Return the page: a table per section with key, type, default and meaning."""
    parts = [_PREFACE]
    for name, section in _sections().items():
        readers = ", ".join(f"`{command}`" for command in section.commands)
        title = f"`[{name}]`" if name else "Top level"
        parts.append(f"## {title}\n\n{inspect.cleandoc(section.__doc__ or '')}\n\nRead by {readers}.\n")
        parts.append("| key | type | default | meaning |\n| --- | --- | --- | --- |")
        for key, field, meaning in _keys(section):
            default = "required" if field.is_required() else "none"
            if field.default is not None and not field.is_required():
                default = "see below" if isinstance(field.default, BaseModel) else f"`{_toml(field.default)}`"
            type_ = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
            cells = (f"`{key}`", _words(type_), default, meaning)
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts.append("")
    return "\n".join(parts)


def build_toml(values: Mapping[str, Any]) -> str:
    """Return a commented TOML file with every key of a run's config, as in `values` or at its default.

    `values` are plain values as a TOML file holds them; a key without a value becomes a comment. The sections of
    commands are there where `values` have them.
    """
    lines: list[str] = []
    for name, section in _sections().items():
        if "." in name or (name in COMMAND_SECTIONS and name not in values):
            continue
        table = values.get(name, {}) if name else values
        summary = inspect.cleandoc(section.__doc__ or "").split("\n\n")[0]
        lines += [*_COMMENT.wrap(summary), *([f"[{name}]"] if name else []), ""]
        for key, field, meaning in _keys(section):
            value = table.get(key, field.default)
            lines += [*_COMMENT.wrap(meaning), f"# {key} =" if value is None else f"{key} = {_toml(value)}", ""]
    return "\n".join(lines)


def _sections() -> dict[str, type[Section]]:
    """Return the sections by name: the top level as "", the run's, those of commands, and tables in a section."""
    found: dict[str, type[Section]] = {"": RunConfig}
    for name, field in RunConfig.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found[name] = field.annotation
            if name == "sae":
                found["sae.pretrained"] = PretrainedSae
            if name == "tune":
                found["tune.adapter"] = AdapterConfig
    return {**found, **COMMAND_SECTIONS, "sweep.learning_rate": SweepRates}


def _keys(section: type[Section]) -> list[tuple[str, FieldInfo, str]]:
    """Return name, field and meaning of the keys of a section; the top level's without the sections."""
    meanings = _meanings(section)
    fields = section.model_fields.items()
    sections = _sections() if section is RunConfig else {}
    return [(name, field, meanings[name]) for name, field in fields if name not in sections]


@functools.cache
def _meanings(section: type[Section]) -> dict[str, str]:
    """Return the docstrings below a section's fields. Reads the source, which pydantic does not keep."""
    found: dict[str, str] = {}
    (node,) = ast.parse(inspect.getsource(section)).body
    assert isinstance(node, ast.ClassDef)
    for field, below in pairwise([*node.body, ast.Pass()]):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            text = str(below.value.value) if is_text else ""  # type: ignore[attr-defined]
            found[field.target.id] = " ".join(text.split())
    return found


def _words(type_: Any) -> str:
    """Return a type in words, with its bounds: `integer, at least 1`."""
    origin, parts = get_origin(type_), get_args(type_)
    if origin is Annotated:
        bounds = [
            f"{words} {getattr(rule, name):g}"
            for rule in parts[1:]
            for name, words in _BOUNDS.items()
            if hasattr(rule, name)
        ]
        return ", ".join([_words(parts[0]), *bounds])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in parts)
    if origin is tuple:
        return f"list: {_words(parts[0])}" if parts[-1] is ... else f"list of {len(parts)}: {_words(parts[0])}"
    if parts:  # of a union
        return " or ".join(_words(part) for part in parts if part is not type(None))
    return _KINDS.get(type_, "table")


def _toml(value: Any) -> str:
    """Return a value as TOML; a table inline, without the keys that have no value."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(part)}" for key, part in value.items() if part is not None) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def write_page(page: str, arguments: Sequence[str], *, source: str) -> int:
    """Write a generated page to the file named, or with --check say whether the file is current. Return the exit code.

    `source` is what the page is generated from.
    """
    parser = argparse.ArgumentParser(description=f"Write the page that is generated from {source}.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--check", action="store_true", help="only say whether the file is current")
    options = parser.parse_args(arguments)
    if not options.check:
        options.file.write_text(page, encoding="utf-8")
    elif not options.file.is_file() or options.file.read_text(encoding="utf-8") != page:
        sys.stderr.write(f"error: {options.file}: differs from {source}; run make docs\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(write_page(build_page(), sys.argv[1:], source="lfp/config_sections"))
