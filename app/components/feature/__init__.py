"""What is shown of one feature."""
