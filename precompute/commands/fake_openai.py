"""The verb `fake_openai`: a local stand-in for a language model, to try labelling without a key."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pyarrow.compute as pc

from lfp.bundle.manifest import check_bundle, read_table
from lfp.config import LabelsConfig, parse_section
from lfp.labels.evidence import read_evidence
from lfp.labels.types import Behaviour
from lfp.testing.fake_openai.answers import KnowsFeatures, ReadsPrompts, Responder, SwapWords
from lfp.testing.fake_openai.server import FakeConfig, FakeServer
from lfp.texts.lexicon import vader_lexicon


def fake_openai(*, port: int = 0, behave: Behaviour = "right", bundle: str | Path | None = None) -> FakeServer:
    """Return a fake server, a context manager that serves while it is entered; port 0 takes a free port.

    With a bundle it knows what that bundle's features fire on; otherwise it answers from the words of the prompt.
    Raises ConfigError where the port cannot be opened, BundleError where there is no such bundle.
    """
    responders: list[Responder] = [SwapWords(vader_lexicon()), ReadsPrompts(vader_lexicon())]
    if bundle is not None:
        responders.insert(0, knows(Path(bundle)))
    return FakeServer(FakeConfig(behave), responders, port=port)


def knows(bundle: Path) -> KnowsFeatures:
    """Return the responder that knows a bundle's features, and which of them its own labeller calls related."""
    manifest, tables = check_bundle(bundle), partial(read_table, bundle)
    config = parse_section(LabelsConfig, manifest.config.get("labels", {}), where=f"{bundle}: labels")
    labels = tables("labels")
    labels = labels.filter(pc.equal(labels["labeller"], manifest.labeller))
    related = dict(zip(labels["feature_id"].to_pylist(), labels["related"].to_pylist(), strict=True))
    return KnowsFeatures(read_evidence(tables, n_scored=config.scored_examples), related)
