"""The library's entrance: what a notebook reads of a bundle, and the sentences it gets for bad input."""

import json
import subprocess
import sys

import pandas as pd
import pyarrow as pa
import pytest

import lfp
from lfp.errors import BundleError, ConfigError, DependencyError, LfpError, NotInBundleError
from lfp.testing.synthetic import make_bundle
from tests.conftest import ROOT


@pytest.fixture
def run(bundle):
    with lfp.open_bundle(bundle) as opened:
        yield opened


def test_importing_the_library_is_fast_and_imports_nothing_heavy():
    code = (
        "import sys, time; began = time.perf_counter(); import lfp; took = time.perf_counter() - began;"
        "heavy = {'torch', 'pandas', 'duckdb', 'pyarrow', 'numpy', 'pydantic', 'precompute'} & set(sys.modules);"
        "sys.exit(f'{heavy} {took:.2f} s' if heavy or took > 0.3 else 0)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_every_public_name_is_found_and_has_a_sentence_that_says_what_it_does():
    for name in lfp.__all__:
        found = getattr(lfp, name)
        assert callable(found) and found.__doc__, name
    assert set(lfp.__all__) <= set(dir(lfp))
    with pytest.raises(AttributeError, match="no attribute 'lable'"):
        _ = lfp.lable


def test_every_command_is_a_function_of_the_library():
    from precompute.commands import VERBS

    assert set(VERBS) <= set(lfp.__all__)


def test_a_verb_may_have_the_name_of_a_folder(bundle):
    """`lfp.report` is a folder and a verb, whichever is used first."""
    import lfp.report.text

    assert lfp.report.text.format_report and lfp.report(bundle).rows["reward"]


def test_a_missing_package_of_the_jobs_is_one_sentence_that_names_the_command(bundle):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import lfp, lfp.errors\n"
        f"run = lfp.open_bundle({str(bundle)!r})\n"
        "for call in (lambda: run.encode('a film'), lambda: lfp.load_sae('x')):\n"
        "    try: call()\n"
        "    except lfp.errors.DependencyError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("needs the package torch" in line and "pip install 'lfp-explorer[jobs]'" in line for line in lines)
    assert issubclass(DependencyError, LfpError)


@pytest.mark.parametrize(
    "read",
    [
        lambda run, **how: run.features(**how),
        lambda run, **how: run.words(**how),
        lambda run, **how: run.texts(**how),
        lambda run, **how: run.tokens(3, **how),
        lambda run, **how: run.pairs(**how),
        lambda run, **how: run.results(**how),
        lambda run, **how: run.ledger(3, **how),
        lambda run, **how: run.table("layers", **how),
        lambda run, **how: run.sql("SELECT layer, count(*) AS n FROM features GROUP BY layer", **how),
        lambda run, **how: run.feature(3).examples(**how),
        lambda run, **how: run.feature(3).labels(**how),
        lambda run, **how: run.feature(3).neighbours(**how),
        lambda run, **how: run.feature(3).histogram(**how),
    ],
)
def test_everything_comes_as_a_dataframe_or_as_arrow_with_the_same_columns(run, read):
    frame, table = read(run), read(run, arrow=True)
    assert isinstance(frame, pd.DataFrame) and isinstance(table, pa.Table)
    assert list(frame.columns) == table.column_names and len(frame) == table.num_rows


def test_features_are_sorted_cut_and_filtered(run):
    frame = run.features(sort="density", limit=5, layers=(1,), columns=["feature_id", "layer", "density"])
    assert list(frame.columns) == ["feature_id", "layer", "density"] and set(frame.layer) == {1}
    expected = run.sql("SELECT feature_id FROM features WHERE layer = ? ORDER BY density DESC, 1 LIMIT 5", [1])
    assert frame.feature_id.tolist() == expected.feature_id.tolist()


def test_words_are_sorted_with_missing_values_last(run):
    gaps = run.words(sort="implicit_gap").implicit_gap
    known = gaps.dropna()
    assert known.is_monotonic_decreasing and gaps[: len(known)].notna().all()


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("limit", [None, 3])
def test_a_ledger_sums_to_the_stated_prediction_and_says_so(run, raw, limit):
    frame = run.ledger(5, raw=raw, limit=limit)
    assert frame.contribution.sum() == pytest.approx(frame.attrs["predicted"], abs=1e-6)
    assert frame.attrs["error"] == pytest.approx(abs(frame.attrs["total"] - frame.attrs["predicted"]))
    assert limit is None or (frame.part == "feature").sum() == limit
    checked = run.ledger(5, raw=raw, arrow=True).schema.metadata
    assert float(checked[b"predicted"]) == frame.attrs["predicted"]


def test_tokens_make_up_their_text(run):
    frame = run.tokens(5)
    assert "".join(frame.token) == run.sql("SELECT text FROM texts WHERE text_id = 5").text[0]


def test_the_token_of_an_example_is_where_the_feature_fires(run):
    frame = run.feature(7).examples()
    for row in frame.itertuples():
        assert run.tokens(row.text_id).token[row.position] == row.token
    assert set(run.feature(7).examples(bucket=0).bucket) == {0}


def test_the_report_of_a_bundle_is_that_of_the_verb(run, bundle):
    assert run.report().rows == lfp.report(bundle).rows
    assert set(run.results("reward").report_row) == {"reward"}


def test_a_bundle_says_what_it_is(run, bundle):
    said = repr(run)
    assert str(bundle) in said and "60 features" in said and "40 texts" in said
    assert "layer" in repr(run.feature(3)) and run.manifest.title in said
    assert run.validate() == lfp.validate(str(bundle)) == []


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        (lambda run: run.feature(9999), NotInBundleError, "there is no feature 9999 in this bundle; it holds"),
        (lambda run: run.ledger(9999), NotInBundleError, "there is no text 9999"),
        (lambda run: run.ledger(39), NotInBundleError, "activations were not kept"),
        (lambda run: run.tokens(9999), NotInBundleError, "there is no text 9999"),
        (lambda run: run.features(sort="contribuion"), ConfigError, "did you mean contribution?"),
        (lambda run: run.features(columns=["wieght"]), ConfigError, "did you mean weight?"),
        (lambda run: run.features(layer=3), ConfigError, "did you mean 'layers'?"),
        (lambda run: run.words(sort="zzz"), ConfigError, "choose one of word, n,"),
        (lambda run: run.texts(sort="ratings"), ConfigError, "did you mean rating?"),
        (lambda run: run.pairs(sort="margins"), ConfigError, "did you mean margin?"),
        (lambda run: run.table("feature"), ConfigError, "did you mean 'features'?"),
        (lambda run: run.results("rewards"), NotInBundleError, "did you mean 'reward'?"),
        (lambda run: run.sql("SELEC 1"), ConfigError, "syntax error"),
        (lambda run: run.sql("SELECT weigth FROM weights"), ConfigError, "weigth"),
        (lambda run: run.sql("SELECT 'a'::INT"), ConfigError, "Conversion Error"),
        (lambda run: run.sql("SELECT $n"), ConfigError, "not provided"),
    ],
)
def test_a_wrong_name_or_number_is_one_sentence_that_names_the_right_one(run, call, kind, says):
    with pytest.raises(kind) as error:
        call(run)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_no_probe_is_said(empty_bundle, tmp_path):
    with lfp.open_bundle(make_bundle(tmp_path / "b", n_features=0, n_texts=4)) as none:
        with pytest.raises(NotInBundleError, match="no probe was fitted"):
            none.ledger(0)
        assert len(none.features()) == len(none.pairs()) == 0 and "0 features" in repr(none)


