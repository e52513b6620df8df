"""What is done with the parameters that a stage trains: train them, keep them, put them back, name them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import moextend
from moextend.bench.methods.method import Loop, Stage

if TYPE_CHECKING:
    from torch import nn

    from moextend import Conversation, MultimodalLM
    from moextend.trainer import ExtraLoss
    from moextend.training import Report

Parameters = Mapping[str, "nn.Parameter"]
"""Parameters by their name in the model."""


def tune(
    model: MultimodalLM,
    parameters: Parameters,
    loop: Loop,
    *,
    learning_rate: float | None,
    data: Sequence[Conversation] | None = None,
    extra_loss: ExtraLoss | None = None,
) -> dict[str, Any]:
    """Trains these parameters alone, on the stage's data or on `data`; encoder and projector stay frozen."""
    model.learn_only(list(parameters))
    report = loop(learning_rate=learning_rate, data=data, extra_loss=extra_loss)
    return facts(report)


def facts(report: Report) -> dict[str, Any]:
    """What is recorded of a training."""
    return {
        "trained_parameters": report.trained_parameters,
        "loss": report.loss_last,
        "tokens": report.tokens,
        "flops": report.flops,
    }


def write(model: MultimodalLM, stage: Stage, parameters: Parameters) -> None:
    """Keeps parameters in the stage's folder."""
    card = {"task": stage.task, "base": model.base_fingerprint()}
    moextend.extension.save_tensors(stage.folder, dict(parameters), card)


def put_back(model: MultimodalLM, stage: Stage) -> None:
    """Copies what the stage's folder keeps into the parameters of the same names."""
    import torch

    places = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in moextend.extension.load_tensors(stage.folder)[0].items():
            places[name].copy_(tensor)


def fingerprint(model: MultimodalLM, parameters: Sequence[Parameters]) -> str:
    """Names the base with these parameters."""
    from moextend.fingerprint import tensors_digest

    return "-".join([model.base_fingerprint(), *(tensors_digest(dict(part)) for part in parameters)])
