"""The methods of continual learning: one class and one file each; only `table.py` knows their names.

`Method` is the interface. Your own method extends `TrainedWeights`, `OneAdapter` or `AdapterPerTask`, which train
weights with the loop and have hooks around it, or `Method` itself.
"""

from moextend.bench.methods.adapters import AdapterPerTask
from moextend.bench.methods.method import Knob, Loop, Method, Parameters, Role, Stage
from moextend.bench.methods.shapes import Shapes
from moextend.bench.methods.table import (
    ALL,
    BOUNDS,
    KNOWN,
    OWN,
    TITLES,
    MethodSpec,
    look_of,
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
    "TITLES",
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
    "look_of",
    "named",
    "parse",
    "role_of",
]
