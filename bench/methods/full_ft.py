"""Full fine-tuning: every weight of the language model is trained, stage after stage."""

from __future__ import annotations

from moextend.bench.methods.weights import TrainedWeights


class FullFineTuning(TrainedWeights):
    """All weights of the LM are trained on."""

    role = "bound"
