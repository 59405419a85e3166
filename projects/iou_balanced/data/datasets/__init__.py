"""Data sets: registration, reading, checks."""
