"""Bundles of any size made up from a seed, for tests and benchmarks: every table filled, in agreement with the rest."""

from lfp.synthetic.bundle import make_bundle
from lfp.synthetic.labels import LABELLER, MODEL_LABELLER
from lfp.synthetic.reviews import LEXICON

__all__ = ["LABELLER", "LEXICON", "MODEL_LABELLER", "make_bundle"]
