"""How long jobs tell of their progress."""

from collections.abc import Callable

Progress = Callable[[str, int, int, float], None]
"""Called as progress(what, done, total, value); value is the job's own figure, such as a loss."""
