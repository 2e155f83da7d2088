"""The modelling language: variables over domains, expressions, potentials and models."""
