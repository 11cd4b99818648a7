"""Models: loaded, pretrained, tuned, read and sampled."""
