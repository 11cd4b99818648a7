"""How probes are solved, at every size: what lfp.ridge and lfp.logistic stand on."""
