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


def parse(
    text: str, settings: Mapping[str, Mapping[str, Any]] | None = None, *, where: str | None = None
) -> tuple[Method, Spec]:
    """The method and config behind `name` or `name:key=value,...`.

    `settings` are a sequence's own settings by method name; what stands in `text` goes before them. `where` is the
    option or key that holds `text`.

    Raises:
        UnknownName: no such method.  InputError: a setting is unknown or of the wrong type.
    """
    name, colon, tail = text.partition(":")
    module: Method = lookup.load(lookup.choose("method", name, METHODS, where=where))
    place = f"{where}: method '{text}'" if where else f"method '{text}'"
    given = _pairs(tail, place) if colon else {}
    return module, spec.parse(module.Config, {**(settings or {}).get(name, {}), **given}, where=place)


def _pairs(tail: str, where: str) -> dict[str, str]:
    """The settings in "key=value,..."."""
    found: dict[str, str] = {}
    for pair in tail.split(","):
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not value:
            raise InputError(
                f"setting '{pair}' has no value.", where=where, mend="Write NAME:key=value,key=value."
            )
        if key in found:
            raise InputError(f"setting '{key}' is given twice.", where=where, mend="Give it once.")
        found[key] = value
    return found


def describe(
    text: str, settings: Mapping[str, Mapping[str, Any]] | None = None, *, where: str | None = None
) -> dict[str, Any]:
    """What a method is, as a table shows it: its settings, and whether it is told the task at inference."""
    module, config = parse(text, settings, where=where)
    return {"method": text, "told": module.told(config), "settings": config.model_dump()}
