"""What to run on a machine with a CUDA card."""
