"""Findings about ablations: who is in a group, what controls stand for it, and what effects say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import kstest

from lfp.evaluation.contrasts import add_contrasts, p_of_t, reach_of_t
from lfp.evaluation.findings.ablation import (
    Candidates,
    Clean,
    Group,
    Measured,
    ablation_table,
    controls_of_singles,
    main_groups,
    matched_controls,
    single_figures,
    single_groups,
)
from lfp.evaluation.results import controls_in, is_inert, passes
from lfp.evaluation.statistics.resampling import Draws
from lfp.util.types import Place

DRAWS = Draws(200, 100, 0)
GROUPS = ("related", "weighted", "both")


def candidates(seed: int = 0, n: int = 60, layers: int = 3) -> Candidates:
    """Features of several layers, some dead; activations are loosely tied to density."""
    rng = np.random.default_rng(seed)
    density = rng.uniform(0.001, 0.5, n) * (rng.random(n) < 0.9)
    contribution = rng.normal(size=n)
    related = rng.random(n) < 0.4
    return Candidates(
        places=[Place(layer) for layer in range(layers)],
        place=np.sort(rng.integers(layers, size=n)),
        weight=rng.normal(size=n),
        mean_contribution=contribution,
        mean_abs_contribution=np.abs(contribution),
        related=related,
        confidence=np.where(related, rng.random(n), np.nan),
        density=density,
        energy=density * rng.exponential(size=n),
        mean_activation=density * rng.random(n),
    )


def test_groups_rank_as_they_say() -> None:
    known = replace(
        candidates(n=6, layers=1),
        density=np.array([0.1, 0.1, 0.1, 0.1, 0.1, 0.0]),
        energy=np.array([0.1, 0.1, 0.1, 0.1, 0.1, 0.0]),
        mean_contribution=np.array([0.5, -3.0, 0.1, 2.0, -1.0, 9.0]),
        related=np.array([True, True, True, False, True, True]),
        confidence=np.array([0.9, 0.2, 0.9, 1.0, 0.2, 1.0]),
    )
    found = {group.name: group.features for group in main_groups(known, GROUPS, size=4)}
    assert found == {"related": (0, 2, 1, 4), "weighted": (3, 0, 2), "both": (0, 2)}
    assert main_groups(known, ("related",), size=2)[0].features == (0, 2)
    assert main_groups(replace(known, related=np.zeros(6, bool)), GROUPS, size=4)[0].name == "weighted"


def test_single_groups_are_the_live_features_of_largest_contribution() -> None:
    known = replace(candidates(n=4), density=np.array([0.1, 0.0, 0.2, 0.3]), energy=np.array([0.1, 0.0, 0.2, 0.3]),
                    mean_abs_contribution=np.array([1.0, 9.0, 3.0, 2.0]))  # fmt: skip
    assert [group.name for group in single_groups(known, n=2)] == ["feature:2", "feature:3"]
    assert len(single_groups(known, n=9)) == 3


@given(st.integers(0, 300), st.integers(1, 8))
def test_controls_are_other_live_features_of_the_same_layers(seed: int, size: int) -> None:
    known = candidates(seed)
    main = main_groups(known, GROUPS, size=size)
    avoided = {feature for group in main for feature in group.features}
    for group in main:
        controls = matched_controls(known, group, avoided=sorted(avoided), n=4, seed=seed)
        assert controls == matched_controls(known, group, avoided=sorted(avoided), n=4, seed=seed)
        for control in controls:
            assert (control.kind, control.control_of) == ("control", group.name)
            assert len(set(control.features)) == len(group.features)
            assert not set(control.features) & set(group.features)
            assert known.is_live[list(control.features)].all()
            assert (known.place[list(control.features)] == known.place[list(group.features)]).all()
            for layer in set(known.place[list(group.features)].tolist()):
                replaced = [feature for feature in control.features if known.place[feature] == layer]
                others = np.flatnonzero((known.place == layer) & known.is_live)
                if len(set(others.tolist()) - avoided) >= len(replaced):
                    assert not set(replaced) & avoided
        assert len({control.name for control in controls}) == len(controls)


def test_a_layer_with_too_few_others_has_no_controls() -> None:
    known = candidates(n=20, layers=1)
    live = np.flatnonzero(known.is_live)
    most = Group("most", "weighted", tuple(live[: len(live) // 2 + 1].tolist()))
    half = Group("half", "weighted", tuple(live[: len(live) // 2].tolist()))
    assert matched_controls(known, most, avoided=(), n=2, seed=0) == []
    assert len(matched_controls(known, half, avoided=(), n=2, seed=0)) == 2


def test_controls_are_nearer_than_features_drawn_at_random() -> None:
    known = candidates(n=2000, layers=1)
    group = main_groups(known, ("weighted",), size=20)[0]
    members, live = list(group.features), np.flatnonzero(known.is_live)
    place = np.log(np.column_stack([known.density, known.energy]).clip(min=1e-300))
    matched = [list(control.features) for control in matched_controls(known, group, avoided=members, n=20, seed=0)]
    near = np.mean([np.abs(place[features] - place[members]).mean() for features in matched])
    anyone = np.abs(place[np.random.default_rng(0).choice(live, (200, 20))] - place[members]).mean()
    assert near < anyone / 10
    assert len({tuple(features) for features in matched}) == 20


def test_single_controls_are_spread_over_the_ranks() -> None:
    known = candidates(n=200)
    singles = single_groups(known, n=40)
    controls = controls_of_singles(known, singles, avoided=(), n=8, seed=0)
    assert [control.control_of for control in controls] == [single.name for single in singles[::5]]
    assert len(controls_of_singles(known, singles[:3], avoided=(), n=8, seed=0)) == 3


def measured(scores: Any) -> Measured:
    return Measured(np.asarray(scores, np.float64), 5.0, 0.1)


def test_effects_are_paired_and_their_null_is_of_their_own_controls() -> None:
    known, before = candidates(n=30), np.random.default_rng(1).normal(size=40)
    groups = {
        Group("weighted", "weighted", (3, 1)): measured(before - 0.5),
        **{Group(f"weighted/{i}", "control", (i + 5,), "weighted"): measured(before + i / 10) for i in range(-1, 2)},
        Group("feature:1", "feature", (1,)): measured(before),
        Group("feature:2", "feature", (2,)): measured(before),
        Group("feature:1/control-01", "control", (9,), "feature:1"): measured(before - 0.3),
    }
    compared = Clean(measured(before), np.arange(40), (1.0, 2.0))
    rows = ablation_table(known, groups, compared, scale=0.0, draws=DRAWS)
    by_name = {row["group"]: row for row in rows}
    weighted = by_name["weighted"]
    assert weighted["effect"] == pytest.approx(-0.5) == pytest.approx(weighted["ci_low"])
    assert weighted["null_high"] == pytest.approx(0.1) and weighted["features"] == [1, 3]
    assert weighted["reward_after"] - weighted["reward_before"] == pytest.approx(-0.5)
    assert weighted["predicted_effect"] == pytest.approx(-(known.weight * known.mean_activation)[[1, 3]].sum())
    assert weighted["removed_energy"] == pytest.approx(known.energy[[1, 3]].sum())
    assert by_name["feature:1"]["null_high"] == by_name["feature:2"]["null_high"] == pytest.approx(0.3)
    assert by_name["weighted/0"]["null_high"] is None
    assert [row["group"] for row in controls_in(by_name["feature:2"], rows)] == ["feature:1/control-01"]
    assert passes(weighted) and not passes(by_name["feature:1"])
    assert weighted["contrast"] == pytest.approx(-0.5) == pytest.approx(weighted["contrast_high"])
    assert by_name["feature:1"]["contrast"] == pytest.approx(0.3) and by_name["feature:1"]["contrast_p"] is None
    assert by_name["weighted/0"]["contrast"] is None
    assert (weighted["reward_clean"], weighted["clean_runs"]) == (1.5, 2)


def test_the_luck_of_the_clean_run_moves_no_contrast() -> None:
    """A run that happens to please less makes every ablation look as if it raised the reward."""
    rng = np.random.default_rng(0)
    known, before, prefixes = candidates(n=40), rng.normal(size=300), np.arange(300)
    after = {
        Group("weighted", "weighted", (1,)): measured(before - 0.3 + 0.2 * rng.normal(size=300)),
        Group("both", "both", (2,)): measured(before + 0.2 * rng.normal(size=300)),
    }
    for main in list(after):
        for i in range(20):
            control = Group(f"{main.name}/{i}", "control", (i + 5,), main.name)
            after[control] = measured(before + 0.2 * rng.normal(size=300))
    tables = [
        {row["group"]: row for row in ablation_table(known, after, Clean(clean, prefixes), scale=0.0, draws=DRAWS)}
        for clean in (measured(before), measured(before - 0.2 + rng.normal(size=300)))
    ]
    lucky, unlucky = tables
    assert unlucky["both"]["effect"] > 0.1 and unlucky["weighted"]["ci_low"] <= 0 <= unlucky["weighted"]["ci_high"]
    for name in ("weighted", "both"):
        columns = [column for column in lucky[name] if column.startswith("contrast")]
        assert [lucky[name][c] for c in columns] == pytest.approx([unlucky[name][c] for c in columns])
    assert passes(unlucky["weighted"]) and unlucky["weighted"]["contrast"] == pytest.approx(-0.3, abs=0.05)
    assert is_inert(unlucky["both"])


def test_groups_that_are_like_controls_have_any_p() -> None:
    rng = np.random.default_rng(0)
    p = []
    for _ in range(300):
        kinds = ["weighted", *["control"] * 10]
        rows = [
            {"group": f"{kind}{i}", "kind": kind, "control_of": "weighted0" if i else None, "effect": effect,
             "ci_low": effect - 1, "ci_high": effect + 1}
            for i, (kind, effect) in enumerate(zip(kinds, rng.normal(0.5, 0.1, size=11), strict=True))
        ]  # fmt: skip
        first = add_contrasts(rows)[0]
        p.append(first["contrast_p"])
        mean = np.mean([row["effect"] for row in rows[1:]])
        assert first["contrast_high"] == pytest.approx(first["ci_high"] - mean)  # as in a bundle without the interval
    assert kstest(p, "uniform").pvalue > 0.05


@pytest.mark.parametrize(("scale", "factor"), [(0.0, -1.0), (1.0, 0.0), (3.0, 2.0)])
def test_the_predicted_effect_follows_the_scale(scale: float, factor: float) -> None:
    known = candidates(n=5)
    group = {Group("chosen:2", "chosen", (2,)): measured([1.0, 2.0])}
    (row,) = ablation_table(known, group, Clean(measured([1.0, 2.0]), np.arange(2)), scale=scale, draws=DRAWS)
    assert row["predicted_effect"] == pytest.approx(factor * known.weight[2] * known.mean_activation[2])


def test_prefixes_of_one_text_are_drawn_together() -> None:
    """Forty copies of four texts say no more than the four."""
    known, change = candidates(n=5), np.array([0.1, 0.5, -0.2, 0.9])
    group = Group("chosen:2", "chosen", (2,))
    before = measured(np.zeros(160))
    after = {group: measured(np.repeat(change, 40))}
    widths = []
    for clusters in (np.repeat(np.arange(4), 40), np.arange(160)):
        (row,) = ablation_table(known, after, Clean(before, clusters), scale=0.0, draws=DRAWS)
        widths.append(row["ci_high"] - row["ci_low"])
    assert widths[0] > 3 * widths[1]


def row_of(feature: int, predicted: float, effect: float, half: float, q: float | None = 0.2) -> dict[str, Any]:
    contrast = {"contrast_low": effect - half, "contrast_high": effect + half, "contrast_q": q}
    return {"group": f"feature:{feature}", "kind": "feature", "control_of": None, "layer": 1, "site": "mlp_out",
            "effect": effect, "ci_low": -1.0, "ci_high": 1.0, "predicted_effect": predicted,
            **(contrast if q is not None else dict.fromkeys(contrast))}  # fmt: skip


def test_inert_features_are_listed_by_what_was_predicted_of_them() -> None:
    rows = [
        row_of(1, -0.1, -0.05, 0.1),  # inert
        row_of(2, 0.4, 0.15, 0.2),  # inert
        row_of(3, -0.9, -0.3, 0.4, 0.04),  # differs more than controls do
        row_of(4, -0.8, -0.1, 0.05),  # an interval beyond 0
        row_of(5, -0.7, 0.0, 0.05, None),  # inert as far as can be known
    ]
    found = single_figures(rows, DRAWS, target="implicit_reward")
    by_metric = {figure.metric: figure for figure in found}
    assert [(row.group, row.value) for row in found if row.metric == "inert"] == [
        ("feature:5", -0.7), ("feature:2", 0.4), ("feature:1", -0.1),
    ]  # fmt: skip
    assert by_metric["inert_count"].value == 3 and by_metric["inert_share"].value == 0.6
    assert by_metric["predicted_measured"].n == 5
    assert all(figure.target == "implicit_reward" for figure in found)


def test_predicted_and_measured_that_rank_alike_beat_their_null() -> None:
    rng = np.random.default_rng(0)
    rows = [row_of(i, x, 2 * x + rng.normal() * 0.1, 0.1) for i, x in enumerate(rng.normal(size=30))]
    found = single_figures(rows, DRAWS)[0]
    assert found.value > 0.9 and found.ci_low > found.null_high and found.null_p < 0.02
    shuffled = [{**row, "effect": effect} for row, effect in zip(rows, rng.normal(size=30), strict=True)]
    assert single_figures(shuffled, DRAWS)[0].null_p > 0.02


def test_without_single_features_nothing_is_told_and_few_have_no_rank() -> None:
    assert single_figures([], DRAWS) == []
    few = single_figures([row_of(i, 0.1 * i, 0.1 * i, 0.1) for i in range(3)], DRAWS)
    assert "predicted_measured" not in {figure.metric for figure in few}


@pytest.mark.parametrize("freedom", [1, 2, 3, 19, 150])
def test_students_t_is_that_of_scipy(freedom):
    sizes = np.array([0.0, 0.3, 1.0, 2.5, 8.0])
    found = [p_of_t(float(size), freedom) for size in sizes]
    np.testing.assert_allclose(found, 2.0 * stats.t.sf(sizes, freedom), rtol=1e-9, atol=1e-12)
    assert reach_of_t(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-8)
