"""`precompute plant`: models tuned on a secret that the method must find, the test with known truth."""
