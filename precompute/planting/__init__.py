"""Planted feedback: models tuned on a secret that our own output must find, the test with known truth."""
