"""Budgets and sittings: what is told, where a run stops and goes on, and that no result depends on either."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lfp.bundle.manifest import read_manifest
from lfp.config import BudgetConfig, RunConfig
from precompute import pipeline
from precompute.pipeline import STAGES, run_until
from precompute.run import sitting
from precompute.run.resources import Cost
from precompute.run.sitting import Sitting, SittingOver
from precompute.run.work_folder import Output, Run, stage_key
from tests.precompute.conftest import TINY, silent, tiny_config
from tests.precompute.test_cli import call
from tests.precompute.test_pipeline import table_hashes

NAMES = [stage.name for stage in STAGES]


def toml(values: dict[str, Any]) -> str:
    plain = [f"{key} = {json.dumps(value)}" for key, value in values.items() if not isinstance(value, dict)]
    sections = [f"[{key}]\n{toml(value)}" for key, value in values.items() if isinstance(value, dict)]
    return "\n".join([*plain, *sections])


@pytest.fixture
def trivial(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stages that only write down that they ran."""
    ran: list[str] = []

    def job(name: str) -> Callable[[Run, Output], None]:
        return lambda run, output: ran.append(name)

    monkeypatch.setattr(pipeline, "STAGES", tuple(replace(stage, job=job(stage.name)) for stage in STAGES))
    return ran


def run_of(folder: Path, **budget: Any) -> Run:
    return Run(tiny_config(budget=budget), folder / "work", None, silent)


def sit(run: Run, sitting: Sitting) -> SittingOver:
    with pytest.raises(SittingOver) as over:
        run_until(NAMES[-1], run, sitting=sitting)
    return over.value


def test_every_stage_can_be_budgeted_and_nothing_else() -> None:
    assert list(BudgetConfig.model_fields) == ["machine", *NAMES]


def test_a_budget_is_in_no_stages_key() -> None:
    budgeted = tiny_config(budget=dict.fromkeys(NAMES, 3.0) | {"machine": "two cores"})
    keys = {stage_key(stage.name, config, stage.sections, "") for config in (tiny_config(), budgeted)
            for stage in STAGES}  # fmt: skip
    assert len(keys) == len(STAGES)


def test_without_budgets_a_sitting_ends_after_the_first_stage_that_ends_past_it(
    trivial: list[str], tmp_path: Path
) -> None:
    for at in range(1, len(NAMES)):
        over = sit(run_of(tmp_path), Sitting(0.0))
        assert trivial == NAMES[:at]
        assert f"{at} of {len(NAMES)} stages done" in str(over) and f"next is {NAMES[at]}, which has no" in str(over)
    run_until(NAMES[-1], run_of(tmp_path), sitting=Sitting(0.0))
    assert trivial == NAMES


def test_a_stage_that_would_not_fit_is_left_for_another_sitting(trivial: list[str], tmp_path: Path) -> None:
    run = run_of(tmp_path, tuned=30.0, saes=45.5)
    began = time.monotonic()
    over = sit(run, Sitting(60.0, started=began - 31 * 60))
    assert trivial == ["corpus", "base"] and over.sitting_minutes == 60
    assert "2 of 13 stages done (corpus, base), 31.0 min" in str(over) and "next is tuned, budgeted 30 min" in str(over)
    over = sit(run, Sitting(40.0))
    assert trivial[-1] == "layers" and over.sitting_minutes == 46


def test_the_first_stage_of_a_sitting_has_the_whole_of_it(trivial: list[str], tmp_path: Path) -> None:
    """Else a sitting as long as the stage that is next would never begin it."""
    run = run_of(tmp_path, base=20.0)
    sit(run, Sitting(20.0, started=time.monotonic() - 30))
    assert trivial == ["corpus"]
    run_until(NAMES[-1], run, sitting=Sitting(20.0, started=time.monotonic() - 30))
    assert trivial == NAMES


def test_a_longer_stage_than_the_sitting_is_not_begun_and_what_it_needs_is_said(
    trivial: list[str], tmp_path: Path
) -> None:
    over = sit(run_of(tmp_path, corpus=2.5), Sitting(1.0))
    assert trivial == [] and over.sitting_minutes == 3 and "0 of 13 stages done (none)" in str(over)


def told_of(tmp_path: Path, budget: dict[str, Any], seconds: float) -> list[str]:
    told: list[str] = []
    with Sitting(note=told.append).watching("base", BudgetConfig.model_validate(budget), tmp_path):
        time.sleep(seconds)
        told.append("(end)")
    return told


def test_a_stage_says_what_it_took_of_its_budget(tmp_path: Path) -> None:
    assert told_of(tmp_path, {"base": 2.5}, 0.0) == ["(end)", "base: took 0.00 of 2.5 min budgeted"]
    assert told_of(tmp_path, {"tuned": 2.5}, 0.0) == ["(end)"]


def test_a_stage_past_its_budget_says_so_once_while_it_goes_on(tmp_path: Path) -> None:
    told = told_of(tmp_path, {"base": 0.002, "machine": "two cores"}, 0.6)
    assert len(told) == 3 and told[1] == "(end)"
    assert told[0].startswith(
        "base: past its budget of 0.002 min (two cores) and still going; this machine may be slow"
    )
    assert told[2] == "base: took 0.01 of 0.002 min budgeted (two cores), more than expected"


def test_a_stage_that_fails_leaves_no_alarm_behind(tmp_path: Path) -> None:
    told: list[str] = []
    watching = Sitting(note=told.append).watching("base", BudgetConfig(base=0.003), tmp_path)
    with pytest.raises(ZeroDivisionError), watching:
        raise ZeroDivisionError
    time.sleep(0.4)
    assert told == []


