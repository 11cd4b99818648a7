"""What models read and what people said of it: corpora, preferences, words, lexica, rewards, contrastive triples."""
