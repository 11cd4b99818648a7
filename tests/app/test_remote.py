"""The explorer on bundles in an object store."""

import pytest
import streamlit as st

from app.session import bundles, remote
from lfp.bundle.remote.publishing import Target
from lfp.testing.synthetic import make_bundle
from tests.app.reader import tame, whole


@pytest.fixture
def address(bucket, bundle):
    """A bundle in a bucket."""
    remote.forget()
    st.cache_data.clear()  # answers that other tests had of the same bundle on this machine
    Target.find(f"{bucket}/runs/first").publish(bundle)
    yield f"{bucket}/runs/first"
    remote.forget()


def test_the_first_page_fetches_what_it_shows_and_sees_a_new_bundle(explorer, address, s3, tmp_path):
    s3.sent.clear()
    at = explorer("overview", address)
    assert "Synthetic reviews, praised" in tame(at)
    fetched = set(s3.fetched())
    assert "results.parquet" in fetched
    assert not fetched & {"token_scores.parquet", "activations.parquet", "neighbours.parquet"}
    Target.find(address).publish(make_bundle(tmp_path / "new", n_features=8, n_texts=6, title="The second run"))
    remote.forget()
    assert "The second run" in whole(at.run())


def test_every_kind_of_place_is_offered_by_name(address, bundle, bucket, s3):
    setting = f"{bundle}:{address},{bucket}/runs"
    assert bundles.listed_bundles(setting) == {bundle.name: bundle, "first": address}
    assert bundles.listed_bundles("http://127.0.0.1:9/run:/gone") == {"run": "http://127.0.0.1:9/run"}


def test_what_cannot_be_reached_is_said_on_the_page(explorer, s3, monkeypatch):
    remote.forget()
    assert "no such bucket or file" in whole(explorer("features", "s3://no-such-bucket/run"))
    monkeypatch.setenv("LFP_PUBLIC", "1")
    html = whole(explorer("features", "s3://no-such-bucket/run"))
    assert "no such bucket or file" in html and "s3://" not in html
