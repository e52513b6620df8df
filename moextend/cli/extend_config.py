"""What `moextend extend` is asked for: its options, and the file of `--config`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import typer
from pydantic import Field

from moextend.cli import options
from moextend.errors import InputError
from moextend.moe.recipe import Recipe, recipe
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

    settings: Settings
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
    file_settings, file_recipe = ({}, {}) if config is None else read_config(config)
    settings = {key: values[key] for key in SETTINGS} | _but(file_settings, named)
    fields = {key: values[key] for key in RECIPE if values[key] is not None} | _but(file_recipe, named)
    if "retention" in named and fields["scope"] != "all":
        raise InputError(
            f"requires --scope all, and the scope is {fields['scope']}.",
            where="--retention",
            hint="Leave it out, or set --scope all.",
        )
    return _recipe(fields, name, config), settings


def other_options(context: typer.Context, named: Collection[str]) -> dict[str, list[str]]:
    """Option -> its values, for the options among `named` that are neither recipe nor settings: --template, -e, ..."""
    found = dict[str, list[str]]()
    for parameter in context.command.params:
        if parameter.name in named and parameter.name not in ELSEWHERE:
            value = context.params[parameter.name]
            values = value if isinstance(value, list | tuple) else [value]
            found[max(parameter.opts, key=len)] = [str(each) for each in values]
    return found


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(settings, recipe) that the file sets. SpecError if it cannot be read."""
    values = spec.read_yaml(path)
    given = values.get("settings", {}) if isinstance(values, dict) else None
    if isinstance(given, dict):
        values = {**values, "settings": {**dict(default_settings(1)), **given}}
    found = spec.parse(Config, values, where=str(path))
    return {key: getattr(found.settings, key) for key in given or {}}, dict(found.recipe)


def _but(values: dict[str, Any], named: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in named}


def _recipe(fields: dict[str, Any], name: str, config: Path | None) -> Recipe:
    """The recipe; InputError if it is none."""
    layers = fields["layers"]
    if isinstance(layers, str) and layers[:1].isdigit():
        fields["layers"] = options.numbers([layers.replace("+", ",")], "--layers")
    elif isinstance(layers, list) and not all(type(layer) is int for layer in layers):
        raise InputError(
            f"layers is {layers}.", where=f"{config}: recipe", hint="Give places such as [0, 3]."
        )
    return recipe(f"extension '{name}'" if config is None else f"{config}: recipe", **fields)
