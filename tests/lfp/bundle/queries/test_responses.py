"""Response pooling of a dialogue: the tokens of all its responses count, and no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lfp.bundle.manifest import read_table
from lfp.bundle.queries.texts import token_contributions
from lfp.bundle.store.connection import Store
from lfp.probes.attribution import ActiveText, LinearProbe, text_ledger
from lfp.testing.synthetic import make_bundle
from tests.conftest import rewrite, with_column


@pytest.mark.parametrize("first", [0, 2])
def test_tokens_of_several_turns_are_pooled(tmp_path: Path, first: int) -> None:
    path = make_bundle(tmp_path / "b", n_features=20, n_texts=12, pooling="response")
    texts = read_table(path, "texts").to_pylist()
    masks = [[place >= first and place % 3 != 1 for place in range(len(text["token_ids"]))] for text in texts]
    masks[1] = [False] * len(masks[1])  # cut before its response, so that all of it counts
    starts = [len(masks[1]) if i == 1 else text["response_start"] for i, text in enumerate(texts)]
    rewrite(path, "token_scores", lambda table: with_column(table, "in_response", masks))
    rewrite(path, "texts", lambda table: with_column(table, "response_start", starts))
    probe = next(row for row in read_table(path, "probes").to_pylist() if row["is_headline"])
    weights = {
        row["feature_id"]: row["weight"]
        for row in read_table(path, "weights").to_pylist()
        if row["probe_id"] == probe["probe_id"]
    }
    weight = np.array([weights[feature] for feature in sorted(weights)], np.float64)
    with Store.open(path) as store:
        for row in read_table(path, "activations").to_pylist()[:4]:
            mask = np.array(masks[row["text_id"]])
            active = ActiveText(
                np.array(row["positions"]),
                np.array(row["feature_ids"]),
                np.array(row["values"], np.float64),
                len(mask),
                in_response=mask,
            )
            expected = text_ledger(active, LinearProbe(weight, 0.0, "response")).predicted
            parts = np.array(token_contributions(store, row["text_id"]))
            assert parts.sum() == pytest.approx(expected, abs=1e-6)
            assert not parts[~mask].any() or not mask.any()
