"""What the runs of a workspace share: computed once, by whoever comes first, and kept below `.cache` of the workspace.

A node is a folder `.cache/<kind>/<key>/` with files and a card. The key is a digest of everything that the content
depends on, so a node is never out of date. It is only a copy: without it, a run computes the same again.
"""

from moextend.bench.store.node import Damaged, KeptFile, Node, NodeCard, Store
from moextend.bench.store.numerics import numerics

__all__ = ["Damaged", "KeptFile", "Node", "NodeCard", "Store", "numerics"]
