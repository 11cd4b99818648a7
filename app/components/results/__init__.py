"""What is shown of a run as a whole."""
