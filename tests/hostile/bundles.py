"""Bundles spoilt from a seed, in their tables, files and manifests, and what `validate` and every page say of them."""

from __future__ import annotations

import copy
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lfp.bundle.manifest import file_sha256
from lfp.bundle.schema import BY_NAME
from lfp.bundle.validation import validate
from lfp.testing.synthetic import make_bundle
from tests.hostile.names import STRINGS

NOT_FINITE = (float("nan"), float("inf"), float("-inf"))
NUMBERS = (*NOT_FINITE, 0, -1, 1e308, -1e308, 5e-324, 2**31 - 1, -(2**31), 2**63 - 1)
TYPES = (
    pa.string(), pa.large_string(), pa.binary(), pa.int8(), pa.int64(), pa.uint32(), pa.float16(), pa.float32(),
    pa.float64(), pa.bool_(), pa.date32(), pa.timestamp("us"), pa.decimal128(20, 2), pa.list_(pa.float32()),
    pa.list_(pa.string()), pa.struct([("a", pa.int32())]), pa.dictionary(pa.int32(), pa.string()), pa.null(),
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**70, 1e308, "", "x", "\ud800", "../../etc", [], {}, [1], {"a": 1}, [[None]], {"a": {"a": []}},
)  # fmt: skip
"""What a value of a manifest may become."""
MEMORY_MB, SECONDS = 1000.0, 10.0
"""What one validation may take, its seconds those of the processor."""


@dataclass(frozen=True)
class Mutant:
    """A spoilt bundle: where it is, what was done to it, and whether it has a number that is none."""

    path: Path
    says: str
    is_not_finite: bool = False


Counts = dict[str, Any]
Change = Callable[[Path, random.Random], tuple[str, bool]]


def mutants(source: Path, folder: Path, *, seed: int, count: int) -> Iterator[Mutant]:
    """Yield `count` spoilt copies of a bundle, one after the other in one folder that is deleted after each."""
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        path = folder / f"mutant{number}"
        shutil.copytree(source, path)
        change = draw.choices([kind for kind, _ in KINDS], [weight for _, weight in KINDS])[0]
        says, is_not_finite = change(path, draw)
        yield Mutant(path, f"{number}: {says}", is_not_finite)
        for link in path.rglob("*"):
            link.unlink() if link.is_symlink() else None
        shutil.rmtree(path)


def spoil_value(path: Path, draw: random.Random) -> tuple[str, bool]:
    """Replace one value of one column, or one inside its list, and let the manifest agree."""
    table, column = draw_column(path, draw)
    rows = read(path, table)
    at, new = draw.randrange(max(1, len(rows))), draw.choice((*NUMBERS, *STRINGS, None))
    if not len(rows):
        return "nothing", False
    values = rows[column].to_pylist()
    values[at] = put(values[at], rows.schema.field(column).type, new, draw)
    try:
        array = pa.array(values, rows.schema.field(column).type)
    except (pa.ArrowException, OverflowError, TypeError, ValueError, UnicodeError):
        return spoil_value(path, draw)
    write(path, table, rows.set_column(rows.schema.get_field_index(column), rows.schema.field(column).name, array))
    is_not_finite = (isinstance(new, float) and new != new) or new in NOT_FINITE
    return f"{table}.{column}[{at}] = {new!r}"[:120], is_not_finite and holds_not_finite(array)


def put(value: Any, type_: pa.DataType, new: Any, draw: random.Random) -> Any:
    """Return a value with `new` in its place, or in the place of one item or field inside it."""
    if pa.types.is_list(type_):
        items = list(value or [None])
        at = draw.randrange(len(items))
        return [*items[:at], put(items[at], type_.value_type, new, draw), *items[at + 1 :]]
    if pa.types.is_struct(type_):
        name = draw.choice([field.name for field in type_])
        return {**(value or {}), name: put(None, type_.field(name).type, new, draw)}
    if isinstance(new, float) and pa.types.is_integer(type_):
        return int(new) if abs(new) < 2**63 else 2**31 - 1
    return new


