"""The penalty on outputs of the package (`moextend:scope=all`), for new experts that may be shut at images."""

from typing import Any

from moextend.extension.retention import output_loss

from ._base import OpenProblem


class OutputPenalty(OpenProblem):
    """Retention of the blocks' outputs at kept router inputs; exact routing."""

    def retention(self, model: Any, stage: Any, kept: Any) -> Any:
        """The package's loss."""
        config = self.config
        return output_loss(
            model, stage.task, kept, weight=config.memory_weight, sample=config.memory_sample, seed=stage.seed
        )
