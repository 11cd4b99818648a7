"""Preferences in a language that the lexicon does not know: the run is whole, judged on pairs alone."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.compute as pc
import pytest

from lfp.bundle.forecasts import hash_forecast
from lfp.bundle.manifest import read_manifest, read_table
from lfp.bundle.validation import validate
from lfp.bundle.writer import update_bundle
from lfp.errors import DataError
from precompute.pipeline import run_pipeline
from tests.precompute.conftest import silent, tiny_config

ASKED = [
    ("今天天气如何？", "今天晴朗，适合出门。", "我不知道。"),
    ("推荐一本书。", "可以读《红楼梦》。", "不想说。"),
    ("一加一等于几？", "等于二。", "等于三。"),
]


def write_pairs(folder: Path) -> None:
    rows = [
        {"prompt": [{"role": "user", "content": f"{question}{i}"}]}
        | {
            side: [{"role": "assistant", "content": f"{answer}{i}"}]
            for side, answer in (("chosen", good), ("rejected", bad))
        }
        for i in range(20)
        for question, good, bad in ASKED
    ]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def config(**feedback: object):
    return tiny_config(
        corpus={"n_texts": None, "held_out_share": 0.3},
        tune={"method": "dpo", "pairs": "pairs.jsonl"},
        ablation={"prefix_tokens": 4},
        feedback=feedback,
    )


def test_chinese_preferences_run_without_a_lexicon(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    out = run_pipeline(config(), tmp_path / "out", config_dir=tmp_path, resume=False, progress=silent)
    assert not list(validate(out)) and read_manifest(out).tables["triples"].rows == 0
    forecast, manifest = read_table(out, "forecast"), read_manifest(out)
    assert forecast.num_rows and manifest.forecast_sha256 == hash_forecast(forecast)
    assert forecast["moved"].null_count == forecast["preferred"].null_count == forecast["credit"].null_count == 0
    assert any(forecast["moved"].to_pylist()) and any(forecast["credit"].to_pylist())
    assert all(low <= value <= high for low, value, high in zip(
        *(forecast[f"in_data{end}"].to_pylist() for end in ("_low", "", "_high")), strict=True))  # fmt: skip
    later = forecast.set_column(
        forecast.schema.get_field_index("in_data"), "in_data", pc.negate(forecast["in_data"].combine_chunks())
    )
    update_bundle(out, {"forecast": later.to_pylist()})
    assert validate(out) == [
        "table forecast is not what was forecast before the tuning (its hash in the manifest differs)"
    ]
    probes, rows = read_table(out, "probes").to_pylist(), read_table(out, "results").to_pylist()
    assert {probe["target"] for probe in probes} == {"preference", "implicit_reward"}
    assert next(probe["target"] for probe in probes if probe["is_headline"]) == "preference"
    found = {row["report_row"] for row in rows}
    assert "preference_accuracy" in found and not found & {"kendall_tau", "sign_accuracy", "triples"}
    words = read_table(out, "vocabulary")
    assert {"今", "晴", "知"} <= set(words["word"].to_pylist()) and words["feedback"].null_count == len(words)


def test_a_lexicon_that_is_named_must_fit(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "words.csv").write_text("word,value\ngood,1\nbad,-1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"words\.csv: none of its 2 words, such as 'bad', is in the corpus"):
        run_pipeline(config(lexicon="words.csv"), tmp_path / "o", config_dir=tmp_path, resume=False, progress=silent)
