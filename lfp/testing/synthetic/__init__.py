"""Synthetic bundles of any size from a seed, for tests and benchmarks: every table is filled and consistent."""

from lfp.testing.synthetic.bundle import make_bundle
from lfp.testing.synthetic.corpus import LEXICON
from lfp.testing.synthetic.results import LABELLER, MODEL_LABELLER

__all__ = ["LABELLER", "LEXICON", "MODEL_LABELLER", "make_bundle"]
