"""A run on disk: its work folder and lock, stage keys, what stages read, its bundle, resources and progress."""
