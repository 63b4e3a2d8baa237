"""One training run on N workers: the two trainers, their checkpoints, reports and datasets."""
