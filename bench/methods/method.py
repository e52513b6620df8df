"""What every method offers, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import Field

from moextend.spec import Spec

if TYPE_CHECKING:
    from moextend import Conversation, MultimodalLM
    from moextend.trainer import ExtraLoss
    from moextend.training import Report

Rate = Annotated[float, Field(gt=0)]
"""A learning rate, or another factor that cannot be zero."""
Rank = Annotated[int, Field(ge=1, le=65_536)]


def _none(task: str) -> Sequence[Conversation]:
    return ()


@dataclass(frozen=True)
class Stage:
    """What there is to learn a stage from."""

    index: int
    """1 for the first stage."""
    task: str
    data: Sequence[Conversation]
    """S_t: what may be learnt."""
    held_out: Sequence[Conversation]
    """S_e: training items that no method learns from; for choosing layers."""
    generic: Sequence[Conversation]
    """Generic text that stands for what the base knows; empty if the sequence names none."""
    seed: int
    folder: Path
    """Where this stage keeps what it learnt."""
    earlier: Sequence[tuple[str, Path]] = ()
    """(task, folder) of the stages before."""
    earlier_data: Callable[[str], Sequence[Conversation]] = _none
    """What an earlier task was learnt from; only replay looks at it."""
    batch_size: int = 64
    """Conversations a forward pass of the training; whatever only looks at the model computes as many."""


class Loop(Protocol):
    """The one training loop, bound to a stage's data order, settings and progress."""

    def __call__(
        self,
        *,
        learning_rate: float | None = None,
        data: Sequence[Conversation] | None = None,
        extra_loss: ExtraLoss | None = None,
        rates: Mapping[str, float] | None = None,
        steps: int | None = None,
        phase: str = "train",
    ) -> Report:
        """Trains what requires gradients on the stage's data, or on `data`; None takes the sequence's setting.

        `extra_loss` is called after each forward pass with its batch and what the model gave; added to the loss.
        """
        ...


class Method(Protocol):
    """A method's module.

    It may also have `text_untouched(config) -> bool`: whether what is learnt from inputs with images can never answer
    an input without one. Tables then mark that text loses nothing as by construction.
    """

    Config: type[Spec]

    def told(self, config: Any) -> bool:
        """Whether the method is told at inference which task an input belongs to."""
        ...

    def probe_steps(self, config: Any) -> int:
        """Steps of a probe before each stage; 0 for none. For the progress plan."""
        ...

    def start(self, model: MultimodalLM, config: Any, seed: int) -> None:
        """Prepares the model before the first stage."""
        ...

    def learn(self, model: MultimodalLM, config: Any, stage: Stage, loop: Loop) -> dict[str, Any]:
        """Learns a stage; facts worth recording (trained parameters, chosen layers, ...)."""
        ...

    def save(self, model: MultimodalLM, config: Any, stage: Stage) -> None:
        """Writes what the stage learnt to its folder."""
        ...

    def restore(self, model: MultimodalLM, config: Any, stage: Stage) -> None:
        """Brings the model to where it was after the stage, from the stage's folder."""
        ...

    def select(self, model: MultimodalLM, config: Any, task: str, learnt: Sequence[str]) -> str:
        """Makes the model ready for inputs of `task`; the fingerprint of all weights that then compute."""
        ...
