"""Annotation files and images as they are on disk: reading, parsing, and what is wrong with them.

Nothing here needs torch or Detectron2.
"""
