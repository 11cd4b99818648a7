"""Sparse autoencoders: five variants, their training, their quality and their files."""
