"""The bundle: its schema, manifest, writer, validation, and everything that is read from one."""
