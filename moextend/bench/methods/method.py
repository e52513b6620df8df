"""The interface of a method, and its inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, Self

from pydantic import Field

from moextend.bench.methods.shapes import Extra
from moextend.bench.task import TaskIdentity
from moextend.training.settings import Rate as Rate
from moextend.util.search_space import Choices, LogRange, SearchSpace, declared
from moextend.util.spec import Spec

if TYPE_CHECKING:
    from torch import nn

    from moextend import Conversation, MultimodalLM
    from moextend.training.loop import Report
    from moextend.training.trainer import ExtraLoss, StepHook

Rank = Annotated[int, Field(ge=1, le=65_536)]

LearningRate = Annotated[Rate | None, LogRange(0.1, 10, relative=True)]
"""A learning rate, None: that of the sequence; tuning searches a decade below and above it."""
LoraRank = Annotated[Rank, Choices((4, 8, 16, 32))]
"""The rank of an adapter."""

Parameters = Mapping[str, "nn.Parameter"]
"""Name in the model -> parameter."""

Role = Literal["base", "bound", "reference"]
"""base: learns nothing (zero-shot). bound: the method of the joint and the independent bound. reference: other methods
are matched with it (`--match`, the table of costs)."""


Scales = Literal["nothing", "together", "each"]
"""Whether what stages learned can be scaled between the base (0) and the stage (1): of all stages together, of each."""


def _none(task: str) -> Sequence[Conversation]:
    return ()


@dataclass(frozen=True)
class Stage:
    """Data and folders of a stage."""

    index: int
    """Number of the stage, from 1."""
    task: str
    data: Sequence[Conversation]
    """S_t: training conversations."""
    held_out: Sequence[Conversation]
    """S_e: held-out training items for choosing layers; no method learns from them in this stage."""
    generic: Sequence[Conversation]
    """Generic text as a sample of the base's knowledge; empty if the sequence has none."""
    seed: int
    folder: Path
    """Folder for the weights and files of this stage."""
    earlier: Sequence[tuple[str, Path]] = ()
    """(task, folder) of the earlier stages."""
    earlier_data: Callable[[str], Sequence[Conversation]] = _none
    """Training conversations of an earlier task, for methods that keep raw data."""
    batch_size: int = 64
    """Conversations per forward pass, in the training and in other computations."""


class Loop(Protocol):
    """The training loop, bound to a stage's data order, settings and progress."""

    def __call__(
        self,
        *,
        learning_rate: float | None = None,
        data: Sequence[Conversation] | None = None,
        extra_loss: ExtraLoss | None = None,
        step_hook: StepHook | None = None,
        rates: Mapping[str, float] | None = None,
        steps: int | None = None,
        phase: str = "train",
    ) -> Report:
        """Trains the parameters with gradients on the stage's data, or on `data`; None takes the sequence's setting.

        `extra_loss` is called after each forward pass with the batch and the model output, and added to the loss;
        `step_hook` before and after each optimizer step.
        """
        ...


@dataclass(frozen=True)
class Knob:
    """A setting that controls how much a method trains."""

    key: str
    fraction: bool = False
    """Between 0 and 1; else an integer of at least 1."""


