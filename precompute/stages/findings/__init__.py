"""Stages that judge: labels, findings, ablations."""
