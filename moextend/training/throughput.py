"""Operations a second that a device is assumed to reach where nothing was measured."""

from __future__ import annotations

UTILISATION = 0.2
"""Share of a device's peak."""
THROUGHPUT = {"cuda": ("an H100 in bfloat16", 989.0), "cpu": ("a CPU of few cores in float32", 0.5)}
"""Kind of device -> its name, and the operations a second, in units of 1e12, that its data sheet states."""
