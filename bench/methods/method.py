"""What a method is, and what it is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, Self

from pydantic import Field

from moextend.bench.task import TaskIdentity
from moextend.util.spec import Spec

if TYPE_CHECKING:
    from torch import nn

    from moextend import Conversation, MultimodalLM
    from moextend.training.estimate import Learns
    from moextend.training.loop import Report
    from moextend.training.trainer import ExtraLoss

Rate = Annotated[float, Field(gt=0)]
"""A learning rate, or another factor that cannot be zero."""
Rank = Annotated[int, Field(ge=1, le=65_536)]

Parameters = Mapping[str, "nn.Parameter"]
"""Parameters by their name in the model."""

Role = Literal["base", "bound", "reference"]
"""base: learns nothing, the zero-shot row. bound: the joint and the independent bound are learned with it.
reference: others are matched with it (`--match`, the table of costs)."""


def _none(task: str) -> Sequence[Conversation]:
    return ()


@dataclass(frozen=True)
class Stage:
    """What there is to learn a stage from."""

    index: int
    """1 for the first stage."""
    task: str
    data: Sequence[Conversation]
    """S_t: what may be learned."""
    held_out: Sequence[Conversation]
    """S_e: training items that no method learns from; for choosing layers."""
    generic: Sequence[Conversation]
    """Generic text that stands for what the base knows; empty if the sequence names none."""
    seed: int
    folder: Path
    """Where this stage keeps what it learned."""
    earlier: Sequence[tuple[str, Path]] = ()
    """(task, folder) of the stages before."""
    earlier_data: Callable[[str], Sequence[Conversation]] = _none
    """What an earlier task was learned from; only replay looks at it."""
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


@dataclass(frozen=True)
class Knob:
    """A setting that says how much a method trains."""

    key: str
    fraction: bool = False
    """Between 0 and 1; else an integer of at least 1."""


class Method(ABC):
    """How a stage is learned: one object for a run, made from its config.

    A method of its own kind implements `learn`, `save`, `restore` and `select`; one that trains weights by the loop
    begins at `Trained` or below (`TrainedWeights`, `OneAdapter`, `AdapterPerTask`), where a regularisation is one hook.
    """

    Config: ClassVar[type[Spec]] = Spec
    """What can be set; `--method NAME:key=value` and the sequence's `settings` fill it."""
    role: ClassVar[Role | None] = None
    """What the package uses this method for besides being run; plug-ins have none."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def task_identity(self) -> TaskIdentity:
        """What the method knows of the task at inference; every table shows it."""
        return "none"

    @property
    def text_untouched(self) -> bool:
        """Whether what is learned from inputs with images can never answer an input without one.

        Tables then mark that text loses nothing as by construction.
        """
        return False

    @property
    def probe_steps(self) -> int:
        """Steps of a probe before each stage, for the progress plan; 0 for none."""
        return 0

    def start(self, model: MultimodalLM, seed: int) -> None:
        """Prepares the model before the first stage; its outputs must stay those of the base."""
        return

    @abstractmethod
    def learn(self, model: MultimodalLM, stage: Stage, loop: Loop) -> dict[str, Any]:
        """Learns a stage; facts worth recording (trained parameters, chosen layers, ...)."""

    @abstractmethod
    def save(self, model: MultimodalLM, stage: Stage) -> None:
        """Writes what the stage learned to its folder."""

    @abstractmethod
    def restore(self, model: MultimodalLM, stage: Stage) -> None:
        """Brings the model to where it was after the stage, bit for bit, from the stage's folder."""

    @abstractmethod
    def select(self, model: MultimodalLM, task: str, learned: Sequence[str]) -> str:
        """Makes the model ready for inputs of `task`; the fingerprint of all weights that then compute."""

    def with_given_task(self) -> Self | None:
        """The same method with the task given, for the oracle; None where it is, or where it makes no difference."""
        return None

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """The settings that say how much the method trains, for `--match`; an integer setting first."""
        return ()

    @property
    def competing(self) -> int:
        """New experts of a layer that share the base's top-k of a token, for `--match flops`; 1 where none do."""
        return 1

    def trainable(self, model: Any) -> Parameters:
        """What the first stage trains, by name, put into a model that may have shapes and no memory (`Shapes`)."""
        return {}

    def learns(self, model: Any) -> Learns | None:
        """What the first stage trains of such a model, for the estimate of `--dry-run`; None for nothing."""
        from moextend.training.estimate import Learns

        everything = sum(parameter.numel() for _, parameter in model.named_parameters())
        count = sum(parameter.numel() for parameter in self.trainable(model).values())
        if not count:
            return None
        return Learns(everything=True) if count == everything else Learns(parameters=count)
