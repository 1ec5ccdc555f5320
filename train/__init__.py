"""Training data and checkpoint tools; needs the `train` extra."""
