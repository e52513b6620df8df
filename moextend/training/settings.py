"""How long and how fast to train."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

from moextend.errors import InputError, UnknownName
from moextend.util.limits import MOST_BATCH, MOST_SEED, MOST_SEEN, MOST_STEPS

SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
"""Name -> transformers' name; all of them begin with the warm-up."""


@dataclass(frozen=True)
class Settings:
    """How long and how fast to train.

    Raises:
        InputError: a value that no training can have.
    """

    steps: int
    """Optimizer steps."""
    batch_size: int
    """Conversations a forward pass, over all processes together."""
    learning_rate: float
    """Highest learning rate."""
    schedule: str = "cosine"
    """How the learning rate goes on after the warm-up: cosine or linear to zero, or constant."""
    warmup: float = 0.03
    """Share of the steps in which the learning rate rises from zero."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    """The gradient is cut to this norm; 0 leaves it as it is."""
    gradient_accumulation: int = 1
    """Forward passes an optimizer step. Every labelled token of a step weighs the same."""
    checkpoint_steps: int = 100
    """Steps between two checkpoints that an interrupted training goes on from."""
    seed: int = 0
    bf16: bool = False
    """Compute in bfloat16 (autocast); what learns is held in float32 all the same."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, more time."""
    compile: bool = False
    """Compile the decoder's layers (torch.compile): pays where layers are large and the training is long."""
    balance: float = 0.0
    """Factor on the load-balance loss among the new experts that learn (see balance.balance_loss; paper: 0.001)."""
    cache_prefix: bool = False
    """Keep what enters the lowest layer that learns, item by item, and begin there from the second epoch on.

    What is learned is the same up to rounding. Only where all below is frozen and nothing there is random; not with
    `compile`, and not under FSDP.
    """
    report_to: str = "none"
    """A tracker that transformers knows and that is installed, "all" of them, or "none"."""

    def __post_init__(self) -> None:
        """Refuses values out of range."""
        for name in ("steps", "batch_size", "gradient_accumulation", "checkpoint_steps", "seed"):
            value = getattr(self, name)
            if isinstance(value, bool) or not hasattr(value, "__index__") or value < 0:
                raise InputError(
                    f"{name} is {value!r}.", where="training settings", hint="A whole number, not negative."
                )
        ranges = {
            "steps": (1, MOST_STEPS), "batch_size": (1, MOST_BATCH), "learning_rate": (0, inf), "warmup": (0, 1),
            "weight_decay": (0, inf), "max_grad_norm": (0, inf), "gradient_accumulation": (1, inf),
            "checkpoint_steps": (1, inf), "balance": (0, inf), "seed": (0, MOST_SEED),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not (low <= value <= high and isfinite(value)):
                ends = f"From {low} to {high}." if isfinite(high) else f"A finite number of at least {low}."
                raise InputError(f"{name} is {value}.", where="training settings", hint=ends)
        if problem := clash(self):
            raise InputError(f"{problem}.", where="training settings", hint="Make these settings agree.")
        if self.schedule not in SCHEDULES:
            raise UnknownName("schedule", self.schedule, SCHEDULES, where="training settings")


def clash(settings: Any) -> str | None:
    """Why settings that are right one by one do not go together; None where they do."""
    if settings.cache_prefix and settings.compile:
        return "cache_prefix does not go with compile"
    seen = settings.steps * settings.batch_size * settings.gradient_accumulation
    if seen > MOST_SEEN:
        return f"steps x batch_size x gradient_accumulation is {seen:,}, more than {MOST_SEEN:,}"
    return None
