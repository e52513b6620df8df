"""Extended models for other programs: checkpoints of plain transformers, and folders that transformers loads."""
