"""What a user's folder holds: adding tasks, editing sequences, the catalogue."""
