"""A method that trained elsewhere: this package only scores the checkpoints of its stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moextend.bench.methods.table import MethodSpec
from moextend.bench.methods.zero_shot import ZeroShot
from moextend.bench.plugins import PACKAGE
from moextend.bench.task import TaskIdentity
from moextend.util import spec
from moextend.util.spec import Spec


class Stated(Spec):
    """What is stated about the method."""

    task_id: TaskIdentity = "none"
    """Whether the task is given, inferred or unknown (none) at inference."""


class Elsewhere(ZeroShot):
    """Learns nothing here."""

    Config = Stated

    @property
    def task_identity(self) -> TaskIdentity:
        """As stated."""
        identity: TaskIdentity = self.config.task_id
        return identity


def spec_of(name: str, settings: Mapping[str, Mapping[str, Any]] | None) -> MethodSpec:
    """The method of a run that only scores; its settings are what is stated about it."""
    given = dict((settings or {}).get(name, {}))
    config = spec.parse(Stated, given, where=f"method '{name}'")
    return MethodSpec(name, name, Elsewhere, config, PACKAGE, given)
