"""Mapping over shards in this process: merged in one order, whole batches, kept results used, damaged ones not."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

from lfp.config import parse_config
from lfp.errors import ConfigError, DependencyError
from precompute.pipeline import open_executor
from precompute.run.executor import IN_PROCESS, Report, Shelf, Task, Tree, split_rows
from tests.precompute.conftest import silent


@pytest.mark.parametrize("n", range(1, 6))
def test_a_tree_merges_alike_in_whatever_order_parts_come(n: int) -> None:
    expected = {1: "0", 2: "(01)", 3: "((01)2)", 4: "((01)(23))", 5: "(((01)(23))4)"}[n]
    for order in itertools.permutations(range(n)):
        tree = Tree(n, lambda left, right: f"({left}{right})")
        for number in order:
            tree.add(number, str(number))
        assert tree.root() == expected


def test_shards_are_whole_batches() -> None:
    assert split_rows(100, size=30, batch=32) == [range(0, 32), range(32, 64), range(64, 96), range(96, 100)]
    assert split_rows(100, size=1000, batch=32) == [range(0, 100)]
    assert split_rows(0, size=30, batch=32) == [range(0, 0)]


def test_what_was_kept_is_not_done_again_unless_it_is_damaged(tmp_path: Path) -> None:
    calls: list[int] = []

    def double(shard: int, report: Report) -> int:
        calls.append(shard)
        report(1)
        return 2 * shard

    seen: list[tuple[int, int]] = []
    shelf = Shelf(tmp_path, "double")
    task = Task("double", [1, 1, 1], lambda: double, shelf, lambda _, done, total, value: seen.append((done, total)))
    import pickle

    for number in range(2):
        shelf.save(number, pickle.dumps(100 + number))
    (damaged,) = tmp_path.glob("*-1.shard")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert list(IN_PROCESS.map_shards(double, [10, 11, 12], task)) == [(0, 100), (1, 22), (2, 24)]
    assert calls == [11, 12] and seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"cluster": {"address": "somewhere"}}, "somewhere.*neither none, local, auto nor an address"),
        ({"cluster": {"address": "local", "gpus_per_worker": 1}}, "gpus_per_worker is 1 and model.device cpu"),
        ({"cluster": {"address": "local"}, "model": {"device": "cuda"}}, "gpus_per_worker is 0 and model.device cuda"),
        ({"cluster": {"workers": 0}}, "cluster.workers"),
    ],
)
def test_a_config_that_no_cluster_fits_is_refused(values: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse_config(values)


def test_where_work_is_done_is_no_part_of_a_bundle() -> None:
    config = parse_config({"cluster": {"address": "ray://10.0.0.5:10001", "workers": 7, "shard_texts": 64}})
    assert config.model_dump()["cluster"] == {"shard_texts": 64}


def test_without_ray_a_cluster_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "precompute.run.cluster", raising=False)
    config = parse_config({"cluster": {"address": "local"}})
    with pytest.raises(DependencyError, match=r"lfp-explorer\[cluster\]"), open_executor(config, tmp_path):
        pass


def test_without_a_cluster_work_stays_in_this_process(tmp_path: Path) -> None:
    with open_executor(parse_config({}), tmp_path) as executor:
        assert executor is IN_PROCESS
        task = Task("none", [1], lambda: max, Shelf(tmp_path, "none"), silent)
        assert list(executor.map_shards(lambda shard, _: shard, [5], task)) == [(0, 5)]
