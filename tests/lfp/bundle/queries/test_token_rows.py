from collections import defaultdict

import pyarrow.parquet as pq
import pytest

from lfp.bundle import queries
from lfp.bundle.store.connection import Store
from lfp.probes.pooling import POOLINGS
from lfp.testing.synthetic import make_bundle


@pytest.mark.parametrize("pooling", POOLINGS)
def test_parts_of_tokens_sum_to_the_ledger(tmp_path, pooling):
    path = make_bundle(tmp_path / "b", n_features=50, n_texts=10, pooling=pooling, extra_texts=["", "Hm"])
    with Store.open(path) as opened:
        for text_id in pq.read_table(path / "activations.parquet")["text_id"].to_pylist()[:5]:
            tokens, whole = queries.texts.token_ledgers(opened, text_id, limit=100), defaultdict(float)
            assert [token.total for token in tokens] == pytest.approx(
                queries.texts.token_contributions(opened, text_id)
            )
            for token in tokens:
                assert sum(part.part for part in token.shown) == pytest.approx(token.total, abs=1e-12)
                assert token.n_features == len(token.shown)
                for part in token.shown:
                    whole[part.feature_id] += part.part
            ledger = queries.ledgers.ledger(opened, text_id, limit=None)
            expected = {part.feature_id: part.contribution for part in ledger.shown if part.contribution}
            assert whole == pytest.approx(expected, abs=1e-9)


def test_few_parts_are_the_largest(bundle):
    with Store.open(bundle) as opened:
        few, all_ = (queries.texts.token_ledgers(opened, 3, limit=limit) for limit in (2, 100))
        assert [token.shown for token in few] == [token.shown[:2] for token in all_]
        assert [(token.total, token.n_features) for token in few] == [(token.total, token.n_features) for token in all_]
        sizes = [[abs(part.part) for part in token.shown] for token in all_]
        assert sizes == [sorted(row, reverse=True) for row in sizes] and any(len(row) > 2 for row in sizes)
        assert queries.texts.token_ledgers(opened, 39) == []


def test_no_probe_no_parts(empty_bundle):
    with Store.open(empty_bundle) as none:
        assert queries.texts.token_ledgers(none, 0) == []
