"""A bundle whose features are read at several sites: filters, columns and names that say which."""

import pytest

from app.components.feature import columns
from app.session import permalinks
from lfp.bundle import queries
from lfp.bundle.comparison import match_features
from lfp.bundle.queries.common import Order
from lfp.bundle.queries.drift import DriftFilter
from lfp.bundle.queries.features import FeatureFilter
from lfp.bundle.store.connection import Store
from lfp.testing.synthetic import make_bundle
from tests.app.reader import whole, words_of


@pytest.fixture(scope="module")
def sited(tmp_path_factory):
    """Two layers, read at the MLP output and in the residual stream: 20 features each."""
    path = tmp_path_factory.mktemp("bundles") / "sited"
    return make_bundle(path, n_features=80, n_layers=2, sites=("mlp_out", "resid_post"))


@pytest.fixture(scope="module")
def stream_only(tmp_path_factory):
    """Two layers, read in the residual stream alone."""
    path = tmp_path_factory.mktemp("bundles") / "stream"
    return make_bundle(path, n_features=20, n_layers=2, sites=("resid_post",), seed=1)


def controls(at):
    return [group.label for group in at.button_group]


@pytest.mark.parametrize("page", ["features", "drift"])
def test_sites_are_chosen_from_where_there_are_several(explorer, sited, stream_only, bundle, page):
    assert "Read at" in controls(explorer(page, sited))
    for other in (stream_only, bundle):
        assert "Read at" not in controls(explorer(page, other))


def test_a_link_lists_the_features_of_a_site(explorer, sited):
    at = explorer("features", sited, **permalinks.to_params(permalinks.FeaturesView(site=("resid_post",), layer=(1,))))
    whole(at)
    assert at.button_group(key="site").value == ["resid_post"]
    listed = at.dataframe[0].value
    assert set(listed["site"]) == {"residual stream"} and set(listed["layer"]) == {1} and len(listed) == 20
    assert "20 features" in words_of(at)


def test_a_link_to_drift_has_sites_too(explorer, sited):
    at = explorer("drift", sited, **permalinks.to_params(permalinks.DriftView(drift_site=("resid_post",))))
    whole(at)
    table = next(frame.value for frame in at.dataframe if "drifted_contribution" in frame.value)
    assert set(table["site"]) == {"residual stream"}


def test_a_site_of_no_name_filters_nothing(explorer, sited):
    at = explorer("features", sited, walk="", site=["nowhere"])
    whole(at)
    assert "80 features" in words_of(at)


def test_sites_go_without_saying_where_all_are_mlp_outputs(explorer, bundle, stream_only):
    assert "site" not in explorer("features", bundle).dataframe[0].value
    assert set(explorer("features", stream_only).dataframe[0].value["site"]) == {"residual stream"}


@pytest.mark.parametrize(("feature", "place"), [(0, "layer 0, MLP output"), (25, "layer 0, residual stream")])
def test_a_feature_says_where_it_is_read(explorer, sited, feature, place):
    at = explorer("feature", sited, feature=str(feature))
    whole(at)
    assert f">{place}</span>" in "".join(element.proto.body for element in at.get("html"))


def test_queries_filter_by_site(sited):
    with Store.open(sited) as store:
        assert queries.features.feature_sites(store) == ["mlp_out", "resid_post"]
        wanted = FeatureFilter(sites=("resid_post",))
        rows = queries.features.features(
            store, wanted, order=Order("id", False), columns=("feature_id", "layer", "site")
        )
        assert set(rows["site"].to_pylist()) == {"resid_post"} and rows.num_rows == 40
        assert queries.features.count_features(store, FeatureFilter(sites=("attn_out",))) == 0
        n = queries.drift.count_drift(store, DriftFilter())
        of_each = [queries.drift.count_drift(store, DriftFilter(sites=(site,))) for site in ("mlp_out", "resid_post")]
        assert sum(of_each) == n and min(of_each) > 0
        names = columns.names(queries.features.features(store, wanted, order=Order("id", False), limit=1))
        assert "· layer 0, residual stream ·" in next(iter(names))


def test_features_of_two_runs_match_within_a_site(sited):
    with Store.open(sited) as one, Store.open(sited) as other:
        pairs = match_features(one, other).pairs.to_pylist()
    assert pairs and all(
        (row["layer_one"], row["site_one"]) == (row["layer_other"], row["site_other"]) for row in pairs
    )


def test_a_site_is_not_named_where_there_is_one(explorer, bundle):
    assert ">layer 0</span>" in "".join(
        element.proto.body for element in explorer("feature", bundle, feature="0").get("html")
    )


def test_the_overview_says_what_the_saes_read(explorer, sited, bundle):
    assert "8 layers" not in words_of(explorer("overview", bundle))
    said = words_of(explorer("overview", sited))
    assert "of 4 layers, on their MLP output and residual stream." in said
    assert "layer 1, residual stream · tuned" in said
