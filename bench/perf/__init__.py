"""How fast training and answering are, each way of training beside full fine-tuning and its own least work.

`python -m moextend.bench.perf --help`; docs/performance.md says what is measured and how.
"""
