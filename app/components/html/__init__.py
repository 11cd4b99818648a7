"""Panels, tables, numbers and files on screen, as escaped HTML."""
