"""Queries on a bundle, one module per subject: all SQL is here, and values are always bound."""

from lfp.bundle.queries import (
    common,
    credits,
    drift,
    excerpts,
    feature,
    feature_map,
    features,
    implicit_ledgers,
    ledgers,
    run,
    search,
    texts,
    whole_features,
    words,
)

__all__ = [
    "common",
    "credits",
    "drift",
    "excerpts",
    "feature",
    "feature_map",
    "features",
    "implicit_ledgers",
    "ledgers",
    "run",
    "search",
    "texts",
    "whole_features",
    "words",
]
