import json

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from lfp.bundle.manifest import Description, read_manifest
from lfp.bundle.validation import validate
from lfp.bundle.writer import BundleWriter
from lfp.testing.synthetic import make_bundle
from tests.conftest import change_byte, rewrite, with_column


def changed(name, change):
    """A table with one column changed, value by value, by `change(row, value)`."""
    return lambda table: with_column(
        table, name, [change(row, value) for row, value in enumerate(table[name].to_pylist())]
    )


def faults_after(bundle, table, change):
    rewrite(bundle, table, change)
    return validate(bundle)


def test_a_whole_bundle_has_no_fault(bundle):
    assert validate(bundle) == []


def test_no_bundle_is_one_fault(tmp_path):
    (fault,) = validate(tmp_path)
    assert "no bundle here" in fault


def test_another_version_is_one_fault(copied_bundle):
    file = copied_bundle / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": 99}))
    (fault,) = validate(copied_bundle)
    assert "schema version 99" in fault


def test_a_missing_table(copied_bundle):
    (copied_bundle / "labels.parquet").unlink()
    assert "table labels is missing" in validate(copied_bundle)


def test_a_changed_byte(broken_bundle):
    assert any("table features was changed" in fault for fault in validate(broken_bundle))


def test_an_unreadable_table_is_named(copied_bundle):
    path = copied_bundle / "features.parquet"
    path.write_bytes(b"x" * path.stat().st_size)
    assert any(fault.startswith("table features cannot be read") for fault in validate(copied_bundle))


def test_a_missing_column(copied_bundle):
    assert faults_after(copied_bundle, "features", lambda table: table.drop_columns(["shift"])) == [
        "table features: column shift is missing"
    ]


def test_a_column_of_another_type(copied_bundle):
    def as_doubles(table):
        at = table.schema.get_field_index("density")
        return table.set_column(at, "density", table["density"].cast(pa.float64()))

    assert faults_after(copied_bundle, "features", as_doubles) == [
        "table features: column density is double and must be float"
    ]


def test_a_further_column_is_no_fault(copied_bundle):
    extra = lambda table: table.append_column("later", pa.array([1] * table.num_rows))  # noqa: E731
    assert faults_after(copied_bundle, "layers", extra) == []


def test_a_null_where_none_may_be(copied_bundle):
    nulled = lambda table: table.set_column(  # noqa: E731
        table.column_names.index("density"),
        pa.field("density", pa.float32()),
        pa.array([None] * table.num_rows, pa.float32()),
    )
    assert "table features: column density is null in 60 rows and must not be" in faults_after(
        copied_bundle, "features", nulled
    )


def test_rows_not_as_stated(copied_bundle):
    file = copied_bundle / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["tables"]["layers"]["rows"] += 1
    file.write_text(json.dumps(manifest))
    n = manifest["tables"]["layers"]["rows"]
    assert validate(copied_bundle) == [f"table layers has {n - 1} rows where the manifest says {n}"]


def test_not_sorted(copied_bundle):
    backwards = lambda table: table.take(list(range(table.num_rows))[::-1])  # noqa: E731
    assert any(
        "table weights is not sorted by probe_id" in fault
        for fault in faults_after(copied_bundle, "weights", backwards)
    )


@pytest.mark.parametrize(
    ("table", "column", "found"),
    [
        ("examples", "text_id", "table examples: 1 of text_id are not in texts, such as 99999"),
        ("weights", "feature_id", "table weights: 1 of feature_id are not in features, such as 99999"),
        ("weights", "probe_id", "table weights: 1 of probe_id are not in probes, such as 99999"),
        ("neighbours", "neighbour_id", "table neighbours: 1 of neighbour_id are not in features, such as 99999"),
    ],
)
def test_a_dangling_number(copied_bundle, table, column, found):
    last = read_manifest(copied_bundle).tables[table].rows - 1
    assert found in faults_after(copied_bundle, table, changed(column, lambda row, v: 99999 if row == last else v))


def test_a_dangling_number_in_a_list(copied_bundle):
    def far(row, values):
        return [*values[:-1], 99999] if row == 0 else values

    faults = faults_after(copied_bundle, "activations", changed("feature_ids", far))
    assert "table activations: 1 of feature_ids are not in features, such as 99999" in faults


def test_a_row_twice(copied_bundle):
    twice = lambda table: pa.concat_tables([table.slice(0, 1), table])  # noqa: E731
    assert any(
        "table labels: feature_id, labeller occur twice" in f for f in faults_after(copied_bundle, "labels", twice)
    )


@pytest.mark.parametrize(
    ("table", "column", "change", "says"),
    [
        ("texts", "token_starts", lambda row, v: v[:-1] if row == 3 else v, "token_starts is not as long as token_ids"),
        ("texts", "token_starts", lambda row, v: v[::-1] if row == 3 else v, "token_starts does not rise"),
        ("token_scores", "feedback", lambda row, v: v[:-1] if row == 3 else v, "not as long as the text has tokens"),
        ("activations", "values", lambda row, v: v[:-1] if row == 3 else v, "values differ in length"),
        (
            "activations",
            "positions",
            lambda row, v: [p + 500 for p in v] if row == 3 else v,
            "past the text's last token",
        ),
        ("histograms", "edges", lambda row, v: v[:-1] if row == 3 else v, "bins and edges do not match"),
        ("examples", "window_start", lambda row, v: v + 90 if row == 3 else v, "outside the window"),
        ("examples", "activation", lambda row, v: v or 0.5, "an example of silence is active"),
        ("examples", "window_values", lambda row, v: [x or 0.5 for x in v], "window of a near miss is not silent"),
        ("probes", "is_headline", lambda row, v: False, "0 rows are the headline"),
    ],
)
def test_rows_that_contradict_themselves(copied_bundle, table, column, change, says):
    assert any(says in fault for fault in faults_after(copied_bundle, table, changed(column, change)))


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ("module", "table credit_sums: features, bias and residual do not sum to the module in 1 rows, such as text"),
        ("residual", "table credit_sums: features, bias and residual do not sum to the module in 1 rows, such as text"),
        ("features", "table credit_sums: features is not the sum of feature_credits in 1 rows, such as text"),
    ],
)
def test_credits_that_do_not_add_up(copied_bundle, column, says):
    def change(table):
        values = table[column].to_pylist()
        return with_column(table, column, [values[0] + 0.01, *values[1:]])

    rewrite(copied_bundle, "credit_sums", change)
    assert any(fault.startswith(says) for fault in validate(copied_bundle))


