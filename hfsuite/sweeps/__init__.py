"""A whole sweep: experiment, sweep, result."""
