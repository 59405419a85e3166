"""Parts of tools/reproduce.py."""
