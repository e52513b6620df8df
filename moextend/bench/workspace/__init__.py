"""The user's workspace: adding tasks, editing sequences, listing the catalogue."""
