"""The table of methods, and the parser of method specs: the only place that knows the methods' names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from moextend.bench.methods.method import Method, Role
from moextend.bench.plugins import Plugins, Source, load_later
from moextend.bench.task import Mode
from moextend.errors import InputError, at
from moextend.util import lookup, spec
from moextend.util.spec import Spec

OWN = {
    "zero-shot": "moextend.bench.methods.zero_shot:ZeroShot",
    "full-ft": "moextend.bench.methods.full_ft:FullFineTuning",
    "lora": "moextend.bench.methods.lora:Lora",
    "lora-per-task": "moextend.bench.methods.lora_per_task:LoraPerTask",
    "replay": "moextend.bench.methods.replay:Replay",
    "ewc": "moextend.bench.methods.ewc:Ewc",
    "lwf": "moextend.bench.methods.lwf:Lwf",
    "o-lora": "moextend.bench.methods.o_lora:OLora",
    "moe-lora": "moextend.bench.methods.moe_lora:MoeLora",
    "osf": "moextend.bench.methods.osf:Osf",
    "sdft": "moextend.bench.methods.sdft:Sdft",
    "esft": "moextend.bench.methods.esft:Esft",
    "merge-router": "moextend.bench.methods.merge_router:MergeRouter",
    "moextend": "moextend.bench.methods.moextend:MoExtend",
}
"""Methods of the package."""

TITLES = {
    "zero-shot": "Zero-shot", "full-ft": "Full FT", "lora": "LoRA", "lora-per-task": "LoRA per task",
    "replay": "Replay", "ewc": "EWC", "lwf": "LwF", "o-lora": "O-LoRA", "moe-lora": "MoELoRA", "osf": "OSF",
    "sdft": "SDFT", "esft": "ESFT", "merge-router": "Merged router", "moextend": "MoExtend",
}  # fmt: skip
"""Methods of the package -> their names in papers."""

ALL = "all"
"""Keyword for all methods."""
BOUNDS: dict[str, Mode] = {"joint": "joint", "individual": "independent"}
"""Names of the bounds among the methods: the method of role `bound`, in another mode."""


def _class_in(value: Any, name: str) -> type[Method]:
    """Method class in a module, or the object of an entry point; ValueError if there is none."""
    if isinstance(value, ModuleType):
        value = _only_class(value)
    if not (isinstance(value, type) and issubclass(value, Method)):
        raise ValueError("is not a subclass of Method.")
    lacks = ", ".join(sorted(value.__abstractmethods__))
    if lacks:
        raise ValueError(f"'{value.__name__}' does not implement {lacks}.")
    if not (isinstance(value.Config, type) and issubclass(value.Config, Spec)):
        raise ValueError(f"the Config of '{value.__name__}' is not a subclass of the Config of its base.")
    return value


def _only_class(module: ModuleType) -> type[Method]:
    found = [
        thing
        for key, thing in vars(module).items()
        if isinstance(thing, type)
        and issubclass(thing, Method)
        and thing.__module__ == module.__name__
        and not key.startswith("_")
    ]
    if not found:
        raise ValueError("holds no subclass of Method.")
    if len(found) > 1:
        names = ", ".join(each.__name__ for each in found)
        raise ValueError(
            f"holds {len(found)} methods ({names}): one per file; helper classes begin with '_'."
        )
    return found[0]


KNOWN: Plugins[type[Method]] = Plugins(
    noun="method",
    folder="methods",
    group="moextend.methods",
    own=lambda: {name: load_later(target) for name, target in OWN.items()},
    take=_class_in,
    reserved=(ALL, *BOUNDS),
)


@dataclass(frozen=True)
class MethodSpec:
    """A method with its settings, as in `--method`."""

    text: str
    """`name` or `name:key=value,...`: the name of the run and of its row in tables."""
    name: str
    kind: type[Method]
    config: Spec
    source: Source
    given: Mapping[str, Any]
    """Settings of the sequence and of `text`, as written."""

    def make(self) -> Method:
        """Creates the method for one run."""
        return self.kind(self.config)

    def sets(self, key: str) -> bool:
        """Whether `text` itself sets something."""
        return key in _settings(self.text)

    def having(self, key: str, value: object) -> MethodSpec:
        """The same method with one more setting in its text."""
        text = f"{self.text}{',' if ':' in self.text else ':'}{key}={value}"
        return _spec(
            text, self.name, self.kind, self.source, {**self.given, key: str(value)}, f"method '{text}'"
        )

    def refuse_unused(self, where: str) -> None:
        """Raises InputError if `text` sets something that changes nothing with its other settings."""
        for key, needed in self.make().unused.items():
            if self.sets(key):
                raise InputError(
                    f"setting '{key}' has no effect without {needed}.",
                    where=f"{where}: method '{self.text}'",
                    hint=f"Add {needed}, or leave the setting out.",
                )

    def refuse_stages(self, names: Sequence[str], where: str) -> None:
        """Raises InputError if the method cannot learn a stage of one of these names."""
        with at(f"{where}: method '{self.text}'"):
            self.make().check_stages(names)

    @property
    def role(self) -> Role | None:
        """Special use of the method in the package."""
        return role_of(self.text)

    def record(self) -> dict[str, Any]:
        """Record of the method, for a preview."""
        return {
            "method": self.text,
            "task_identity": self.make().task_identity,
            "settings": self.config.model_dump(),
        }


def parse(
    text: str,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    workspace: Path | None = None,
    *,
    where: str | None = None,
) -> MethodSpec:
    """Method and config from `name` or `name:key=value,...`.

    `settings` are a sequence's settings by method name; those in `text` override them. `workspace` may have plug-ins;
    only the file that can define this method is imported. `where` is the option or key with `text`.

    Raises:
        UnknownName: no such method.  InputError: a setting is unknown or of the wrong type, or the plug-in is broken.
    """
    found = KNOWN.find(text.partition(":")[0], workspace, where=where)
    place = f"{where}: method '{text}'" if where else f"method '{text}'"
    given = {**(settings or {}).get(found.name, {}), **_settings(text, place)}
    return _spec(text, found.name, found.value, found.source, given, place)


def role_of(text: str) -> Role | None:
    """Role of a method of the package, by the name in a spec; None for other methods."""
    name = text.partition(":")[0]
    if name not in OWN:
        return None
    role: Role | None = lookup.load(OWN[name]).role
    return role


def look_of(name: str) -> tuple[str, str] | None:
    """Colour and marker of a method of the package; None for other methods."""
    look: tuple[str, str] | None = lookup.load(OWN[name]).look if name in OWN else None
    return look


def named(role: Role) -> str:
    """Method of the package with a role."""
    return next(name for name in OWN if role_of(name) == role)


def _spec(
    text: str, name: str, kind: type[Method], source: Source, given: Mapping[str, Any], where: str
) -> MethodSpec:
    config = spec.parse(kind.Config, dict(given), where=where)
    return MethodSpec(text, name, kind, config, source, given)


def _settings(text: str, where: str = "") -> dict[str, str]:
    """Settings in the text of a spec."""
    _, colon, tail = text.partition(":")
    found: dict[str, str] = {}
    for pair in tail.split(",") if colon else []:
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not value:
            raise InputError(
                f"setting '{pair}' has no value.",
                where=where,
                hint="Write NAME:key=value,key=value; a list with +, as in layers=0+3.",
            )
        if key in found:
            raise InputError(f"setting '{key}' is given twice.", where=where, hint="Give it once.")
        found[key] = value
    return found
