"""What to train: one self-contained module an experiment. Copy one, change it, run it."""
