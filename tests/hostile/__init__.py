"""What hostile input does: bundles, addresses, names and more, made from a seed. `make hostile` runs the long ones."""
