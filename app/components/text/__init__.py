"""What is shown of one text."""
