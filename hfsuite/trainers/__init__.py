"""The two trainers, and what a training on its own needs. Driver."""
