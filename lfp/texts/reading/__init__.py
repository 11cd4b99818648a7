"""Rows of any file, folder, address or data set of the hub: found, decompressed, decoded, taken apart."""
