import json
import threading

import pyarrow as pa
import pytest

from lfp.bundle.manifest import Description, ModelInfo, check_bundle, read_manifest, read_table
from lfp.bundle.schema import BY_NAME, TABLES
from lfp.bundle.writer import BundleWriter, check_replaceable, conform, update_bundle
from lfp.errors import BundleError
from tests.conftest import change_byte


def description(**changes):
    model = ModelInfo(name="tiny", revision=None, parameters=1, sha256="0" * 64)
    values = {
        "title": "A run", "config": {"seed": 1}, "seed": 1, "models": {"base": model, "tuned": model},
        "hook_points": [], "labeller": "offline-tokens", "versions": {}, "licence": "CC0-1.0", "notes": "",
    }  # fmt: skip
    return Description(**{**values, **changes})


def layer(number):
    return {
        "layer": number, "divergence": 1.0, "divergence_mlp": 0.5, "divergence_by_group": [],
        "relative_divergence": 0.1, "selected": True, "d_in": 4, "scale": 1.0,
    }  # fmt: skip


def test_what_is_written_is_read_back(tmp_path):
    with BundleWriter(tmp_path / "b", description()) as writer:
        writer.write("layers", [layer(1), layer(0)])
    manifest = check_bundle(tmp_path / "b")
    assert manifest.title == "A run"
    assert manifest.tables["layers"].rows == 2
    assert set(manifest.tables) == {table.name for table in TABLES}


def test_the_hash_of_tables_is_of_the_tables_and_the_key_of_the_bundle_too(tmp_path):
    def written(name, divergence, **changes):
        with BundleWriter(tmp_path / name, description(**changes)) as writer:
            writer.write("layers", [layer(0) | {"divergence": divergence}])
        return check_bundle(tmp_path / name)

    one, again, seeded, other = (
        written("one", 1.0), written("again", 1.0), written("seeded", 1.0, config={"seed": 2}), written("other", 2.0)
    )  # fmt: skip
    assert one.tables_id == again.tables_id == seeded.tables_id != other.tables_id
    assert one.key == again.key and len({one.key, seeded.key, other.key}) == 3


def test_rows_are_sorted_as_the_schema_states():
    table = conform(BY_NAME["layers"], [layer(2), layer(0), layer(1)])
    assert table["layer"].to_pylist() == [0, 1, 2]


def test_an_exception_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), BundleWriter(tmp_path / "b", description()) as writer:
        writer.write("layers", [layer(0)])
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_an_exception_leaves_the_old_bundle(tmp_path):
    with BundleWriter(tmp_path / "b", description(title="old")) as writer:
        writer.write("layers", [layer(0)])
    with pytest.raises(ZeroDivisionError), BundleWriter(tmp_path / "b", description(title="new")):
        raise ZeroDivisionError
    assert check_bundle(tmp_path / "b").title == "old"


def test_a_faulty_table_leaves_the_old_bundle(tmp_path):
    with BundleWriter(tmp_path / "b", description(title="old")):
        pass
    with pytest.raises(BundleError), BundleWriter(tmp_path / "b", description(title="new")) as writer:
        writer.write("layers", [{"layer": "not a number"}])
    assert check_bundle(tmp_path / "b").title == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_new_bundle_replaces_the_old_whole(tmp_path):
    for title in ("old", "new"):
        with BundleWriter(tmp_path / "b", description(title=title)):
            pass
    assert check_bundle(tmp_path / "b").title == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_something_else_is_never_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"x")
    with pytest.raises(BundleError, match="not a bundle"):
        check_replaceable(tmp_path / "photos")
    with pytest.raises(BundleError), BundleWriter(tmp_path / "photos", description()):
        pass
    assert (tmp_path / "photos" / "one.jpg").exists()


def test_artifacts_are_copied_and_hashed(tmp_path):
    source = tmp_path / "model"
    source.mkdir()
    (source / "weights.bin").write_bytes(b"weights")
    with BundleWriter(tmp_path / "b", description()) as writer:
        writer.add_artifact(source, "models/tuned")
    manifest = read_manifest(tmp_path / "b")
    assert manifest.artifacts["artifacts/models/tuned/weights.bin"].bytes == 7


def test_the_identity_is_of_what_was_run_not_of_words_about_it():
    same = description(title="another title", notes="noted")
    assert same.identity() == description().identity()
    assert description(seed=2).identity() != description().identity()


def test_the_identity_is_not_of_the_clock_nor_of_what_was_expected_of_it():
    budgeted = {"seed": 1, "budget": {"base": 20.0, "machine": "two cores"}}
    took = [{"name": "base", "seconds": 3.0, "cpu_seconds": 5.0, "peak_rss_mb": None}]
    other = description(config=budgeted, stages=took, hardware={"cores": 2})
    assert other.identity() == description().identity()
    assert description(config={"seed": 1, "tune": {}}).identity() != description().identity()


def test_what_stages_took_stays_when_tables_are_replaced(tmp_path):
    took = {"name": "base", "seconds": 3.0, "cpu_seconds": 5.0, "peak_rss_mb": None}
    hardware = {"processor": "Abacus", "cores": 2, "memory_gb": 8.0, "gpu": None}
    with BundleWriter(tmp_path / "b", description(stages=[took], hardware=hardware)):
        pass
    written = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert (written["stages"], written["hardware"]) == ([took], hardware)
    update_bundle(tmp_path / "b", {"layers": [layer(0)]})
    assert json.loads((tmp_path / "b" / "manifest.json").read_text())["stages"] == [took]


