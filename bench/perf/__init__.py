"""How fast training and answering are, each variant of training beside full fine-tuning and its own lower bound.

`python -m moextend.bench.perf --help`; docs/performance.md says what is measured and how.
"""
