"""What MLflow is told: runs, metrics, checkpoints, states."""
