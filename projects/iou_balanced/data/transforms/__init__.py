"""Augmentations, for both of Detectron2's mappers and our own."""
