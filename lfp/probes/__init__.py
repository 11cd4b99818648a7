"""Linear probes on sparse features: folds, fits, intervals of weights, and the exact split of a prediction."""