def holds_not_finite(array: Any) -> bool:
    """Whether an array has a NaN or an infinity, also inside its lists and structs."""
    if pa.types.is_list(array.type):
        return holds_not_finite(array.flatten())
    if pa.types.is_struct(array.type):
        return any(holds_not_finite(array.field(i)) for i in range(array.type.num_fields))
    return pa.types.is_floating(array.type) and pc.all(pc.is_finite(array)).as_py() not in (True, None)


def spoil_column(path: Path, draw: random.Random) -> tuple[str, bool]:
    """Give a column another type, another name, a copy of it, another column's values, nulls, or take it away."""
    table, column = draw_column(path, draw)
    rows = read(path, table)
    at, kind = rows.schema.get_field_index(column), draw.choice(("type", "null", "drop", "twice", "name", "order"))
    if kind == "type":
        type_ = draw.choice(TYPES)
        try:
            values = rows[column].cast(type_)
        except (pa.ArrowException, NotImplementedError):
            values = pa.nulls(len(rows), type_) if draw.random() < 0.5 else zeros(len(rows), type_)
        rows, kind = rows.set_column(at, column, values), f"type {type_}"
    elif kind == "null":
        rows = rows.set_column(at, column, pa.nulls(len(rows), rows.schema.field(at).type))
    elif kind == "drop":
        rows = rows.remove_column(at)
    elif kind == "twice":
        rows = rows.append_column(column, rows[column])
    elif kind == "name":
        rows = rows.rename_columns([column.upper() if i == at else name for i, name in enumerate(rows.column_names)])
    else:
        rows = rows.select(draw.sample(rows.column_names, rows.num_columns))
    write(path, table, rows)
    return f"{table}.{column}: {kind}", False


def zeros(n: int, type_: pa.DataType) -> Any:
    """Return a column of values that a type has, whatever it is."""
    value: Any = [] if pa.types.is_list(type_) else {"a": 1} if pa.types.is_struct(type_) else "x"
    for each in (value, 0, b"x", True):
        try:
            return pa.array([each] * n, type_)
        except (pa.ArrowException, TypeError, ValueError):
            continue
    return pa.nulls(n, type_)


