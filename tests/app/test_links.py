"""What an address says of its bundle, and the reviewer's name that a browser keeps."""

from lfp.bundle.manifest import read_manifest
from lfp.testing.synthetic import make_bundle
from tests.app.reader import tame


def test_a_link_to_another_bundle_says_so_and_offers_it(explorer, bundle, tmp_path):
    path = make_bundle(tmp_path / "later", n_features=20, n_texts=10, seed=5)
    other = read_manifest(path).bundle_id
    at = explorer("feature", bundle, path, feature="3", bundle_id=other)
    page = tame(at)
    assert "This link is to another bundle" in page and other in page
    assert '<a href="feature?feature=3&amp;bundle=later" target="_self">Open it in later</a>' in page
    at.selectbox(key="bundle").set_value("later").run()
    assert "This link is to another bundle" not in tame(at) and "bundle_id" not in at.query_params


def test_a_link_to_an_unknown_bundle_offers_none_and_its_own_says_nothing(explorer, bundle, paired):
    page = tame(explorer("overview", bundle, paired, bundle_id="<b>nowhere"))
    assert "This link is to another bundle" in page and "Open it in" not in page
    page = tame(explorer("overview", bundle, paired, bundle_id=read_manifest(bundle).bundle_id))
    assert "This link is to another bundle" not in page


def test_the_reviewers_name_is_read_from_the_browser(explorer, bundle, cookies):
    cookies["lfp_reviewer"] = "Ann%20B%C3%A4r"
    assert explorer("queue", bundle).text_input(key="reviewer").value == "Ann Bär"
