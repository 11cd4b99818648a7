"""Findings: figures of the report that are read off a run's tables: words, labels, texts, and where judges disagree."""
