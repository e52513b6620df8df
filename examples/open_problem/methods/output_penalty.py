"""New experts may open on earlier inputs; what they add there is penalised, not the gate (idea 3)."""

from typing import Any

from ._base import OpenProblem
from ._losses import relative_output, sampled


class OutputPenalty(OpenProblem):
    """Retention of the block's outputs at kept router inputs; exact routing."""

    def retention(self, model: Any, stage: Any, kept: Any) -> Any:
        """``memory_weight * mean(|g E(x)|^2 / |y(x)|^2)``."""
        config = self.config
        return sampled(
            model, stage.task, kept, relative_output(model, stage.task, kept),
            weight=config.memory_weight, sample=config.memory_sample, seed=stage.seed,
        )  # fmt: skip
