"""A whole sweep, from what is asked to what came out. Driver."""
