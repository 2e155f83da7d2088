"""The model zoo: one energy-based model per file, which ``energydsl run NAME`` runs."""
