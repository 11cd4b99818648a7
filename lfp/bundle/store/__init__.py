"""Read-only DuckDB over a bundle: the connection, the views, and a sorted copy of a large one."""
