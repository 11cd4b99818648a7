"""Scores, bootstrap intervals, permutation nulls, calibration."""
