"""Stages about features: dictionaries, statistics, rollouts, texts."""
