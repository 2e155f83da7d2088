"""Energy-based models, one a file, in public names only; ``energydsl run NAME`` runs one."""
