"""What both models write after the same prefix, one below the other, each with its reward."""

from __future__ import annotations

from collections.abc import Collection

from lfp.bundle.queries.run import Sample
from lfp.report.formatting import signed
from lfp.texts.words import words_of
from lfp.util.sanitize import escaped


def continuations(sample: Sample, *, risen: Collection[str] = (), fallen: Collection[str] = ()) -> str:
    """Return the prefix and both continuations; words that the tuned model writes more, or less, are marked in them."""
    sides = (("base", sample.base, sample.base_reward), ("tuned", sample.tuned, sample.tuned_reward))
    rows = "".join(
        f"<div><dt>{name} model <b>{signed(reward)}</b></dt><dd>{_mark_words(text, risen, fallen)}</dd></div>"
        for name, text, reward in sides
    )
    prompt = " ".join(sample.prompt.removesuffix(_CUE).split())
    return f'<section class="lfp-sample"><p>{escaped(prompt)} …</p><dl>{rows}</dl></section>'


_CUE = "\nassistant\n"
"""What chat templates end a prompt with, so that the model answers: no part of what was asked."""


def sentence(*, is_of_pairs: bool) -> str:
    """Say what is shown, and what the numbers are: with preference pairs no reward that tuning was for."""
    unseen = ", which tuning on preference pairs did not see: a rise is no success" if is_of_pairs else ""
    return (
        "Both continue the same held-out prefix; words that tuning made more or less frequent are coloured. The number "
        f"is the continuation’s reward{' by the config’s lexicon' if is_of_pairs else ''}{unseen}."
    )


def _mark_words(text: str, risen: Collection[str], fallen: Collection[str]) -> str:
    html, end = "", 0
    for word in words_of(text):
        side = "up" if word.word in risen else "down" if word.word in fallen else ""
        if side:
            html += f'{escaped(text[end : word.start])}<b class="{side}">{escaped(text[word.start : word.end])}</b>'
            end = word.end
    return html + escaped(text[end:])
