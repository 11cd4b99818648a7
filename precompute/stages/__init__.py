"""The stages of a run, in four groups; each is a function of the run and of the folder it writes."""
