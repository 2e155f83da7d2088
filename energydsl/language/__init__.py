"""What users write: variables over domains, expressions, potentials, models."""
