"""Training settings: one model for a sequence's `train:`, `moextend extend --config` and Python.

Schedule, warm-up and weight decay have the defaults of LLaVA-1.5 (arXiv 2310.03744, its published scripts), which
MoExtend uses in its experiments (arXiv 2408.03511).
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from moextend.errors import InputError, UnknownName
from moextend.util.lookup import BATCH, MOST_BATCH, MOST_SEED, MOST_SEEN, MOST_STEPS, RATE
from moextend.util.spec import Spec

Schedule = Literal["cosine", "linear", "constant"]
SCHEDULES: dict[Schedule, str] = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant_with_warmup",
}
"""Name -> transformers' name. All schedules begin with the warm-up."""
Steps = Annotated[int, Field(ge=1, le=MOST_STEPS)]
Batch = Annotated[int, Field(ge=1, le=MOST_BATCH)]
Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]
Rate = Annotated[float, Field(gt=0)]
"""A learning rate or another factor above zero."""
Beta = Annotated[float, Field(ge=0, lt=1, strict=True)]

PASSES = 3
"""Passes over the data if the number of steps is not set."""
ADDED = {"betas": (0.9, 0.98), "epsilon": 1e-8}
"""Settings that are missing in records of early runs, with the values that these runs used."""


class Training(Spec):
    """Settings that all trainings of a sequence share; a method may set its own learning rate."""

    model_config = ConfigDict(title="training settings")

    steps: Steps
    """Optimizer steps."""
    batch_size: Batch
    """Conversations per forward pass, over all processes."""
    learning_rate: Rate
    """Peak learning rate."""
    schedule: Schedule = "cosine"
    """Learning rate after the warm-up: cosine or linear to zero, or constant. Default: LLaVA-1.5's."""
    warmup: float = Field(default=0.03, ge=0, le=1)
    """Share of the steps with a rising learning rate (warm-up). Default: LLaVA-1.5's."""
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    """AdamW's decay rates of the mean gradient and the mean square. Default: the Transformer's (arXiv 1706.03762,
    section 5.3); 0.98 averages over about 50 steps, 0.999 over 1,000, which is too many for short trainings."""
    epsilon: float = Field(default=1e-8, gt=0)
    """AdamW's term in the denominator. Default: Adam's (arXiv 1412.6980), as in PyTorch and transformers."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay. Default: LLaVA-1.5's. A larger value shrinks new experts, away from their parents."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Gradient clipping: maximum norm; 0: no clipping. Default: that of transformers."""
    gradient_accumulation: Batch = 1
    """Forward passes per optimizer step. All labelled tokens of a step have the same weight."""
    checkpoint_steps: Steps = 100
    """Steps between two checkpoints; an interrupted training continues from the last one."""
    bf16: bool = False
    """Compute in bfloat16 (autocast); trained parameters stay in float32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of storing them: less memory, more time."""
    compile: bool = False
    """Compile the decoder's layers (torch.compile): faster if layers are large and the training is long."""
    balance: float = Field(default=0.0, ge=0)
    """Factor on the load-balance loss over the trained new experts (see balance.balance_loss; paper: 0.001).
    Default: zero, because a single new expert per layer needs no balancing."""
    cache_prefix: bool = False
    """Cache the input of the lowest trained layer for each item; later epochs start there.

    The result is the same up to rounding. Requires frozen layers without randomness below; not possible with
    `compile` or FSDP.
    """
    report_to: str = "none"
    """An installed tracker that transformers supports ("tensorboard", ...), "all" of them, or "none"."""

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if problem := clash(self):
            raise ValueError(problem)
        return self

    def record(self) -> dict[str, Any]:
        """Settings for the records of a run, as JSON values.

        A later setting is left out if it has the value of early runs, so that their records still match.
        """
        usual = {name for name, value in ADDED.items() if getattr(self, name) == value}
        return self.model_dump(mode="json", exclude=usual)

    def settings(
        self, seed: int, *, steps: int | None = None, learning_rate: float | None = None
    ) -> Settings:
        """Settings of one training; None keeps the sequence's value."""
        own = {"steps": steps, "learning_rate": learning_rate}
        shared = {name: getattr(self, name) for name in Training.model_fields}
        return Settings(**shared | {key: value for key, value in own.items() if value is not None}, seed=seed)


class Settings(Training):
    """Settings of one training with its seed.

    Raises:
        InputError: a value is invalid.
    """

    seed: Seed = 0
    """Seed of the data order and of all random numbers."""

    def having(self, **changes: Any) -> Settings:
        """A copy with changes. Raises InputError for an invalid value."""
        return Settings(**{**dict(self), **changes})


def default_settings(conversations: int, **given: Any) -> Settings:
    """Default settings for `n` conversations, not tuned to any model: three passes in batches of 16 at 1e-3.

    Args:
        given: settings that replace the defaults; None keeps a default.
    """
    own = {"batch_size": BATCH, "learning_rate": RATE}
    own |= {name: value for name, value in given.items() if value is not None}
    if "steps" not in own:
        each = Settings(**own, steps=1)
        own["steps"] = math.ceil(PASSES * conversations / (each.batch_size * each.gradient_accumulation))
    return Settings(**own)


def clash(settings: Training) -> str | None:
    """Reason why settings that are valid alone do not fit together; None if they do."""
    if settings.cache_prefix and settings.compile:
        return "cache_prefix cannot be combined with compile"
    seen = settings.steps * settings.batch_size * settings.gradient_accumulation
    if seen > MOST_SEEN:
        return f"steps x batch_size x gradient_accumulation is {seen:,}, more than {MOST_SEEN:,}"
    return None


def check_tracker(name: str, *, where: str = "report_to") -> None:
    """Raises InputError if transformers does not know the tracker `name`, or it is not installed; `where`: its key."""
    if name in ("none", "all"):
        return
    from transformers.integrations import get_available_reporting_integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    if name not in INTEGRATION_TO_CALLBACK:
        raise UnknownName("tracker", name, ["none", "all", *INTEGRATION_TO_CALLBACK], where=where)
    if name not in get_available_reporting_integrations():
        raise InputError(
            f"the tracker '{name}' is not installed.",
            where=where,
            hint="Install its package, or use report_to: none.",
        )
