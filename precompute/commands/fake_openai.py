"""The fake server as `precompute fake-openai` runs it: every rule for answers that there is, by VADER's lexicon."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pyarrow.compute as pc

from lfp.bundle.manifest import open_bundle, read_table
from lfp.config import LabelsConfig, parse_section
from lfp.labels.evidence import read_evidence
from lfp.labels.types import Behaviour
from lfp.testing.fake_openai.answers import KnowsFeatures, ReadsPrompts, Responder, SwapWords
from lfp.testing.fake_openai.server import FakeConfig, FakeServer
from lfp.texts.lexicon import vader_lexicon


def serving(port: int, behave: Behaviour, bundle: Path | None = None) -> FakeServer:
    """The server, to be entered; with a bundle it knows that one's features.

    Raises ConfigError where the port cannot be listened on, BundleError where there is no such bundle.
    """
    knowing: list[Responder] = [] if bundle is None else [knows(bundle)]
    return FakeServer(
        FakeConfig(behave), [*knowing, SwapWords(vader_lexicon()), ReadsPrompts(vader_lexicon())], port=port
    )


def knows(bundle: Path) -> KnowsFeatures:
    """The rule that knows what a bundle's features fire on, and which its own labeller calls related."""
    manifest, tables = open_bundle(bundle), partial(read_table, bundle)
    config = parse_section(LabelsConfig, manifest.config.get("labels", {}), where=f"{bundle}: labels")
    labels = tables("labels")
    labels = labels.filter(pc.equal(labels["labeller"], manifest.labeller))
    related = dict(zip(labels["feature_id"].to_pylist(), labels["related"].to_pylist(), strict=True))
    return KnowsFeatures(read_evidence(tables, n_scored=config.scored_examples), related)
