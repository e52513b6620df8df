"""How a training goes: the one model that a sequence's `train:`, `moextend extend --config` and Python fill.

The defaults of schedule, warm-up and weight decay are those of LLaVA-1.5 (arXiv 2310.03744, its published scripts),
whose settings MoExtend takes for its experiments (arXiv 2408.03511).
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from moextend.util.limits import BATCH, MOST_BATCH, MOST_SEED, MOST_SEEN, MOST_STEPS, RATE
from moextend.util.spec import Spec

Schedule = Literal["cosine", "linear", "constant"]
SCHEDULES: dict[Schedule, str] = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant_with_warmup",
}
"""Name -> transformers' name; all of them begin with the warm-up."""
Tracker = Literal[
    "none", "all", "azure_ml", "clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "flyte", "kubeflow", "mlflow",
    "neptune", "swanlab", "tensorboard", "trackio", "wandb",
]  # fmt: skip
"""Trackers that transformers knows."""
Steps = Annotated[int, Field(ge=1, le=MOST_STEPS)]
Batch = Annotated[int, Field(ge=1, le=MOST_BATCH)]
Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]
Rate = Annotated[float, Field(gt=0)]
"""A learning rate, or another factor that cannot be zero."""
Beta = Annotated[float, Field(ge=0, lt=1, strict=True)]

PASSES = 3
"""Passes over the data of a training for which no steps are named."""
ADDED = {"betas": (0.9, 0.98), "epsilon": 1e-8}
"""Settings that records of former runs lack, with the values that these runs were trained with."""


class Training(Spec):
    """Settings that all trainings of a sequence share; a method may set its own learning rate."""

    model_config = ConfigDict(title="training settings")

    steps: Steps
    """Optimizer steps."""
    batch_size: Batch
    """Conversations a forward pass, over all processes together."""
    learning_rate: Rate
    """Highest learning rate."""
    schedule: Schedule = "cosine"
    """How the learning rate goes on after the warm-up: cosine or linear to zero, or constant. Default: LLaVA-1.5's."""
    warmup: float = Field(0.03, ge=0, le=1)
    """Share of the steps in which the learning rate rises from zero. Default: LLaVA-1.5's."""
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    """AdamW's decay rates of the mean gradient and the mean square. Default: the Transformer's (arXiv 1706.03762,
    section 5.3); 0.98 averages over about 50 steps, which fits trainings too short for the 1,000 steps of 0.999."""
    epsilon: float = Field(1e-8, gt=0)
    """AdamW's addition to the denominator. Default: Adam's (arXiv 1412.6980), as in PyTorch and transformers."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's. Default: LLaVA-1.5's; new experts would else shrink away from the ones they are copies of."""
    max_grad_norm: float = Field(1.0, ge=0)
    """The gradient is cut to this norm; 0 leaves it as it is. Default: that of transformers."""
    gradient_accumulation: Batch = 1
    """Forward passes an optimizer step. Every labelled token of a step weighs the same."""
    checkpoint_steps: Steps = 100
    """Steps between two checkpoints that an interrupted training goes on from."""
    bf16: bool = False
    """Compute in bfloat16 (autocast); what learns is held in float32 all the same."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, more time."""
    compile: bool = False
    """Compile the decoder's layers (torch.compile): pays where layers are large and the training is long."""
    balance: float = Field(0.0, ge=0)
    """Factor on the load-balance loss among the new experts that learn (see balance.balance_loss; paper: 0.001).
    Default: none, since a single new expert a layer has nothing to balance."""
    cache_prefix: bool = False
    """Keep what enters the lowest layer that learns, item by item, and begin there from the second epoch on.

    What is learned is the same up to rounding. Only where all below is frozen and nothing there is random; not with
    `compile`, and not under FSDP.
    """
    report_to: Tracker = "none"
    """A tracker that transformers knows and that is installed, "all" of them, or "none"."""

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if problem := clash(self):
            raise ValueError(problem)
        return self

    def record(self) -> dict[str, Any]:
        """What names the settings in the records of a run, as JSON values.

        An added setting is left out where it is what former runs had, so that these stay the same runs.
        """
        former = {name for name, value in ADDED.items() if getattr(self, name) == value}
        return self.model_dump(mode="json", exclude=former)

    def settings(
        self, seed: int, *, steps: int | None = None, learning_rate: float | None = None
    ) -> Settings:
        """The settings of one training; None leaves a value as it stands here."""
        own = {"steps": steps, "learning_rate": learning_rate}
        shared = {name: getattr(self, name) for name in Training.model_fields}
        return Settings(**shared | {key: value for key, value in own.items() if value is not None}, seed=seed)


class Settings(Training):
    """How long and how fast to train, and from which seed.

    Raises:
        InputError: a value that no training can have.
    """

    seed: Seed = 0
    """Of the order of the data and of what is drawn."""

    def having(self, **changes: Any) -> Settings:
        """The same settings with changes; InputError for a wrong one."""
        return Settings(**{**dict(self), **changes})


def default_settings(conversations: int, **given: Any) -> Settings:
    """A start for so many conversations, not tuned to any model: three passes in batches of 16 at 1e-3.

    Args:
        given: settings that stand instead of these; None leaves one as it is.
    """
    own = {"batch_size": BATCH, "learning_rate": RATE}
    own |= {name: value for name, value in given.items() if value is not None}
    if "steps" not in own:
        each = Settings(**own, steps=1)
        own["steps"] = math.ceil(PASSES * conversations / (each.batch_size * each.gradient_accumulation))
    return Settings(**own)


def clash(settings: Training) -> str | None:
    """Why settings that are right one by one do not go together; None where they do."""
    if settings.cache_prefix and settings.compile:
        return "cache_prefix does not go with compile"
    seen = settings.steps * settings.batch_size * settings.gradient_accumulation
    if seen > MOST_SEEN:
        return f"steps x batch_size x gradient_accumulation is {seen:,}, more than {MOST_SEEN:,}"
    return None
