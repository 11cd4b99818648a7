"""Names that are data: in folders beside others, in CSV, in audits, and on pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from lfp.testing.synthetic import make_bundle
from tests.hostile import names


def test_a_bundle_is_read_from_a_folder_of_any_name(tmp_path: Path) -> None:
    source = make_bundle(tmp_path / "source", n_features=9, n_texts=4, n_layers=1)
    other = make_bundle(tmp_path / "beside" / "run1", n_features=5, n_texts=3, n_layers=1)
    for name in ("run[1]", "run*", "ru?1", "it's", "a\nb", "'; --"):
        assert names.folder_faults(name, tmp_path / "beside", source, (other,)) == []


def test_no_cell_of_a_csv_begins_like_a_formula() -> None:
    texts = (*names.STRINGS, *(f"{first}1+1" for first in names.SPREADSHEET), "''=1", "\n\n=1")
    assert names.csv_faults(texts) == []


def test_lists_and_verdicts_keep_any_name(tmp_path: Path) -> None:
    assert names.audit_faults(f"sqlite:///{tmp_path}/audits.sqlite", names.STRINGS) == []


@pytest.mark.parametrize("page", ["overview", "inputs"])
def test_pages_show_texts_as_texts(tmp_path: Path, page: str) -> None:
    from tests.hostile.pages import shows

    path = make_bundle(tmp_path / "b", n_features=9, n_texts=0, n_layers=1, extra_texts=names.STRINGS, title="</style>")
    with shows(public=True) as show:
        assert show(path, page) == []
