"""Faster, Mask and Cascade R-CNN: Detectron2's with the losses as arguments."""
