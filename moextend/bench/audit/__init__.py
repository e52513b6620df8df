"""Audit of a sequence before training: what its tasks can measure, task by task."""