@pytest.mark.parametrize("harm", ["missing", "file", "no manifest", "newer", "table gone", "cut", "hub"])
def test_what_cannot_be_opened_is_one_sentence(copied_bundle, harm):
    path = copied_bundle
    manifest = path / "manifest.json"
    if harm == "missing":
        path = path / "nowhere"
    elif harm == "file":
        path = manifest
    elif harm == "no manifest":
        manifest.unlink()
    elif harm == "newer":
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "schema_version": 99}))
    elif harm == "table gone":
        (path / "weights.parquet").unlink()
    elif harm == "cut":
        (path / "texts.parquet").write_bytes((path / "texts.parquet").read_bytes()[:-9])
    else:
        path = "hf://org/bundle"
    with pytest.raises(BundleError) as error:
        lfp.open_bundle(path)
    assert "\n" not in str(error.value) and ";" in str(error.value)


def test_module_credits_of_a_run_a_text_and_a_word(run):
    shares = run.module_credits()
    whole = shares[(shares.metric == "share") & shares.layer.isna() & (shares.module != "dictionaries")]
    assert whole.value.sum() == pytest.approx(1.0) and whole.ci_low.notna().all()
    credits = run.module_credits(3)
    for _, of_path in credits.groupby("path"):
        assert of_path.credit.sum() == pytest.approx(credits.attrs["reward"], abs=1e-6)
    word = credits.attrs and run.words(sort="n", limit=1).word[0]
    means = run.module_credits(word=word)
    assert set(means.path) == {"full", "same_position"} and (means.n > 0).all()
    with pytest.raises(NotInBundleError, match=r"'nowhere': not in the texts .* raise credits\.by_token"):
        run.module_credits(word="nowhere")
    with pytest.raises(NotInBundleError):
        run.module_credits(10**6)
    with pytest.raises(ConfigError, match="not both"):
        run.module_credits(3, word="film")


def test_a_bundle_made_before_credits_says_what_it_lacks(older_bundle):
    with lfp.open_bundle(older_bundle) as opened:
        with pytest.raises(NotInBundleError, match=r"was not split; raise credits\.n_texts"):
            opened.module_credits(int(opened.texts(limit=1).text_id[0]))
        assert opened.validate() == []
        assert opened.report().rows and (opened.features().site == "mlp_out").all()
