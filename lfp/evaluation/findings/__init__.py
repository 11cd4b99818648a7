"""Figures of the report that are read off the tables of a run."""
