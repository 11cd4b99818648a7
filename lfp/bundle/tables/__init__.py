"""The tables of a bundle, by subject; `lfp.bundle.schema` puts them in order."""
