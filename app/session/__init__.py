"""What lasts between reruns: permalinks, caches, audits, public mode."""
