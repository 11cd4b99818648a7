"""What stage `probes` is made of: inputs, the tokens kept for it, targets, fits, preference pairs and report rows."""
