"""The only torch: models, tuning, activations, autoencoders, statistics of features."""