def spoil_rows(path: Path, draw: random.Random) -> tuple[str, bool]:
    """Shuffle, double, drop or swap rows of a table, swap it with another, or change ids."""
    table, rows = draw_table(path, draw)
    kind = draw.choice(("shuffle", "twice", "half", "none", "other table", "ids", "lists"))
    if kind == "shuffle":
        rows = rows.take(pa.array(draw.sample(range(len(rows)), len(rows)), pa.int64()))
    elif kind == "twice":
        rows = pa.concat_tables([rows, rows])
    elif kind == "half":
        rows = rows.slice(len(rows) // 2)
    elif kind == "none":
        rows = rows.slice(0, 0)
    elif kind == "other table":
        other, found = draw_table(path, draw)
        write(path, other, rows)
        rows, kind = found, f"swapped with {other}"
    else:
        wanted = pa.types.is_integer if kind == "ids" else pa.types.is_list
        names = [field.name for field in rows.schema if wanted(field.type)]
        if names:
            name = draw.choice(names)
            values = rows[name].to_pylist()
            change: Callable[[Any], Any] = {
                "ids": lambda value: value if value is None else draw.choice((value, -1, 0, 2**31 - 1, value + 1)),
                "lists": lambda value: value if value is None else draw.choice((value[1:], [*value, *value], [])),
            }[kind]
            array = pa.array([change(value) for value in values], rows.schema.field(name).type)
            rows, kind = rows.set_column(rows.schema.get_field_index(name), name, array), f"{kind} of {name}"
    write(path, table, rows)
    return f"{table}: {kind}", False


def spoil_file(path: Path, draw: random.Random) -> tuple[str, bool]:
    """Cut, flip, empty or delete a file, or put a folder, link or pipe in its place; the manifest may agree."""
    file = draw.choice([*sorted(path.glob("*.parquet")), path / "manifest.json"])
    content = bytearray(file.read_bytes())
    kind = draw.choice(("cut", "flip", "many flips", "empty", "gone", "folder", "link", "pipe", "noise", "text"))
    file.unlink()
    if kind in ("cut", "flip", "many flips", "empty", "noise", "text"):
        for _ in range({"flip": 1, "many flips": 40}.get(kind, 0)):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        made = {
            "cut": content[: draw.randrange(len(content))], "empty": b"", "noise": draw.randbytes(500), "text": b"[]\n",
        }  # fmt: skip
        file.write_bytes(bytes(made.get(kind, content)))
    elif kind == "folder":
        file.mkdir()
    elif kind == "link":
        elsewhere = path.parent / f"elsewhere-{file.name}"
        elsewhere.write_bytes(bytes(content))
        file.symlink_to(elsewhere)
    elif kind == "pipe":
        os.mkfifo(file)
    if file.suffix == ".parquet" and file.is_file() and draw.random() < 0.7:
        state(path, file.stem, rows=None)
    return f"{file.name}: {kind}", False


def spoil_manifest(path: Path, draw: random.Random) -> tuple[str, bool]:
    """Replace, drop or rename a value anywhere in the manifest, nest it, or write it as something else than JSON."""
    file = path / "manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    places = list(places_in(manifest))
    where, key = draw.choice(places if draw.random() < 0.6 else [found for found in places if "config" in found[0]])
    parent: Any = manifest
    for part in where:
        parent = parent[part]
    kind = draw.choice(("value", "value", "value", "drop", "nest", "name", "number", "twice"))
    new: Any = draw.choice((*VALUES, *STRINGS))
    text = None
    if kind == "drop":
        del parent[key]
    elif kind == "nest":
        for _ in range(draw.choice((3, 40, 60))):
            new = [new] if draw.random() < 0.5 else {"a": new}
        parent[key] = new
    elif kind == "name" and isinstance(parent, dict):
        parent[draw.choice(STRINGS)] = parent.pop(key)
    elif kind == "number":
        parent[key] = draw.choice((float("nan"), float("inf"), -1, 0, 2**70, 1e400))
    elif kind == "twice":
        text = json.dumps(manifest) + json.dumps(manifest)
    else:
        parent[key] = copy.deepcopy(new)
    file.write_bytes((text or json.dumps(manifest)).encode("utf-8", "surrogatepass"))
    return f"manifest {'.'.join(map(str, (*where, key)))}: {kind} {str(new)[:40]!a}", False


def places_in(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield every key of every object and list inside, with the path to what holds it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inside in items:
        yield where, key
        yield from places_in(inside, (*where, key))


def spoil_links(path: Path, draw: random.Random) -> tuple[str, bool]:
    """Let the manifest or a link lead out of the bundle: see `outside`."""
    name, change = draw.choice(outside())
    change(path)
    return f"out of the bundle: {name}", False


KINDS: tuple[tuple[Change, int], ...] = (
    (spoil_value, 6), (spoil_column, 5), (spoil_rows, 4), (spoil_file, 3), (spoil_manifest, 6), (spoil_links, 1),
)  # fmt: skip
"""What is done to bundles, and how often."""


def outside() -> tuple[tuple[str, Callable[[Path], object]], ...]:
    """Return twenty ways in which a bundle may name what is not its own, each with what makes a bundle so."""
    return (
        *((f"artifact {name!r}", lambda path, name=name: add_artifact(path, name)) for name in (
            "../secret", "artifacts/../../secret", "/etc/passwd", "artifacts//../../secret", "..", ".", "",
            "artifacts", "./../secret", "artifacts/\x00", "a" * 5000, "\\\\host\\share\\x", "manifest.json",
        )),
        ("artifact that is a link", lambda path: link_artifact(path, "file")),
        ("artifact in a linked folder", lambda path: link_artifact(path, "folder")),
        ("artifact linked inside the bundle", lambda path: link_artifact(path, "inside")),
        ("table that is a link", lambda path: link_file(path, "features.parquet", inside=False)),
        ("table linked to a hidden file of the bundle", lambda path: link_file(path, "texts.parquet", inside=True)),
        ("manifest that is a link", lambda path: link_file(path, "manifest.json", inside=False)),
        ("hard link of a file that is not listed", lambda path: os.link(secret(path), folder(path) / "unlisted")),
        ("link that loops", lambda path: (folder(path) / "loop").symlink_to(path / "artifacts")),
        ("link in artifacts that is not listed", lambda path: (folder(path) / "passwd").symlink_to("/etc/passwd")),
    )  # fmt: skip


def secret(path: Path) -> Path:
    """Return a file beside the bundle that is none of its own."""
    file = path.parent / "secret"
    file.write_text("not yours", encoding="utf-8")
    return file


def folder(path: Path) -> Path:
    """Return the bundle's folder of artifacts."""
    (path / "artifacts").mkdir(exist_ok=True)
    return path / "artifacts"


def add_artifact(path: Path, name: str) -> None:
    """List a file of any name as an artifact, with the size and hash of what is there."""
    secret(path)
    file = Path("/nowhere") if "\x00" in name or len(name) > 4000 else path / name
    is_there = file.is_file()
    info = {"bytes": file.stat().st_size if is_there else 0, "sha256": file_sha256(file) if is_there else "0" * 64}
    change_manifest(path, lambda manifest: manifest["artifacts"].update({name: info}))


def link_artifact(path: Path, kind: str) -> None:
    """List an artifact behind a link: to a file or a folder outside, or to a table of the bundle."""
    if kind == "folder":
        elsewhere = path.parent / "folder"
        elsewhere.mkdir(exist_ok=True)
        (elsewhere / "weights").write_text("not yours", encoding="utf-8")
        (folder(path) / "linked").symlink_to(elsewhere)
        add_artifact(path, "artifacts/linked/weights")
        return
    (folder(path) / "linked").symlink_to(path / "features.parquet" if kind == "inside" else secret(path))
    add_artifact(path, "artifacts/linked")


def link_file(path: Path, name: str, *, inside: bool) -> None:
    """Move a file of the bundle elsewhere and put a link in its place."""
    elsewhere = path / f".{name}" if inside else path.parent / f"moved-{name}"
    (path / name).rename(elsewhere)
    (path / name).symlink_to(elsewhere)


def read(path: Path, table: str) -> pa.Table:
    """Read a table as it is."""
    return pq.read_table(path / f"{table}.parquet")


def write(path: Path, table: str, rows: pa.Table) -> None:
    """Write a table, and let the manifest agree."""
    pq.write_table(rows, path / f"{table}.parquet")
    state(path, table, rows=rows.num_rows)


def state(path: Path, table: str, *, rows: int | None) -> None:
    """Let the manifest state the size and hash of a table as it is, and its rows where they are given."""
    file = path / f"{table}.parquet"
    info = {"bytes": file.stat().st_size, "sha256": file_sha256(file), **({} if rows is None else {"rows": rows})}
    change_manifest(path, lambda manifest: manifest["tables"][table].update(info))


def change_manifest(path: Path, change: Callable[[Any], object]) -> None:
    """Change the manifest in place."""
    file = path / "manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    change(manifest)
    file.write_text(json.dumps(manifest), encoding="utf-8")


def draw_table(path: Path, draw: random.Random) -> tuple[str, pa.Table]:
    """Draw a table of the bundle."""
    name = draw.choice(sorted(name.stem for name in path.glob("*.parquet") if name.stem in BY_NAME))
    return name, read(path, name)


def draw_column(path: Path, draw: random.Random) -> tuple[str, str]:
    """Draw a column of any table."""
    name, rows = draw_table(path, draw)
    return name, draw.choice(rows.column_names)


@dataclass(frozen=True)
class Judgement:
    """What `validate` said of a bundle, how long it took, and how much memory the process needed beyond its own."""

    faults: tuple[str, ...]
    seconds: float
    peak_mb: float
    crash: str = ""


def judge(path: Path) -> Judgement:
    """Validate a bundle and print what is wrong as the command does; a crash is the last line of its traceback."""
    started = time.process_time()
    with peak_of_this_process() as peak_mb:
        try:
            faults, crash = tuple(validate(path)), ""
            "\n".join(faults).encode()
        except Exception:  # noqa: BLE001
            faults, crash = (), " | ".join(traceback.format_exc().splitlines()[-3:])
    return Judgement(faults, time.process_time() - started, peak_mb(), crash)


@contextmanager
def peak_of_this_process() -> Iterator[Callable[[], float]]:
    """Yield a function that returns the most megabytes by which this process grew since the block began.

    Only Linux can reset the peak; elsewhere it is that of the whole process.
    """
    before = 0.0
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = _status_mb("VmRSS")

    def peak_mb() -> float:
        if sys.platform == "linux":
            return _status_mb("VmHWM") - before
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000

    yield peak_mb


def _status_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1000


def sources(folder: Path) -> tuple[Path, ...]:
    """Make the bundles that are spoilt: of texts, and of pairs."""
    plain = make_bundle(folder / "plain", n_features=20, n_texts=12, n_layers=2)
    return plain, make_bundle(folder / "pairs", n_features=16, n_texts=12, n_pairs=6, pooling="response")


def spoilt(seed: int, count: int) -> Iterator[Mutant]:
    """Yield `count` bundles spoilt from a seed, half of them of pairs, one at a time."""
    with tempfile.TemporaryDirectory() as name:
        made = sources(Path(name))
        for number, source in enumerate(made):
            each = -(-count // len(made)) if number == 0 else count // len(made)
            yield from mutants(source, Path(name) / f"spoilt{number}", seed=seed + number, count=each)


def run(found: Iterable[Mutant], *, show: Callable[[Path, str], list[str]] | None = None, pages: int = 3) -> Counts:
    """Validate each spoilt bundle and open pages of it; return the counts, and what went wrong.

    `show` opens a page of a bundle and returns what failed. Of a bundle that `validate` accepts every page is opened,
    of others `pages` that are drawn.
    """
    from tests.app.reader import PAGES

    faults, seconds, peaks, n_valid, n_pages = [], [0.0], [0.0], 0, 0
    for mutant in found:
        judgement = judge(mutant.path)
        seconds.append(judgement.seconds)
        peaks.append(judgement.peak_mb)
        is_valid = not judgement.faults and not judgement.crash
        n_valid += is_valid
        if judgement.crash:
            faults.append(f"{mutant.says}: validate: {judgement.crash}")
        if judgement.seconds > SECONDS or judgement.peak_mb > MEMORY_MB:
            faults.append(f"{mutant.says}: took {judgement.seconds:.1f} s and {judgement.peak_mb:.0f} MB")
        if is_valid and mutant.is_not_finite:
            faults.append(f"{mutant.says}: called valid")
        if show is None:
            continue
        opened = PAGES if is_valid else random.Random(mutant.says).sample(PAGES, pages)
        n_pages += len(opened)
        for page in opened:
            failed = show(mutant.path, page)
            if not is_valid:
                failed = [each for each in failed if not each.startswith("notice")]
            faults += [f"{mutant.says}: {page}: {each}" for each in failed]
    return {
        "bundles": len(seconds) - 1, "valid": n_valid, "page_loads": n_pages, "longest_s": round(max(seconds), 2),
        "peak_mb": round(max(peaks)), "faults": faults,
    }  # fmt: skip


def main(seed: int, count: int) -> Counts:
    """Spoil bundles and look at each with `validate` and in the explorer."""
    from tests.hostile.pages import shows

    with shows() as show:
        return run(spoilt(seed, count), show=show)
