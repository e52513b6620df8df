"""The training loop, its settings, checkpoints, sharding and counts of operations."""
