"""Stage `probes` and what it is made of: triples, inputs, targets, fits, pairs, tables."""
