"""Labels: what a feature fires on and whether it is about the feedback, by any labeller of one protocol."""
