"""`balance()`: Detectron2's own configs with the losses of this package."""
