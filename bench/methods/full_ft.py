"""Full fine-tuning: every weight of the language model is trained, stage after stage."""

from moextend.bench.methods.weights import (
    Trained as Config,
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
