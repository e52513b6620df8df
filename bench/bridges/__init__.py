"""Models of this project in other harnesses: lm-eval and lmms-eval. Bridges only translate arguments."""
