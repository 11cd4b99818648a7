"""What every part of the library uses: types, optional dependencies, sanitized text."""
