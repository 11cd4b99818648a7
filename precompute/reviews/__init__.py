"""Film reviews written by a seeded grammar: the corpus of the demo, whose words have known feedback."""

from precompute.reviews.grammar import Review, Sentence, generate, rating_of, word_count_error, word_score
from precompute.reviews.render import aspects, replace_word
from precompute.reviews.shapes import SHAPES
from precompute.reviews.words import lexicon_words, neutral_words, swaps

__all__ = [
    "SHAPES",
    "Review",
    "Sentence",
    "aspects",
    "generate",
    "lexicon_words",
    "neutral_words",
    "rating_of",
    "replace_word",
    "swaps",
    "word_count_error",
    "word_score",
]
