"""A method that trained elsewhere: this package only scores the checkpoints of its stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moextend.bench.methods.method import Loop, Method, Stage
from moextend.bench.methods.table import MethodSpec
from moextend.bench.plugins import PACKAGE
from moextend.bench.task import TaskIdentity
from moextend.util import spec
from moextend.util.spec import Spec

if TYPE_CHECKING:
    from moextend import MultimodalLM


class Stated(Spec):
    """What is stated about the method."""

    task_id: TaskIdentity = "none"
    """Whether the task is given, inferred or unknown (none) at inference."""


class Elsewhere(Method):
    """Learns nothing here."""

    Config = Stated

    @property
    def task_identity(self) -> TaskIdentity:
        """As stated."""
        identity: TaskIdentity = self.config.task_id
        return identity

    @property
    def training_settings(self) -> None:
        """Nothing is trained."""
        return

    def learn(self, model: MultimodalLM, stage: Stage, loop: Loop) -> dict[str, Any]:
        """Nothing is learned."""
        raise NotImplementedError

    def save(self, model: MultimodalLM, stage: Stage) -> None:
        """Nothing."""

    def restore(self, model: MultimodalLM, stage: Stage) -> None:
        """Nothing."""

    def select(self, model: MultimodalLM, task: str, learned: Sequence[str]) -> str:
        """Nothing is selected: a checkpoint is known by its files."""
        raise NotImplementedError


def spec_of(name: str, settings: Mapping[str, Mapping[str, Any]] | None) -> MethodSpec:
    """The method of a run that only scores; its settings are what is stated about it."""
    given = dict((settings or {}).get(name, {}))
    config = spec.parse(Stated, given, where=f"method '{name}'")
    return MethodSpec(name, name, Elsewhere, config, PACKAGE, given)
