"""Stages that make models and read them: corpus, base, tuned, completions, layers."""
