"""Prevents that an extended model is saved as if it were a base."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import nn

from moextend.errors import InputError


def forbid_saving(model: nn.Module) -> None:
    """Makes `save_pretrained` of the model and of its modules raise InputError.

    It would write the new experts under names that `from_pretrained` ignores, and only the base would be loaded.
    """
    for module in model.modules():
        if hasattr(type(module), "save_pretrained"):
            module.__dict__["save_pretrained"] = _refuse


def allow_saving(model: nn.Module) -> None:
    """Reverts `forbid_saving`."""
    for module in model.modules():
        if module.__dict__.get("save_pretrained") is _refuse:
            del module.__dict__["save_pretrained"]


def _refuse(*args: Any, **kwargs: Any) -> NoReturn:
    raise InputError(
        "the model is extended: from_pretrained would load its base and leave the new experts out.",
        where="save_pretrained",
        hint="Save each extension with moextend.save_extension; to save the base, moextend.unload them first.",
    )
