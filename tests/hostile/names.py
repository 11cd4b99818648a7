"""Names that are data: what folders, bundles, lists, reviewers and texts may be called, and what reads them."""

from __future__ import annotations

import csv
import io
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from app.components.html import exports
from lfp.bundle.store.connection import Store
from lfp.bundle.validation import validate
from lfp.testing.synthetic import make_bundle
from lfp.util.sanitize import bare, visible

STRINGS = (
    "", " ", "<script>alert(1)</script>", "</style><img src=x onerror=alert(1)>", "$x^2$ **bold** [a](javascript:b)",
    "'; DROP TABLE texts; --", '"quoted"', "100 %", "%s %(x)s {0} {x}", "run[1]*?", "a\nb\r\nc\td", "\x00zero",
    "\x1b[31m", "\u202eright to left", "\u200bhidden\ufeff", "=1+1", "\uff1d1+1", "\n=1+1", "\ufeff=1+1", "@SUM(A1)",
    "a" * 20_000, "🙂 naïve 漢字", ":red[colour] :material/home:", "../../etc/passwd", "/home/somebody/secret",
    "C:\\Users\\somebody\\secret", "NaN", "\u0301\u0301\u0301", "\ufdfa" * 50,
)  # fmt: skip
FOLDERS = (
    "run[1]", "run*", "ru?1", "[!a]", "{a,b}", "100 %", "%41", "it's", '"quoted"', "a;b", "a b", "a\nb", "-x", "$HOME",
    "`id`", "~", "**bold**", "[a](b)", "<b>x<b>", "\u202eolleh", "漢字", "a\\b", "#1", "a&b=c", ":red[x]", "'; --",
)  # fmt: skip
"""Names of folders that a file system takes; beside each lies another bundle that its name as a pattern would match."""
SPREADSHEET = "=+-@\t\r\n\ufeff\uff1d\uff0b\uff0d\uff20"
"""What a cell of a CSV file must not begin with."""


def folder_faults(name: str, folder: Path, source: Path, others: tuple[Path, ...]) -> list[str]:
    """Open, validate and count a bundle in a folder of this name, beside others."""
    path = folder / name
    shutil.copytree(source, path)
    rows = {}
    for each in (path, *others):
        with Store.open(each) as store:
            rows[each] = [store.rows(f"SELECT count(*) AS n FROM {table}")[0]["n"] for table in ("features", "texts")]
    with Store.open(source) as store:
        expected = [store.manifest.tables[table].rows for table in ("features", "texts")]
    faults = [f"{name!r}: {fault}" for fault in validate(path)]
    return faults + ([f"{name!r}: has {rows[path]} rows"] if rows[path] != expected else [])


def csv_faults(texts: tuple[str, ...]) -> list[str]:
    """Write texts as CSV and read them again: none begins like a formula, and all come back."""
    content = exports.csv(pa.table({"text": list(texts), **{text: ["x"] * len(texts) for text in texts if text}}))
    header, *rows = csv.reader(io.StringIO(content.decode("utf-8"), newline=""))
    faults = [f"{cell!r}" for cell in (*header, *(row[0] for row in rows)) if cell.startswith(tuple(SPREADSHEET))]
    lost = [text for text, row in zip(texts, rows, strict=True) if bare(row[0]) != text.replace("\x00", "")]
    return faults + [f"{text!r} does not come back" for text in lost]


def audit_faults(url: str, texts: tuple[str, ...]) -> list[str]:
    """Save lists and verdicts under these names and read them: as they were, or refused in a sentence."""
    from lfp.audit import AuditList, AuditStore, BundleKey, Verdict
    from lfp.errors import AuditError

    store, faults = AuditStore(url), []
    for number, text in enumerate(texts):
        bundle = BundleKey(f"bundle {number}", text)
        try:
            store.add(bundle, Verdict(number, text, related="yes", note=text))
            store.add_list(bundle, AuditList(name=text, feature_ids=(number,)))
        except AuditError as error:
            if "\n" in str(error):
                faults.append(f"{text!r}: {error}")
            continue
        shown = " ".join(visible(text).split())
        if [each.name for each in store.lists(bundle)] != [shown] or len(store.history(bundle)) != 1:
            faults.append(f"{text!r}: is {store.lists(bundle)}")
    return faults


def main(seed: int, count: int) -> dict[str, Any]:
    """Try every name as a folder's, and pages, CSV and audits with `count` texts made of several."""
    from tests.hostile.pages import shows

    draw = random.Random(seed)
    texts = (*STRINGS, *("".join(draw.choices(STRINGS[:-9], k=3))[:300] for _ in range(count)))
    faults = csv_faults(texts)
    with tempfile.TemporaryDirectory() as temporary, shows(public=True) as show:
        folder = Path(temporary)
        source = make_bundle(folder / "source", n_features=9, n_texts=4, n_layers=1)
        other = make_bundle(folder / "beside" / "run1", n_features=5, n_texts=3, n_layers=1)
        for name in FOLDERS:
            faults += folder_faults(name, folder / "beside", source, (other,))
            faults += [f"{name!r}: {each}" for each in show(folder / "beside" / name, "overview")]
        named = make_bundle(folder / "named", n_features=9, n_texts=0, n_layers=1, extra_texts=texts, title=texts[2])
        for page in ("overview", "features", "feature", "inputs", "accuracy", "about"):
            faults += [f"{page}: {each}" for each in show(named, page)]
        faults += audit_faults(f"sqlite:///{folder}/audits.sqlite", texts)
    return {"texts": len(texts), "folders": len(FOLDERS), "faults": faults}
