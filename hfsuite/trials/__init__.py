"""One trial under Ray Tune: its trainable, its worker group, its resources."""
