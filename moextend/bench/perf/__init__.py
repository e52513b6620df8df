"""Speed and memory of training and answering (docs/performance.md), and of a GPU (docs/gpu.md)."""
