"""The rows of tools/benchmark.py, a kind a module."""
