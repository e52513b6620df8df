"""new-method: LoRA whose weights are kept small. A method of your own; change what you like.

The name of this file is the name of the method:

    moextend bench run --method new-method
    moextend bench run --method new-method:strength=0.1,rank=4
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from moextend.bench.methods import OneAdapter, Stage
from moextend.util.search_space import LogRange

if TYPE_CHECKING:
    from torch import Tensor

    from moextend import Conversation, MultimodalLM
    from moextend.training.trainer import ExtraLoss, StepHook


# OneAdapter trains one LoRA adapter on, stage after stage. Other bases: TrainedWeights trains the model's own weights
# (`mark` says which), AdapterPerTask makes a new adapter per stage, Method leaves everything to you.
class NewMethod(OneAdapter):
    """LoRA whose weights are kept small."""  # `moextend bench list` shows this line

    # The settings: those of LoRA (rank, alpha, experts, learning_rate) and your own, each with a type and a default.
    class Config(OneAdapter.Config):
        """What can be set."""

        strength: Annotated[float, LogRange(0.001, 1)] = Field(
            default=0.01, ge=0
        )  # the range is for `bench tune`
        """Weight of the penalty."""

    config: Config

    def extra_loss(self, model: MultimodalLM, stage: Stage) -> ExtraLoss | None:
        """A further term of the loss, or None; called once before each stage is trained."""
        weights = self.parameters(model)  # what is trained, by name
        # Keep the current weights here, for example:
        # before = {name: p.detach().clone() for name, p in weights.items()}

        def penalty(batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Tensor:
            # Called after each forward pass: `batch` is what the model was given, `out` has "logits" and "loss".
            parts = [p.square().sum() for p in weights.values()]
            return self.config.strength * sum(parts[1:], parts[0])

        return penalty

    # The hooks below do what the base does; remove those that you do not need.

    def step_hook(self, model: MultimodalLM, stage: Stage) -> StepHook | None:
        """An object whose before_step may change gradients, and whose after_step may change weights, or None."""
        return None

    def data(self, stage: Stage) -> Sequence[Conversation]:
        """What the stage is learned from; `stage.earlier_data(task)` has that of an earlier one."""
        return stage.data

    def after_stage(self, model: MultimodalLM, stage: Stage) -> Mapping[str, Any]:
        """Called when the stage is trained; facts for its cost.json. `stage.folder` keeps files of yours."""
        return {}
