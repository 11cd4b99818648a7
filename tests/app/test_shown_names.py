"""A feature has one name on every page, and its examples never contradict it."""

import pyarrow as pa
import pytest

from app.components.feature import naming
from app.session import names
from lfp.bundle import queries
from lfp.bundle.store.connection import Store
from tests.app.reader import whole
from tests.conftest import rewrite

PAGES = {
    "overview": {}, "accuracy": {"word": "enjoyed"}, "inputs": {"text": "3"}, "pairs": {},
    "disagreements": {}, "drift": {}, "features": {"with_map": "false"}, "runs": {"other": "other"},
}  # fmt: skip


@pytest.fixture
def contradicted(copied_bundle):
    """A bundle whose labels all quote a word that no text holds."""

    def quote(rows):
        at = rows.schema.get_field_index("description")
        return rows.set_column(at, rows.schema.field(at), [["fires on “zebraic”"] * rows.num_rows])

    rewrite(copied_bundle, "labels", quote)
    return copied_bundle


def test_names_are_the_titles_of_the_features_pages(bundle, contradicted):
    for path in (bundle, contradicted):
        with Store.open(path) as store:
            for number, name in names._names(store, range(12)).items():
                rows = queries.excerpts.feature_excerpts(store, number)
                feature = queries.feature.feature(store, number)
                assert naming.page_title(feature, naming.strongest_words(rows))[0] == (name or "no label")
            assert names._names(store, ()) == {}


@pytest.mark.parametrize("page", PAGES)
def test_no_page_shows_a_name_that_its_examples_contradict(explorer, contradicted, tmp_path, page):
    shown = [contradicted]
    if page == "runs":
        (tmp_path / "other").symlink_to(contradicted)
        shown.append(tmp_path / "other")
    at = explorer(page, *shown, **PAGES[page])
    drawn = whole(at) + "".join(chart.proto.spec for chart in at.get("plotly_chart"))
    tables = [pa.Table.from_pandas(table.value).to_pylist() for table in at.dataframe]
    labels = [label for box in at.selectbox for label in box.options] + [button.label for button in at.button]
    assert "zebraic" not in drawn + str(tables) + str(labels)
    assert ("strongest on" in drawn + str(tables)) == (page != "pairs")
