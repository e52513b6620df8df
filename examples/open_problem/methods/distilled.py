"""A teacher is trained for its own inputs alone; the extension for every input then matches its logits (idea 7)."""

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field

from moextend import detach, load_extension, save_extension
from moextend.extension import learning
from moextend.moe import attach
from moextend.moe.routing import only

from ._base import OpenProblem
from ._gates import Gates
from ._losses import AddedLoss

TEACHER = "teacher"


class Distilled(OpenProblem):
    """Matches the logits of an extension that was trained alone on the base, with the retention loss."""

    class Config(OpenProblem.Config):
        """What can be set."""

        match_weight: float = Field(1.0, ge=0)
        """Weight of the divergence from the teacher's answers."""

    config: Config

    def learn(self, model: Any, stage: Any, loop: Any) -> dict[str, Any]:
        """Trains the teacher, then the extension; an interrupted call reads the teacher again."""
        folder = stage.folder / TEACHER
        if not (folder / "extension.json").exists():
            learning.learn(
                model, TEACHER, self.config, loop, held_out=stage.held_out, seed=stage.seed,
                learning_rate=self.config.learning_rate, batch_size=stage.batch_size,
            )  # fmt: skip
            save_extension(model, TEACHER, folder=folder)
        else:
            load_extension(model, folder)
        try:
            return super().learn(model, stage, loop)
        finally:
            detach(model.lm, TEACHER)

    def around(self, model: Any, stage: Any, gates: Gates) -> dict[str, Any]:
        """Adds the divergence to the retention loss."""
        given = super().around(model, stage, gates)
        given["extra_loss"] = Matched(given.get("extra_loss"), teacher(model), self.config.match_weight)
        return given


def teacher(model: Any) -> Any:
    """Function of a batch: the teacher's log-probabilities at the labelled positions."""

    @torch.no_grad()
    def answer(batch: Any) -> torch.Tensor:
        with only(attach.scope_of(model.lm), [TEACHER]):
            return model(**batch)["logits"].float().log_softmax(-1)

    return answer


class Matched(AddedLoss):
    """Divergence of the model's answers from a teacher's: KL(teacher, model), nats a labelled token, times `weight`."""

    def __init__(self, other: Any, answer: Any, weight: float) -> None:
        super().__init__(other)
        self.answer, self.weight = answer, weight

    def own(self, batch: Any, out: Any) -> torch.Tensor:
        """The divergence of a step."""
        given = out["logits"].float().log_softmax(-1)
        return self.weight * F.kl_div(given, self.answer(batch), log_target=True, reduction="batchmean")
