"""What every part of the library uses: types, Arrow columns, the hub, sanitized text."""
