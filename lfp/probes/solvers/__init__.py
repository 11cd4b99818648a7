"""How probes are solved at every size: the penalty, normal equations, conjugate gradients, Newton steps."""
