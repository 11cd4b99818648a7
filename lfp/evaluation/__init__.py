"""Judging: predictions against the truth, with intervals, nulls and controls."""
