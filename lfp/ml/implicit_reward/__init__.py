"""The implicit reward of words: occurrences, matched contexts, rollouts."""
