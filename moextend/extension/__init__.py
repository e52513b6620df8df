"""Learning, storing, activating and choosing extensions."""
