"""What nearly all texts begin with is left out of lists: a system message, but not what a few share."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from app.components.text.reading import for_screen
from lfp.bundle import queries
from lfp.bundle.store.connection import Store

SYSTEM = "system You are a helpful assistant named Smol. user "


@pytest.mark.parametrize(
    ("texts", "start"),
    [
        ([f"{SYSTEM}What is rain?", f"{SYSTEM}Why is it cold?", f"{SYSTEM}What is snow?"], SYSTEM),
        ([f"{SYSTEM}Whales sing", f"{SYSTEM}Whatever"], SYSTEM),  # not half a word
        (["system You are", *(f"{SYSTEM}{i}" for i in range(40))], SYSTEM),  # one that was cut
        ([f"{SYSTEM}one", f"{SYSTEM}one"], ""),
        (["The film was good", "The film was bad"], ""),
        ([], ""),
    ],
)
def test_it_is_whole_words_that_nearly_every_text_begins_with(store: Store, texts: list[str], start: str) -> None:
    rows = " UNION ALL ".join(f"SELECT '{text}' AS said" for text in texts) or "SELECT 'x' AS said WHERE false"
    assert queries.common.shared_start(store, f"({rows})", "said") == start


def test_lists_show_what_follows_and_samples_too(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = for_screen(pa.table({"text_id": [3], "text": [f"{SYSTEM}Why?"]}), ["text"], longest=20, start=SYSTEM)
    assert shown["text"].to_pylist() == ["Why?"]
    with Store.open(bundle) as opened:
        plain = queries.run.samples(opened, limit=3)
        start = plain[0].prompt[:4]
        monkeypatch.setattr(queries.run, "shared_start", lambda store, rows, column: start)
        first, *others = queries.run.samples(opened, limit=3)
        assert first == replace(plain[0], prompt=plain[0].prompt[4:])
        assert [sample.index for sample in others] == [sample.index for sample in plain[1:]]
