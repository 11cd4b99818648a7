"""Rows of `results` with any keys, for properties of the report."""

from __future__ import annotations

from hypothesis import strategies as st

from lfp.evaluation.results import ROWS, ResultRow
from lfp.util.types import SITES

NAMES = st.sampled_from(["tuned", "base", "difference", "sae", "raw", "delta", "all", "born", "word:good", "3-10"])
METRICS = st.sampled_from(
    [
        "tau",
        "accuracy",
        "fvu",
        "l0",
        "count",
        "share",
        "kappa",
        "reward",
        "effect",
        "divergence",
        "gap_true_rating",
        "minutes",
        "peak_rss_mb",
        "cores",
    ]
)
FIGURES = st.floats(allow_nan=True, allow_infinity=True)


@st.composite
def result_rows(draw: st.DrawFn) -> list[ResultRow]:
    """Known rows of the report and another, figures that are no numbers among them."""
    columns = st.fixed_dictionaries(
        {"report_row": st.sampled_from([*ROWS, "another"]), "metric": METRICS, "value": FIGURES},
        optional={
            **{key: st.none() | NAMES for key in ("model", "target", "inputs", "words", "split", "group")},
            "layer": st.none() | st.integers(0, 3),
            "site": st.none() | st.sampled_from([*SITES, "elsewhere"]),
            "probe_id": st.none() | st.integers(0, 3),
            "ci_low": st.none() | FIGURES,
            "ci_high": st.none() | FIGURES,
            "null_high": st.none() | FIGURES,
            "null_p": st.none() | st.floats(0, 1),
            "n": st.none() | st.integers(0, 10**6),
        },
    )
    return [ResultRow(**row) for row in draw(st.lists(columns, max_size=25))]
