"""What to try next: spaces, searchers, trial schedulers."""
