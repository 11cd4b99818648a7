"""Features scaled or removed in a running model, and a bundle read with its own models."""
