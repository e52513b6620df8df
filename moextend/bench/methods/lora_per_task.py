"""One LoRA adapter per task on the unchanged base: nothing is shared, and nothing is forgotten.

It is the counterpart of moextend with the task given (`task=given`, like `scope: own`) or inferred from the input
(`task=inferred`, like `scope: auto`, with the same task inference). The base answers text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

from moextend.bench.methods import adapters, inferred, trained
from moextend.bench.methods.method import Stage
from moextend.bench.methods.shapes import Extra
from moextend.bench.task import TaskIdentity

if TYPE_CHECKING:
    from moextend import MultimodalLM


class LoraPerTask(inferred.Narrowed, adapters.AdapterPerTask):
    """A new adapter per stage on the unchanged base."""

    look = ("sky", "D")

    class Config(adapters.AdapterPerTask.Config):
        """What can be set."""

        task: Literal["given", "inferred"] = "given"

    config: Config

    @property
    def task_identity(self) -> TaskIdentity:
        """The setting `task`."""
        return self.config.task

    @property
    def text_untouched(self) -> bool:
        """Inputs without an image never use an adapter that was trained on images."""
        return True

    inference_files = (inferred.FILE,)

    @property
    def training_settings(self) -> dict[str, Any]:
        """All but `task`: the adapters are the same."""
        return {**self.config.model_dump(mode="json"), "task": "given"}

    trains_alone = True

    def prepare_inference(self, model: MultimodalLM, stage: Stage) -> dict[str, Any]:
        """inferred: writes the task statistics of the stage."""
        return inferred.facts(model, stage) if self._infers else {}

    def save(self, model: MultimodalLM, stage: Stage) -> None:
        """Writes the stage's adapter."""
        super().save(model, stage)
        self._choose(model, stage)

    def restore(self, model: MultimodalLM, stage: Stage) -> None:
        """Adds the stage's adapter."""
        super().restore(model, stage)
        self._choose(model, stage)

    def select(self, model: MultimodalLM, task: str, learned: Sequence[str]) -> str:
        """given: activates the task's own adapter, or none. inferred: the adapter is chosen for each input."""
        if self._infers:
            assert model.choose is not None, "restore and save set it"
            named = trained.fingerprint(model, [adapters.parameters(model, name) for name in learned])
            return f"{named}-{model.choose.fingerprint()}"
        return super().select(model, task, [task] if task in learned else [])

    def scale(self, model: MultimodalLM, task: str, strengths: Mapping[str, float]) -> str:
        """given: scales the task's own adapter. inferred: each; one without strength is not chosen."""
        if not self._infers:
            return adapters.scale(model, {name: own for name, own in strengths.items() if name == task})
        present = [name for name, strength in strengths.items() if strength]
        named = adapters.scale(model, strengths, active=[])
        return f"{named}-{self._narrowed(model, present)}" if present else named

    def extra(self, model: Any) -> Extra:
        """Adapters add up, and task statistics if the task is inferred."""
        return replace(super().extra(model), stored=inferred.stored(model) if self._infers else 0)

    def with_given_task(self) -> Self | None:
        """The same adapters, chosen by the task's name."""
        return type(self)(self.config.model_copy(update={"task": "given"})) if self._infers else None

    @property
    def _infers(self) -> bool:
        return self.config.task == "inferred"

    def _choose(self, model: MultimodalLM, stage: Stage) -> None:
        adapters.use(model, [])
        if self._infers:
            inferred.choose(model, stage, partial(adapters.using, model))
