"""A stand-in for a model, of which only the parameters are counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any


class Shapes:
    """As much of a MultimodalLM as a method asks for when it puts its parameters in; `lm` may have no memory."""

    def __init__(self, lm: Any) -> None:
        self.lm, self.device = lm, lm.device

    def named_parameters(self) -> Iterator[tuple[str, Any]]:
        """As of the MultimodalLM, without encoder and projector."""
        return ((f"lm.{name}", parameter) for name, parameter in self.lm.named_parameters())

    def learn_only(self, names: Sequence[str]) -> None:
        """Nothing is trained."""
