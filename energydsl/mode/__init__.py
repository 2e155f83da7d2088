"""Modes: configurations of lowest energy with a bound of all energies, a method a file."""
