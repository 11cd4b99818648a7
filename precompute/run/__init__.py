"""One run on disk: its work folder, what stages read of it, its bundle, its resources and progress."""
