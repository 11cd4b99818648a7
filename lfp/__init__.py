"""Learned Feedback Patterns: what a language model learned from human feedback, as features, probes and bundles."""

__version__ = "0.1.0"
