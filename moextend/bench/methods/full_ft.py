"""Full fine-tuning: all weights of the language model are trained in every stage."""

from __future__ import annotations

from moextend.bench.methods.weights import TrainedWeights


class FullFineTuning(TrainedWeights):
    """All weights of the LM are trained in every stage."""

    role = "bound"
    look = ("vermilion", "v")
