"""Keys of yaml (yacs) configs that several detectors read."""
