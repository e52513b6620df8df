"""Models of this project in other harnesses: lm-eval and lmms-eval. Arguments are translated, nothing else."""