class Method(ABC):
    """A method of continual learning: one object per run, created from its config.

    A new kind of method implements `learn`, `save`, `restore` and `select`. A method that trains weights with the loop
    extends `Trained` or one of its subclasses (`TrainedWeights`, `OneAdapter`, `AdapterPerTask`), where a
    regularisation is one hook.
    """

    Config: ClassVar[type[Spec]] = Spec
    """Settings, from `--method NAME:key=value` and the sequence's `settings`."""
    role: ClassVar[Role | None] = None
    """Special use of this method in the package; plug-ins have none."""
    look: ClassVar[tuple[str, str] | None] = None
    """Colour and marker in figures, of `bench/report/looks.py`, of a method of the package; others get free ones."""
    scales: ClassVar[Scales] = "nothing"
    """What `scale` scales. `each`: stages are separate extensions, of which some can be left out."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def task_identity(self) -> TaskIdentity:
        """Whether the task is given, inferred or unknown (none) at inference; every table shows it."""
        return "none"

    @property
    def text_untouched(self) -> bool:
        """Whether weights trained on images never compute an input without an image.

        Tables then mark that text is unchanged by construction.
        """
        return False

    @property
    def probe_steps(self) -> int:
        """Steps of a probe before each stage, for the progress plan; 0 without a probe."""
        return 0

    @property
    def merge_steps(self) -> int:
        """Steps of a training after that of each stage (phase `merge`), for the progress plan; 0 without one."""
        return 0

    @property
    def unused(self) -> Mapping[str, str]:
        """Settings that change nothing with these values of the others -> what they need.

        `bench run` refuses to set one, and `bench tune` does not search it.
        """
        return {}

    later_only: ClassVar[tuple[str, ...]] = ()
    """Settings without effect in the first stage, before which nothing was learned; `bench tune --tasks 1` does not
    search them."""

    needs_earlier: ClassVar[bool] = True
    """Whether inference or a later stage needs the files of all stages so far; False: those of the last stage."""

    memory_setting: ClassVar[str | None] = None
    """Setting that is the size of the raw data kept of each stage in 10^6 bytes, for `--match memory`."""

    inference_files: ClassVar[tuple[str, ...]] = ()
    """Files that `prepare_inference` writes to the folder of a stage."""

    @property
    def training_settings(self) -> Mapping[str, Any] | None:
        """Settings that trained weights depend on, as JSON: runs that agree in them share their trained stages.

        None: stages are not shared, as in a method that trains nothing. Those of a plug-in are shared only if its class
        has this property itself.
        """
        return dict(self.config.model_dump(mode="json"))

    @property
    def trains_alone(self) -> bool:
        """Whether the training of a stage gives the same weights, bit for bit, whatever was learned before."""
        return False

    def prepare_inference(self, model: MultimodalLM, stage: Stage) -> dict[str, Any]:
        """Writes to the stage's folder what inference needs besides trained weights; returns facts to record.

        Called after the training and before `save`, also if another run with the same `training_settings` trained the
        stage. It must not depend on trained weights.
        """
        return {}

    def check(self, model: Any) -> None:
        """Raises InputError if the method cannot learn with this base, which may be on device meta (`Shapes`).

        Called before the base is aligned and scored, which can take hours.
        """
        return

    @property
    def trains_base(self) -> bool:
        """Whether it changes weights of the base, which a quantised one does not allow."""
        return False

    def check_stages(self, names: Sequence[str]) -> None:
        """Raises InputError if what a stage learns cannot have its name. Called before anything runs."""
        return

    def start(self, model: MultimodalLM, seed: int) -> None:
        """Prepares the model before the first stage; its outputs must not change."""
        return

    @abstractmethod
    def learn(self, model: MultimodalLM, stage: Stage, loop: Loop) -> dict[str, Any]:
        """Trains a stage; returns facts to record (trained parameters, chosen layers, ...)."""

    @abstractmethod
    def save(self, model: MultimodalLM, stage: Stage) -> None:
        """Writes the result of the stage to its folder."""

    @abstractmethod
    def restore(self, model: MultimodalLM, stage: Stage) -> None:
        """Restores the model as it was after the stage, bit for bit, from the stage's folder."""

    @abstractmethod
    def select(self, model: MultimodalLM, task: str, learned: Sequence[str]) -> str:
        """Prepares the model for inputs of `task`; returns the fingerprint of all weights that compute."""

    def keep_base(self, model: MultimodalLM) -> None:
        """Keeps what `scale` needs of the base; called after `start`, before any stage, only if results are scaled."""
        return

    def scale(self, model: MultimodalLM, task: str, strengths: Mapping[str, float]) -> str:
        """`select` after the last stage, with a strength for what each stage learned, in learning order.

        0 is the model without it: with 0 for all, the base bit for bit. 1 is what `select` gives, bit for bit. All are
        equal if `scales` is "together". Returns the fingerprint of all weights that compute, and their strengths.

        Raises:
            InputError: an extension cannot compute without another one.
        """
        raise NotImplementedError

    def with_given_task(self) -> Self | None:
        """The same method with the task given, for the oracle; None if it is given already or makes no difference."""
        return None

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """Settings that control how much the method trains, for `--match`; an integer setting first."""
        return ()

    @property
    def search_space(self) -> SearchSpace:
        """Settings that `bench tune` searches: fields of `Config` that declare a range, without `unused` ones."""
        unused = self.unused
        return {name: found for name, found in declared(type(self.config)).items() if name not in unused}

    def trainable(self, model: Any) -> Parameters:
        """Trainable parameters of the first stage, added to a model that may be on device meta (`Shapes`)."""
        return {}

    def extra(self, model: Any) -> Extra:
        """What a stage takes besides training the parameters of `trainable`, for the estimate of `--dry-run`."""
        return Extra()
