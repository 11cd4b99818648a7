"""The library's entrance to a bundle: open one, and read what it holds as tables for pandas or Arrow."""
