"""A run of a method over a sequence: its folder, plan, worker processes and records."""
