"""The page over the runs of a workspace, live while they work; read-only."""

from moextend.bench.report.serve.server import Address, serve

__all__ = ["Address", "serve"]
