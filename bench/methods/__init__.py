"""The methods: how a stage is learnt. One file each; this table is all that names them.

A method's module has a config and six functions over explicit state (see `Method`). To add one, write its file and
add its line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moextend import lookup, spec
from moextend.bench.methods.method import Method
from moextend.errors import InputError
from moextend.spec import Spec

METHODS = {
    "zero-shot": "moextend.bench.methods.zero_shot",
    "full-ft": "moextend.bench.methods.full_ft",
    "lora": "moextend.bench.methods.lora",
    "lora-per-task": "moextend.bench.methods.lora_per_task",
    "replay": "moextend.bench.methods.replay",
    "ewc": "moextend.bench.methods.ewc",
    "lwf": "moextend.bench.methods.lwf",
    "o-lora": "moextend.bench.methods.o_lora",
    "moe-lora": "moextend.bench.methods.moe_lora",
    "moextend": "moextend.bench.methods.moextend",
}


def parse(text: str, settings: Mapping[str, Mapping[str, Any]] | None = None) -> tuple[Method, Spec]:
    """The method and config behind `name` or `name:key=value,...`.

    `settings` are a sequence's own settings by method name; what stands in `text` goes before them.

    Raises:
        UnknownName: no such method.  InputError: a setting is unknown or of the wrong type.
    """
    name, _, tail = text.partition(":")
    module: Method = lookup.load(lookup.choose("method", name, METHODS))
    given: dict[str, Any] = dict((settings or {}).get(name, {}))
    for pair in filter(None, tail.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(
                f"setting '{pair}' has no value.", where=f"method '{text}'", mend="Write key=value."
            )
        given[key.strip()] = value.strip()
    return module, spec.parse(module.Config, given, where=f"method '{text}'")


def describe(text: str, settings: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """What a method is, as a table shows it: its settings, and whether it is told the task at inference."""
    module, config = parse(text, settings)
    return {"method": text, "told": module.told(config), "settings": config.model_dump()}
