"""The stages of a run, one file each: every one is a function of the run and of the folder it writes."""
