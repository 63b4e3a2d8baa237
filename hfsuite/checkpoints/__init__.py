"""Checkpoints: what they consist of, and what they can be asked for. In any process."""
