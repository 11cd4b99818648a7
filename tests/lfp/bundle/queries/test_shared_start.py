"""What all texts begin with is left out of lists: a system message, but not the beginning of a lone or chance text."""

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
        ([f"{SYSTEM}What is rain?", f"{SYSTEM}Why is it cold?", f"{SYSTEM}What is snow?"], len(SYSTEM)),
        ([f"{SYSTEM}Whales sing", f"{SYSTEM}Whatever"], len(SYSTEM)),  # not half a word
        ([f"{SYSTEM}one", f"{SYSTEM}one"], 0),
        (["The film was good", "The film was bad"], 0),
        ([], 0),
    ],
)
def test_only_whole_words_that_every_text_begins_with_are_counted(store: Store, texts: list[str], start: int) -> None:
    rows = " UNION ALL ".join(f"SELECT '{text}' AS said" for text in texts) or "SELECT 'x' AS said WHERE false"
    assert queries.common.shared_start(store, f"({rows})", "said") == start


def test_lists_show_what_follows_and_samples_too(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = for_screen(pa.table({"text_id": [3], "text": [f"{SYSTEM}Why?"]}), ["text"], longest=20, start=len(SYSTEM))
    assert shown["text"].to_pylist() == ["Why?"]
    with Store.open(bundle) as opened:
        plain = queries.run.samples(opened, limit=3)
        monkeypatch.setattr(queries.run, "shared_start", lambda store, rows, column: 4)
        assert [replace(sample, prompt=sample.prompt[4:]) for sample in plain] == queries.run.samples(opened, limit=3)
