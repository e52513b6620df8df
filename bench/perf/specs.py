"""Settings of methods whose speed is measured, as `bench run` names them, and runs with the same settings."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from moextend.bench import methods
from moextend.bench.methods import MethodSpec
from moextend.bench.methods.lora import Lora
from moextend.bench.methods.lora_per_task import LoraPerTask
from moextend.bench.methods.moextend import MoExtend
from moextend.bench.sequence import SequenceSpec, find_sequence
from moextend.errors import InputError

EXACT = "moextend:layers=last,width=0.25"
WHOLE = "moextend:layers=last,width=1"
PAPER = "moextend:routing=paper,layers=last"
SLOT = "moextend:routing=slot,layers=last"
MODES = (EXACT, PAPER, SLOT)
"""One new expert in each layer of the top half, in every routing mode."""
ALWAYS = ("full-ft", "lora:rank=8,experts=false", "lora:rank=8", *MODES, WHOLE)
"""Measured for every model; full fine-tuning first."""


def measured_specs(sequence: str | None, more: Iterable[str] = ()) -> list[MethodSpec]:
    """ALWAYS, the methods of a sequence, and `more`: those whose step can be measured, each step once.

    Args:
        sequence: of the package; its settings are those of the methods, too. None: none.

    Raises:
        InputError: one of `more` is no method, or a setting is wrong.
    """
    found = None if sequence is None else find_sequence(sequence, Path())
    own = found.methods if found else []
    specs = [parsed(text, found) for text in (*ALWAYS, *more, *own)]
    once: dict[str, MethodSpec] = {}
    for spec in filter(has_step, specs):
        once.setdefault(key(spec), spec)
    return list(once.values())


def parsed(text: str, sequence: SequenceSpec | None) -> MethodSpec:
    """A method with the settings of a sequence."""
    return methods.parse(text, sequence.settings_for(text) if sequence else None, where="--method")


def has_step(spec: MethodSpec) -> bool:
    """Whether a step of the method is one of the loop without more terms of the loss, in layers that are known."""
    if spec.role == "bound" or spec.kind in (Lora, LoraPerTask):
        return True
    if not isinstance(spec.config, MoExtend.Config):
        return False
    return not spec.config.keeps_memory and spec.config.layers not in ("probe", "random")


def refuse_without_step(texts: Iterable[str]) -> None:
    """Raises InputError for a method whose step is not measured."""
    for text in texts:
        if not has_step(parsed(text, None)):
            raise InputError(
                f"the step of '{text}' is not measured: it has more terms of the loss, or layers that a probe chooses.",
                where="--method",
                hint="Measured are full-ft, lora, lora-per-task, and moextend without memory and with named layers.",
            )


def key(spec: MethodSpec) -> str:
    """Equal for methods with equal training steps: same name and settings, whatever the learning rate is.

    Settings that only matter in answering (such as moextend's scopes own and auto) make no difference.
    """
    settings = spec.make().training_settings
    known = spec.config.model_dump(mode="json") if settings is None else settings
    kept = {name: value for name, value in known.items() if name != "learning_rate"}
    return json.dumps([spec.name, kept], sort_keys=True)
