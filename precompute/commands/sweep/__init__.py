"""`precompute sweep`: dictionaries compared over a grid."""
