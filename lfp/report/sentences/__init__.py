"""What results say in plain sentences: those of the report's sections, and those beside its figures."""
