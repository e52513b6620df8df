"""The methods: how a stage is learned. One class and one file each; `table.py` is all that names them.

`Method` says what a method is. One of your own begins at `TrainedWeights`, `OneAdapter` or `AdapterPerTask`, which
train weights by the loop and have hooks around it, or at `Method` itself.
"""

from moextend.bench.methods.adapters import AdapterPerTask
from moextend.bench.methods.method import Knob, Loop, Method, Parameters, Role, Stage
from moextend.bench.methods.shapes import Shapes
from moextend.bench.methods.table import (
    ALL,
    BOUNDS,
    KNOWN,
    OWN,
    MethodSpec,
    named,
    parse,
    role_of,
)
from moextend.bench.methods.trained import Trained
from moextend.bench.methods.weights import AdapterOrAll, OneAdapter, TrainedWeights
from moextend.bench.task import TaskIdentity

__all__ = [
    "ALL",
    "BOUNDS",
    "KNOWN",
    "OWN",
    "AdapterOrAll",
    "AdapterPerTask",
    "Knob",
    "Loop",
    "Method",
    "MethodSpec",
    "OneAdapter",
    "Parameters",
    "Role",
    "Shapes",
    "Stage",
    "TaskIdentity",
    "Trained",
    "TrainedWeights",
    "named",
    "parse",
    "role_of",
]