def test_a_bundle_made_before_stages_were_measured_opens(tmp_path):
    with BundleWriter(tmp_path / "b", description()):
        pass
    file = tmp_path / "b" / "manifest.json"
    older = {key: value for key, value in json.loads(file.read_text()).items() if key not in ("stages", "hardware")}
    file.write_text(json.dumps(older))
    manifest = check_bundle(tmp_path / "b")
    assert manifest.stages == [] and manifest.hardware is None and manifest.schema_version == 1


def test_a_null_where_none_may_be_is_refused():
    rows = pa.Table.from_pylist([{**layer(0), "divergence": None}], schema=BY_NAME["layers"].schema)
    with pytest.raises(BundleError, match="divergence is null"):
        conform(BY_NAME["layers"], rows)


def sentence(error):
    """The message, which must be one line that names a place."""
    message = str(error.value)
    assert "\n" not in message
    return message


def test_no_bundle_is_one_sentence(tmp_path):
    with pytest.raises(BundleError) as error:
        check_bundle(tmp_path)
    assert "no bundle here" in sentence(error)


def test_a_changed_byte_is_one_sentence(broken_bundle):
    with pytest.raises(BundleError) as error:
        check_bundle(broken_bundle)
    assert "table features was changed" in sentence(error)


def test_a_missing_table_is_one_sentence(copied_bundle):
    (copied_bundle / "weights.parquet").unlink()
    with pytest.raises(BundleError) as error:
        check_bundle(copied_bundle)
    assert "table weights is missing" in sentence(error)


def test_a_cut_table_is_one_sentence(copied_bundle):
    file = copied_bundle / "texts.parquet"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(BundleError) as error:
        check_bundle(copied_bundle)
    assert "table texts has" in sentence(error)


@pytest.mark.parametrize(("version", "fix"), [(999, "update the program"), (0, "make the bundle again")])
def test_another_version_is_one_sentence(copied_bundle, version, fix):
    file = copied_bundle / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": version}))
    with pytest.raises(BundleError) as error:
        check_bundle(copied_bundle)
    assert fix in sentence(error)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": 1}', "\x00\x01"])
def test_a_manifest_that_is_none_is_one_sentence(copied_bundle, content):
    (copied_bundle / "manifest.json").write_text(content)
    with pytest.raises(BundleError) as error:
        check_bundle(copied_bundle)
    assert "manifest.json" in sentence(error)


def test_large_bundles_are_opened_without_hashing(copied_bundle):
    change_byte(copied_bundle / "features.parquet")
    assert check_bundle(copied_bundle, hash_up_to_bytes=10).tables["features"].rows


def with_artifact(folder, tmp_path):
    (tmp_path / "model.bin").write_bytes(b"weights")
    with BundleWriter(folder, description()) as writer:
        writer.write("layers", [layer(0)])
        writer.add_artifact(tmp_path / "model.bin", "tuned/model.bin")


def test_an_update_replaces_its_tables_and_nothing_else(tmp_path):
    with_artifact(tmp_path / "b", tmp_path)
    before = check_bundle(tmp_path / "b")
    update_bundle(tmp_path / "b", {"layers": [layer(0), layer(1)]})
    after = check_bundle(tmp_path / "b")
    assert after.tables["layers"].rows == 2
    assert {**after.tables, "layers": None} == {**before.tables, "layers": None}
    assert (after.bundle_id, after.artifacts) == (before.bundle_id, before.artifacts)
    assert (tmp_path / "b" / "artifacts" / "tuned" / "model.bin").read_bytes() == b"weights"
    assert {path.name for path in tmp_path.iterdir()} == {"b", "model.bin"}


def test_an_update_that_fails_leaves_the_old_bundle(tmp_path):
    with_artifact(tmp_path / "b", tmp_path)
    before = check_bundle(tmp_path / "b")
    with pytest.raises(BundleError, match="layers"):
        update_bundle(tmp_path / "b", {"layers": [{"layer": 1}]})
    assert check_bundle(tmp_path / "b") == before


def test_a_reader_finds_a_whole_bundle_at_any_time(tmp_path):
    with_artifact(tmp_path / "b", tmp_path)
    done, missing = threading.Event(), []

    def read():
        while not done.is_set():
            if not (tmp_path / "b" / "manifest.json").is_file():
                missing.append(1)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(30):
        update_bundle(tmp_path / "b", {"layers": [layer(number)]})
    done.set()
    reader.join()
    assert not missing


def test_a_table_may_be_written_in_parts(tmp_path):
    layers = [layer(number) for number in range(5)]
    for name, parts in (("whole", [layers]), ("parts", [layers[:2], [], layers[2:4][::-1], layers[4:]])):
        with BundleWriter(tmp_path / name, description()) as writer:
            writer.write_parts("layers", parts)
    assert read_table(tmp_path / "parts", "layers") == read_table(tmp_path / "whole", "layers")
    assert check_bundle(tmp_path / "parts").tables["layers"].rows == 5


def test_parts_out_of_order_are_refused(tmp_path):
    with (
        pytest.raises(BundleError, match="are out of order"),
        BundleWriter(tmp_path / "b", description()) as writer,
    ):
        writer.write_parts("layers", [[layer(3)], [layer(2)]])
    assert list(tmp_path.iterdir()) == []