def test_a_prediction_that_does_not_add_up(copied_bundle):
    (fault,) = faults_after(copied_bundle, "texts", changed("predicted", lambda row, v: v + 1e-3 * (row == 7)))
    assert "predicted is not the sum of contributions and intercept in 1 texts, such as 7" in fault


def test_a_token_whose_prediction_does_not_add_up(copied_bundle):
    def off(row, values):
        return [v + 1e-3 * (at == 2 and row == 7) for at, v in enumerate(values)]

    (fault,) = faults_after(copied_bundle, "token_scores", changed("predicted", off))
    assert "in 1 texts, such as 7 at token 2" in fault


def test_predictions_of_texts_without_activations_are_not_judged(copied_bundle):
    last = read_manifest(copied_bundle).tables["texts"].rows - 1
    assert faults_after(copied_bundle, "texts", changed("predicted", lambda row, v: v + (row == last))) == []


@pytest.mark.parametrize(
    ("table", "column", "change", "says"),
    [
        ("texts", "sae_miss", lambda row, v: v + 1e-3 * (row == 7), "sae_miss in 1 texts, such as 7"),
        ("texts", "predicted_raw", lambda row, v: v - 1e-3 * (row == 7), "sae_miss in 1 texts, such as 7"),
        ("weights", "raw_weight", lambda row, v: None if v is None else v + 0.01, "sum of raw contributions"),
        ("probes", "raw_bias", lambda row, v: None if v is None else v + 1e-3, "sum of raw contributions"),
        ("probes", "raw_intercept", lambda row, v: None if v is None else v + 1e-3, "sum of raw contributions"),
        (
            "token_scores",
            "sae_miss",
            lambda row, v: [v[0] + 0.1, *v[1:]] if row == 7 else v,
            "token_scores: sae_miss does not pool to the text's in 1 texts, such as 7",
        ),
        ("token_scores", "sae_miss", lambda row, v: v[:-1] if row == 7 else v, "not as long as the text has tokens"),
        ("probes", "pooling", lambda row, v: "median", "pooling is not a value that the schema names"),
    ],
)
def test_a_second_ledger_that_does_not_add_up(copied_bundle, table, column, change, says):
    assert any(says in fault for fault in faults_after(copied_bundle, table, changed(column, change)))


@pytest.mark.parametrize("column", ["sae_miss", "predicted_raw"])
def test_no_second_ledger_is_no_fault(copied_bundle, column):
    assert faults_after(copied_bundle, "texts", changed(column, lambda row, v: None)) == []


def test_parts_that_cancel_are_judged_by_their_size(copied_bundle):
    """Raw intercept and miss a million each way: single precision leaves several hundredths, and that is no fault."""
    rewrite(copied_bundle, "probes", changed("raw_intercept", lambda row, v: None if v is None else v + 1e6))
    rewrite(copied_bundle, "token_scores", changed("sae_miss", lambda row, v: [value - 1e6 for value in v]))
    assert faults_after(copied_bundle, "texts", changed("sae_miss", lambda row, v: v - 1e6)) == []


def test_one_weight_off_is_seen_everywhere(copied_bundle):
    def off(table):
        return with_column(table, "weight", pc.add(table["weight"], pa.scalar(0.01, pa.float32())).to_pylist())

    faults = faults_after(copied_bundle, "weights", off)
    assert any("table texts" in fault for fault in faults)
    assert any("table token_scores" in fault for fault in faults)


def test_artifacts(bundle, tmp_path):
    source = tmp_path / "weights.bin"
    source.write_bytes(b"weights")
    path = tmp_path / "b"
    with BundleWriter(path, Description.model_validate(read_manifest(bundle).model_dump())) as writer:
        writer.add_artifact(source, "model/weights.bin")
    assert validate(path) == []
    change_byte(path / "artifacts/model/weights.bin", at=2)
    (path / "artifacts/more.bin").write_bytes(b"")
    assert validate(path) == [
        "artifact artifacts/model/weights.bin was changed after it was written (its sha256 differs)",
        "artifact artifacts/more.bin is not in the manifest, or is a link",
    ]


def test_two_used_dictionaries_of_a_place_and_a_site_of_no_name(copied_bundle):
    faults = faults_after(copied_bundle, "saes", changed("is_used", lambda row, used: True))
    assert any(fault.startswith("table saes: layer, site occur twice where is_used") for fault in faults)
    faults = faults_after(copied_bundle, "features", changed("site", lambda row, site: "mlp" if row == 3 else site))
    assert "table features: site is not a value that the schema names (1 rows)" in faults


def test_features_of_two_sites_of_a_layer_may_share_an_index(tmp_path):
    bundle = make_bundle(tmp_path / "sited", n_layers=2, sites=("mlp_out", "resid_post"))
    assert validate(bundle) == []
    faults = faults_after(bundle, "features", changed("site", lambda row, site: "mlp_out"))
    assert any(fault.startswith("table features: layer, site, index occur twice") for fault in faults)
