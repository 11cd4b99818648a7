"""What tests and benchmarks share: bundles made up from a seed, a fake server, activations with a known dictionary."""
