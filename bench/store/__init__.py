"""What the runs of a workspace share: computed once, by whoever comes first, and kept below `.cache` of the workspace.

A node is a folder `.cache/<kind>/<key>/` with files and a card. The key is a digest of everything that the content
depends on, so a node is never out of date. It is only a copy: without it, a run computes the same again.
"""

from moextend.bench.store.node import CARD, KINDS, Damaged, Kind, Node, Store
from moextend.bench.store.numerics import numerics
from moextend.bench.store.records import KeptFile, NodeCard, StoreFile, User

__all__ = [
    "CARD",
    "KINDS",
    "Damaged",
    "KeptFile",
    "Kind",
    "Node",
    "NodeCard",
    "Store",
    "StoreFile",
    "User",
    "numerics",
]
