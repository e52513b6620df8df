"""What `--dry-run` and `--match` see of a model, and what a method tells them of its costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


class Shapes:
    """The part of a MultimodalLM that a method needs to add its parameters; `lm` may be on device meta.

    The other fields are for methods that estimate what they store.
    """

    def __init__(self, lm: Any, width_of_features: int = 0, items: int = 0, held_out_tokens: int = 0) -> None:
        """Args: width_of_features: numbers of a feature of task inference. items: training items of a stage."""
        self.lm, self.device = lm, lm.device
        self.width_of_features, self.items, self.held_out_tokens = width_of_features, items, held_out_tokens

    def named_parameters(self) -> Iterator[tuple[str, Any]]:
        """As of the MultimodalLM, without encoder and projector."""
        return ((f"lm.{name}", parameter) for name, parameter in self.lm.named_parameters())

    def learn_only(self, names: Sequence[str]) -> None:
        """Does nothing."""


@dataclass(frozen=True)
class Extra:
    """Costs of a stage besides the training of its parameters."""

    teacher: bool = False
    """Whether each step, from the second stage on, computes its batch once more without gradients."""
    sampled: bool = False
    """Whether each step samples the answers of its batch, and a teacher rates them that reads the true ones, too."""
    copies: int = 0
    """Float32 copies of the trained parameters that a training holds, from the second stage on."""
    adds: bool = False
    """Whether each stage adds parameters, and those of earlier ones stay in memory."""
    together: bool = False
    """Whether parameters of earlier stages compute too, in training and in scoring."""
    merged: bool = False
    """Whether the trained parameters become part of the base's weights after a stage."""
    stored_copies: int = 1
    """Tensors of the size of the trained parameters that a stage writes."""
    stored: int = 0
    """Bytes of other files of a stage."""