def interrupted(scratch: Path, seconds: float) -> None:
    with pytest.raises(KeyboardInterrupt), Sitting().watching("base", BudgetConfig(), scratch):
        time.sleep(seconds)
        raise KeyboardInterrupt


def cost_of(scratch: Path) -> Cost:
    with Sitting().watching("base", BudgetConfig(), scratch) as cost:
        pass
    return cost()


def test_a_try_counts_with_the_next_where_that_goes_on_from_it(tmp_path: Path) -> None:
    interrupted(tmp_path, 0.3)
    assert list(tmp_path.iterdir()) == [] and cost_of(tmp_path).seconds < 0.3
    (tmp_path / "checkpoint.pt").touch()
    interrupted(tmp_path, 0.3)
    interrupted(tmp_path, 0.3)
    assert 0.6 <= cost_of(tmp_path).seconds < 0.9


def test_a_try_that_is_killed_outright_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be written down then: it is beforehand, every so often."""
    monkeypatch.setattr(sitting, "_KEPT_EVERY_S", 0.1)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with Sitting().watching("base", BudgetConfig(), scratch):
        time.sleep(0.3)
        assert list(scratch.iterdir()) == [], "there is nothing to go on from"
        (scratch / "checkpoint.pt").touch()
        time.sleep(0.3)
        killed = tmp_path / "killed"
        killed.mkdir()
        shutil.copy(scratch / "spent.json", killed)
    assert 0.3 < cost_of(killed).seconds < 0.9


def test_what_a_stage_took_is_kept_with_it(trivial: list[str], tmp_path: Path) -> None:
    run = run_of(tmp_path)
    run_until("base", run)
    kept = json.loads((run.folder("base") / "stage.json").read_text())
    assert set(kept) == {"key", "seconds", "cpu_seconds", "peak_rss_mb"}
    (told,) = run.costs(["base"])
    assert told.model_dump() == {"name": "base", **{name: kept[name] for name in kept if name != "key"}}


def test_a_run_over_several_sittings_is_the_run_made_at_once(
    tiny_bundle: Path, corpus_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the commands that it prints, with budgets that the run made at once has not; costs come with it."""
    shutil.copy(corpus_folder / "reviews.txt", tmp_path)
    config, out = tmp_path / "my run.toml", tmp_path / "out"
    config.write_text(toml(TINY | {"budget": {"base": 0.5, "saes": 50, "machine": "an abacus"}}), encoding="utf-8")
    command = ["run", str(config), "--out", str(out), "--set", "notes=in sittings", "--sitting-minutes", "0"]
    said: list[str] = []
    while not out.exists():
        code, text, err = call(*command, capsys=capsys)
        assert code == 0 and text.count("\n") == 1, err
        said.append(text)
        if not out.exists():
            command = shlex.split(text.partition("go on with: ")[2])[3:]
            kept = {file: file.read_text() for file in tmp_path.glob(".out.run/*/stage.json")}
            assert command[-3:-1] == ["--sitting-minutes", ["1", "50"][len(said) - 1]] and command[-1] == "--resume"
    assert ["next is base, budgeted 0.5 min" in said[0], "next is saes, budgeted 50 min" in said[1]] == [True, True]
    assert len(said) == 3 and "saes: took 0." in err and "of 50 min budgeted (an abacus)" in err
    assert table_hashes(out) == table_hashes(tiny_bundle)
    manifest = read_manifest(out)
    assert manifest.bundle_id == _identity(out, tiny_bundle)
    assert [one.name for one in manifest.stages] == NAMES
    measured = {one.name: one.seconds for one in manifest.stages}
    earlier = {file.parent.name: json.loads(text)["seconds"] for file, text in kept.items()}
    assert set(earlier) == set(NAMES[: NAMES.index("saes")])
    assert earlier == {name: measured[name] for name in earlier}
    assert manifest.hardware is not None and manifest.hardware.cores


def _identity(out: Path, bundle: Path) -> str:
    """That of the other bundle had it had the same notes, which `--set` changed."""
    manifest = read_manifest(bundle)
    parsed = RunConfig.model_validate(manifest.config | {"notes": read_manifest(out).config["notes"]})
    return manifest.model_copy(update={"config": parsed.model_dump(mode="json")}).identity()


def test_the_report_of_a_run_tells_its_cost(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call("report", str(tiny_bundle), "--json", capsys=capsys)
    rows = json.loads(out)["cost"]
    minutes = {row["group"]: row["value"] for row in rows if row["metric"] == "minutes"}
    assert list(minutes) == NAMES and all(value > 0 for value in minutes.values())
    _, out, _ = call("report", str(tiny_bundle), capsys=capsys)
    assert "\ncost\n" in out and "processor minutes" in out.partition("\ncost\n")[2]


def test_the_demo_can_be_made_in_sittings(
    trivial: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my demo"
    code, text, _ = call("demo", "--fast", "--seed", "3", "--out", str(out), "--sitting-minutes", "0", capsys=capsys)
    going_on = text.partition("go on with: ")[2]
    assert code == 0 and trivial == ["corpus"] and not out.exists()
    assert going_on == f"python -m precompute demo --out '{out}' --fast --seed 3 --sitting-minutes 0 --resume\n"
    code, text, _ = call(*shlex.split(going_on)[3:], capsys=capsys)
    assert code == 0 and trivial == ["corpus", "base"] and "2 of 13 stages done (corpus, base)" in text
