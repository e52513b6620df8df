"""Inputs that are not answered as they should be yet: a test of each is expected to fail."""

from __future__ import annotations

LINES: frozenset[str] = frozenset()
"""Command lines, as command_lines.shown tells them."""
SEQUENCES = frozenset({"sequence=other", "base.chat=True"})
"""Changes of a sequence, as yaml_inputs.shown tells them."""
TASKS = frozenset({"lm_eval={'task': 'x'}"})
"""Changes of a task."""
