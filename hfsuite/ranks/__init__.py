"""What a rank does: the training function, and all that surrounds it in the worker's process. In every rank."""
