import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfp.bundle import queries
from lfp.bundle.queries.common import Order
from lfp.bundle.queries.texts import PairFilter
from lfp.bundle.store.connection import Store
from lfp.errors import ConfigError, NotInBundleError
from lfp.testing.synthetic import make_bundle


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs") / "b"
    return make_bundle(folder, n_features=20, n_texts=30, pooling="response", n_pairs=14, extra_texts=["", "Hm"])


@pytest.fixture(scope="module")
def store(path):
    with Store.open(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def naive(path):
    """Pairs put together from the table alone."""
    kept = set(pq.read_table(path / "activations.parquet")["text_id"].to_pylist())
    sides = {}
    for row in pq.read_table(path / "texts.parquet").to_pylist():
        start = row["response_start"] if row["response_start"] < len(row["token_ids"]) else 0
        row |= {"tokens": len(row["token_ids"]) - start, "is_sampled": row["text_id"] in kept}
        row["response"] = row["text"][row["token_starts"][start] if row["token_starts"] else 0 :][:200]
        if row["pair_id"] is not None:
            sides.setdefault(row["pair_id"], {})[row["role"]] = row
    return {number: pair for number, pair in sides.items() if len(pair) == 2}


def test_a_pair_is_its_two_texts(store, naive):
    for number, sides in naive.items():
        found, chosen, rejected = queries.texts.pair(store, number), sides["chosen"], sides["rejected"]
        assert (found.chosen_id, found.rejected_id) == (chosen["text_id"], rejected["text_id"])
        assert (found.chosen_tokens, found.rejected_tokens) == (chosen["tokens"], rejected["tokens"])
        assert found.length == chosen["tokens"] - rejected["tokens"]
        assert found.margin == pytest.approx(chosen["predicted"] - rejected["predicted"])
        assert found.implicit_margin == pytest.approx(chosen["implicit_reward"] - rejected["implicit_reward"])
        assert found.is_sampled == (chosen["is_sampled"] and rejected["is_sampled"])


@given(
    words=st.lists(st.sampled_from(["film", "THE", "good", "%", "zzz"]), max_size=2),
    split=st.sampled_from(["any", "train", "held_out"]),
    verdict=st.sampled_from(["any", "right", "wrong"]),
    implicit=st.sampled_from(["any", "right", "wrong"]),
    is_sampled=st.booleans(),
    by=st.sampled_from(sorted(queries.texts.PAIR_SORTS)),
    descending=st.booleans(),
)
def test_a_list_of_pairs_is_what_its_filter_says(
    store, naive, words, split, verdict, implicit, is_sampled, by, descending
):
    wanted = PairFilter(" ".join(words), split=split, verdict=verdict, implicit=implicit, is_sampled=is_sampled)

    def passes(pair):
        both = (pair["chosen"]["text"] + " " + pair["rejected"]["text"]).lower()
        is_right = pair["chosen"]["predicted"] > pair["rejected"]["predicted"]
        is_preferred = pair["chosen"]["implicit_reward"] > pair["rejected"]["implicit_reward"]
        return (
            all(word.lower() in both for word in words)
            and split in ("any", pair["chosen"]["split"])
            and verdict in ("any", "right" if is_right else "wrong")
            and implicit in ("any", "right" if is_preferred else "wrong")
            and (not is_sampled or (pair["chosen"]["is_sampled"] and pair["rejected"]["is_sampled"]))
        )

    rows = queries.texts.pairs(store, wanted, order=Order(by, descending)).to_pylist()
    assert {row["pair_id"] for row in rows} == {number for number, pair in naive.items() if passes(pair)}
    assert queries.texts.count_pairs(store, wanted) == len(rows)
    key = {
        "margin": lambda row: row["margin"], "size of margin": lambda row: abs(row["margin"]),
        "implicit margin": lambda row: row["implicit_margin"], "length": lambda row: row["length"],
        "size of length": lambda row: abs(row["length"]), "number": lambda row: row["pair_id"],
    }[by]  # fmt: skip
    assert [key(row) for row in rows] == sorted(map(key, rows), reverse=descending)
    for row in rows:
        pair = naive[row["pair_id"]]
        assert row["chosen_response"] == pair["chosen"]["response"]
        assert row["rejected_response"] == pair["rejected"]["response"]
    cut = queries.texts.pairs(store, wanted, order=Order(by, descending), limit=3, offset=2).to_pylist()
    assert cut == rows[2:5]


def test_an_unknown_pair_or_sort_is_one_sentence(store, bundle):
    with pytest.raises(NotInBundleError, match=r"no pair 99 .* numbers 0 to 13"):
        queries.texts.pair(store, 99)
    with pytest.raises(ConfigError, match="choose one of margin"):
        queries.texts.pairs(store, PairFilter(), order=Order("; DROP"))
    with Store.open(bundle) as none, pytest.raises(NotInBundleError, match="holds none at all"):
        assert queries.texts.count_pairs(none, PairFilter()) == 0
        queries.texts.pair(none, 0)
