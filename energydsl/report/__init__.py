"""What is told of chains and models: diagnoses, ArviZ trees, pictures."""
