"""Measures the speed of training and answering.

Variants of training are compared with full fine-tuning and with their lower bounds. See
`python -m moextend.bench.perf --help` and docs/performance.md.
"""
