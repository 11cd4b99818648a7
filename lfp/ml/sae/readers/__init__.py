"""Readers of autoencoders' folders, a module per tool that writes them."""
