"""Experts that were trained apart, and a router that is trained on a little data of all tasks so far.

Each stage trains an extension alone on the base, as `moextend:scope=own`, and then merges: the router rows of all
extensions so far are trained together, from where each was trained alone, on a kept share of every task's items and on
the sequence's generic text. Base and experts are frozen. At inference every token may reach every extension; the task
is not known.

It is the last step of three recipes, with differences:

- Branch-Train-MiX (Sukhbaatar et al., 2024, arXiv 2403.07816) branches whole dense models, averages what is no
  feed-forward block, starts from a random router, and then fine-tunes everything with a load-balancing loss.
- FlexOlmo (Shi et al., 2025, arXiv 2507.07024) trains each expert beside the frozen public one, as here, and joins the
  router rows, which start from the domain's mean embedding. It trains the router on public data only, if at all.
- BAR (Branch-Adapt-Route, Ai2, 2026) is the nearest one: experts beside a frozen anchor, then a training of the router
  alone on a sample of all tasks. It also unfreezes shared layers of each expert, and averages them.

In all of them a softmax over all experts chooses k; in `exact` routing here each new expert has a gate of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field

import moextend
from moextend.bench.methods import kept
from moextend.bench.methods.extensions import KEPT, Extensions
from moextend.bench.methods.method import Loop, Parameters, Stage
from moextend.bench.methods.shapes import Extra
from moextend.bench.task import TaskIdentity
from moextend.util.lookup import MOST_STEPS
from moextend.util.search_space import LogRange

if TYPE_CHECKING:
    from torch import Tensor

    from moextend import Conversation, MultimodalLM

ROUTER = "router"
"""Stem of the files of a stage with the router rows of all extensions so far."""
ROWS = ".ext_parts."
"""Part of the names of router rows, their biases and calibrations."""


class MergeRouter(Extensions):
    """Extensions are trained apart, then their routers together; keeps raw data."""

    look = ("night", "d")

    class Config(Extensions.Config):
        """What can be set."""

        scope: Literal["own"] = "own"
        """The experts are trained alone."""
        kept: Annotated[float, LogRange(0.01, 1)] = Field(default=0.01, gt=0, le=1)
        """Share of the training items of each stage that the merges are trained on; at least one item."""
        merge_steps: int = Field(default=60, ge=1, le=MOST_STEPS)
        """Steps of each merge, in which rows and biases have `gate_rate` times the learning rate."""

    config: Config
    _given = False
    """Whether the task is given: for the oracle."""
    _alone: dict[str, Tensor]
    """Name in the model -> router rows as they were trained alone."""

    @property
    def task_identity(self) -> TaskIdentity:
        """none: every token may reach every extension."""
        return "given" if self._given else "none"

    @property
    def merge_steps(self) -> int:
        """Steps of each merge."""
        return self.config.merge_steps

    @property
    def unused(self) -> Mapping[str, str]:
        """Also settings of retention: what is kept are raw items."""
        retention = ["retention", *(key for key in KEPT if key != "gate_rate")]
        return {**super().unused, **dict.fromkeys(retention, "moextend:scope=all")}

    def start(self, model: MultimodalLM, seed: int) -> None:
        """Nothing is known of routers yet."""
        self._alone = {}

    def learn(self, model: MultimodalLM, stage: Stage, loop: Loop) -> dict[str, Any]:
        """Trains the extension alone, then the routers of all extensions together."""
        own = super().learn(model, stage, loop)
        self._remember(model, stage.task)
        merged = self._merge(model, stage, loop)
        both = [own["flops"], merged.flops]
        return {
            **own,
            "flops": None if None in both else sum(both),
            "tokens": own["tokens"] + merged.tokens,
            "merged_parameters": merged.trained_parameters,
            "raw_mb": kept.megabytes(self._drawn(stage.data)),
        }

    def _merge(self, model: MultimodalLM, stage: Stage, loop: Loop) -> Any:
        rows, rate = _rows(model), self.config.gate_rate
        _set(rows, self._alone)
        moextend.activate(model.lm, "all")
        model.learn_only(list(rows))
        report = loop(
            learning_rate=self.config.learning_rate, data=self._data(stage), steps=self.config.merge_steps,
            rates={".rows": rate, ".bias": rate}, phase="merge",
        )  # fmt: skip
        model.learn_only([])
        return report

    def _drawn(self, data: Sequence[Conversation]) -> list[Conversation]:
        """The kept items of a stage."""
        return kept.drawn(data, self.config.kept)

    def _data(self, stage: Stage) -> list[Conversation]:
        """The kept items of all tasks so far, and the generic text, to learn."""
        earlier = [item for task, _ in stage.earlier for item in self._drawn(stage.earlier_data(task))]
        return [*earlier, *self._drawn(stage.data), *kept.texts(stage)]

    def save(self, model: MultimodalLM, stage: Stage) -> None:
        """Writes the router rows of all extensions, and the extension as it was trained alone."""
        from moextend.extension import tensor_files

        rows = _rows(model)
        merged = {name: parameter.detach().clone() for name, parameter in rows.items()}
        tensor_files.save_tensors(stage.folder, merged, {"task": stage.task}, ROUTER)
        _set(rows, self._alone)
        super().save(model, stage)
        _set(rows, merged)

    def restore(self, model: MultimodalLM, stage: Stage) -> None:
        """Attaches the extension of that stage, and sets the router rows of all extensions."""
        from moextend.extension import tensor_files

        super().restore(model, stage)
        self._remember(model, stage.task)
        _set(_rows(model), tensor_files.load_tensors(stage.folder, ROUTER)[0])

    def _remember(self, model: MultimodalLM, task: str) -> None:
        own = {name: row for name, row in _rows(model).items() if f"{ROWS}{task}." in name}
        self._alone |= {name: row.detach().clone() for name, row in own.items()}

    def select(self, model: MultimodalLM, task: str, learned: Sequence[str]) -> str:
        """Activates all extensions so far, for every task; if the task is given, its own."""
        moextend.activate(model.lm, [name for name in learned if not self._given or name == task])
        return moextend.active_fingerprint(model)

    def scale(self, model: MultimodalLM, task: str, strengths: Mapping[str, float]) -> str:
        """A strength for each extension."""
        moextend.activate(model.lm, strengths)
        return moextend.active_fingerprint(model)

    def with_given_task(self) -> Self | None:
        """The same extensions and routers, where each task reaches its own extension only."""
        if self._given:
            return None
        other = type(self)(self.config)
        other._given = True
        return other

    def extra(self, model: Any) -> Extra:
        """Extensions add up, and all of them compute in merges and for answers."""
        return Extra(adds=True, together=True)


def _rows(model: MultimodalLM) -> Parameters:
    """Name in the model -> parameter, for the router rows of all extensions."""
    return {name: parameter for name, parameter in model.named_parameters() if ROWS in name}


def _set(rows: Parameters, values: Mapping[str, Tensor]) -> None:
    import torch

    with torch.no_grad():
        for name, parameter in rows.items():
            parameter.copy_(values[name])
