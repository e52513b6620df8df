"""Base class of methods that train parameters with the loop; saves, restores and fingerprints parameters."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moextend.bench.methods.method import LearningRate, Loop, Method, Parameters, Stage
from moextend.util.spec import Spec

if TYPE_CHECKING:
    from moextend import Conversation, MultimodalLM
    from moextend.training.loop import Report
    from moextend.training.trainer import ExtraLoss, StepHook


class Trained(Method):
    """A method that trains parameters with the loop, with hooks around it; encoder and projector are frozen."""

    class Config(Spec):
        """What can be set."""

        learning_rate: LearningRate = None
        """None: that of the sequence."""

    config: Config

    @abstractmethod
    def prepare(self, model: MultimodalLM, stage: Stage) -> Parameters:
        """Prepares the model for the training of the stage; returns the parameters to train."""

    def extra_loss(self, model: MultimodalLM, stage: Stage) -> ExtraLoss | None:
        """An extra term of the stage's loss: a function of (batch, model output), or None.

        Called once before the training of the stage, so it can keep the current weights.
        """
        return None

    def step_hook(self, model: MultimodalLM, stage: Stage) -> StepHook | None:
        """An object whose `before_step()` changes gradients, or whose `after_step()` changes weights, or None.

        Called once before the training of the stage. A state (`state_dict()` of tensors, `load_state_dict(state)`) is
        part of checkpoints.
        """
        return None

    def data(self, stage: Stage) -> Sequence[Conversation]:
        """Training data of the stage."""
        return stage.data

    def after_stage(self, model: MultimodalLM, stage: Stage) -> Mapping[str, Any]:
        """Called after the training of the stage and before it is saved; returns more facts to record."""
        return {}

    def learn(self, model: MultimodalLM, stage: Stage, loop: Loop) -> dict[str, Any]:
        """Trains the stage's parameters, with the hooks."""
        parameters = self.prepare(model, stage)
        extra = self.extra_loss(model, stage)
        hook, data = self.step_hook(model, stage), self.data(stage)
        model.learn_only(list(parameters))
        report = loop(learning_rate=self.config.learning_rate, data=data, extra_loss=extra, step_hook=hook)
        return {**facts(report), **self.after_stage(model, stage)}


def facts(report: Report) -> dict[str, Any]:
    """Facts to record about a training."""
    return {
        "trained_parameters": report.trained_parameters,
        "loss": report.loss_last,
        "tokens": report.tokens,
        "flops": report.flops,
    }


def write(model: MultimodalLM, stage: Stage, parameters: Parameters) -> None:
    """Writes parameters to the stage's folder."""
    from moextend.extension import tensor_files

    card = {"task": stage.task, "base": model.base_fingerprint()}
    tensor_files.save_tensors(stage.folder, dict(parameters), card)


def put_back(model: MultimodalLM, stage: Stage) -> None:
    """Copies the tensors of the stage's folder into the parameters of the same names."""
    import torch

    from moextend.extension import tensor_files

    places = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in tensor_files.load_tensors(stage.folder)[0].items():
            places[name].copy_(tensor)


def fingerprint(model: MultimodalLM, parameters: Sequence[Parameters]) -> str:
    """Fingerprint of the base with these parameters."""
    from moextend.model.fingerprint import tensors_digest

    return "-".join([model.base_fingerprint(), *(tensors_digest(dict(part)) for part in parameters)])
