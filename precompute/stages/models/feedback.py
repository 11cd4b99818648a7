"""Stage `feedback`: checks before any model is trained that the lexicon and the reward can be used on the corpus."""

from __future__ import annotations

from lfp.texts.lexicon import check_lexicon, lexicon_of
from precompute.run.inputs import load_reward, read_texts
from precompute.run.work_folder import Output, Run

_TRIED_TEXTS = 16


def run(run: Run, output: Output) -> None:
    """Write facts.json. Raises DataError for a lexicon without two values in the corpus, or what the reward raises."""
    texts = [text.text for text in read_texts(run)]
    lexicon = lexicon_of(run.config.feedback, beside=run.config_dir)
    check_lexicon(lexicon, texts, name=run.config.feedback.lexicon)
    load_reward(run.config, run.config_dir)(texts[:_TRIED_TEXTS])
    output.json("facts", {"lexicon_words": len(lexicon)})
