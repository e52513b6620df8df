"""LoRA (arXiv 2106.09685) through peft: one adapter on attention and experts, trained on, stage after stage."""

from moextend.bench.methods.weights import (
    Adapted as Config,
)
from moextend.bench.methods.weights import (
    learn,
    probe_steps,
    restore,
    save,
    select,
    start,
    told,
)

__all__ = ["Config", "learn", "probe_steps", "restore", "save", "select", "start", "told"]
