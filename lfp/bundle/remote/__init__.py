"""Bundles in object stores: published with the manifest last, read through a bounded cache on this machine."""
