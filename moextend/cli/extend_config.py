"""What `moextend extend` is asked for: its options, and the file of `--config`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import typer
from pydantic import Field

from moextend.errors import InputError
from moextend.moe.recipe import Recipe
from moextend.training.settings import Settings, default_settings
from moextend.util import spec
from moextend.util.spec import Spec

RECIPE = ("layers", "share", "experts", "width", "routing", "scope", "retention")
"""Options that are fields of the recipe."""
SETTINGS = ("steps", "batch_size", "learning_rate", "seed")
"""Options that are settings of the training."""
ELSEWHERE = ("base", "data", "name", "out", "config", "device", "as_json", *RECIPE, *SETTINGS)
"""Parameters that a card holds in other places, or that change nothing in the result."""


class Config(Spec):
    """What the file holds."""

    settings: dict[str, Any] = Field(default_factory=dict)
    """Of the training; each may be left out."""
    recipe: dict[str, Any] = Field(default_factory=dict)
    """Fields of moextend.Recipe."""


def asked(
    values: Mapping[str, Any], named: Collection[str], config: Path | None, name: str
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe, and the settings by name: options that are `named` go before the file, others behind it.

    Args:
        values: all options.
        named: those that stand on the command line.
        name: of the extension.

    Raises:
        InputError: the file cannot be read, or there is no such recipe.
    """
    file, where = Config(), f"extension '{name}'"
    if config is not None:
        file, where = spec.parse(Config, spec.read_yaml(config), where=str(config)), f"{config}: recipe"
    known = {**dict(default_settings(1)), **file.settings}
    checked = spec.parse(Settings, known, where=f"{config}: settings")
    settings = {key: values[key] for key in SETTINGS}
    settings |= {key: getattr(checked, key) for key in file.settings if key not in named}
    fields = {key: values[key] for key in RECIPE if values[key] is not None}
    fields |= {key: value for key, value in file.recipe.items() if key not in named}
    if "retention" in named and fields["scope"] != "all":
        what = f"requires --scope all, and the scope is {fields['scope']}."
        raise InputError(what, where="--retention", hint="Leave it out, or set --scope all.")
    if isinstance(fields["layers"], str):
        fields["layers"] = fields["layers"].replace(",", "+")
    return spec.parse(Recipe, fields, where=where), settings


def other_options(context: typer.Context, named: Collection[str]) -> dict[str, list[str]]:
    """Option -> its values, for the options among `named` that are neither recipe nor settings: --template, -e, ..."""
    found = dict[str, list[str]]()
    for parameter in context.command.params:
        if parameter.name in named and parameter.name not in ELSEWHERE:
            value = context.params[parameter.name]
            values = value if isinstance(value, list | tuple) else [value]
            found[max(parameter.opts, key=len)] = [str(each) for each in values]
    return found
