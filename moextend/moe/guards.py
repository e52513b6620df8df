"""Prevents that an extended model is saved as if it were a base, or pickled."""

from __future__ import annotations

import copyreg
from types import MethodType
from typing import Any, NoReturn

from torch import nn

from moextend.errors import InputError
from moextend.util import lookup

WRITER = "moextend.export.saving:save_lm"
"""Function that writes an extended language model; of a layer above this one."""


class Unpicklable(type):
    """Type of the classes of extended modules, which pickle would not find when it reads the file.

    A copy (deepcopy) does not ask for the class, and works.
    """


def _refuse_pickle(kind: Unpicklable) -> NoReturn:
    raise InputError(
        "an extended model cannot be pickled.",
        where="torch.save",
        hint="Save the language model with save_pretrained, each extension with moextend.save_extension, or the "
        "tensors alone: torch.save(model.state_dict(), ...).",
    )


copyreg.pickle(Unpicklable, _refuse_pickle)


def forbid_saving(model: nn.Module) -> None:
    """Makes `save_pretrained` of `model` write a folder with its extensions, and that of its modules raise InputError.

    That of the class would write the new experts under names that `from_pretrained` ignores, and only the base would
    be loaded.
    """
    for module in model.modules():
        if hasattr(type(module), "save_pretrained"):
            module.__dict__["save_pretrained"] = _refuse
    own: Any = model
    if hasattr(type(model), "save_pretrained") and hasattr(model, "can_generate") and own.can_generate():
        model.__dict__["save_pretrained"] = MethodType(_save, model)  # deepcopy binds it to the copy


def allow_saving(model: nn.Module) -> None:
    """Reverts `forbid_saving`."""
    for module in model.modules():
        own = module.__dict__.get("save_pretrained")
        if own is _refuse or getattr(own, "__func__", None) is _save:
            del module.__dict__["save_pretrained"]


def _save(self: nn.Module, save_directory: Any, **options: Any) -> None:
    """Instead of `save_pretrained`: see `moextend.export.saving.save_lm`."""
    lookup.load(WRITER)(self, save_directory, **options)


def _refuse(*args: Any, **kwargs: Any) -> NoReturn:
    raise InputError(
        "the model is extended: from_pretrained would load its base and leave the new experts out.",
        where="save_pretrained",
        hint="Save the whole language model, or each extension with moextend.save_extension; to save the base, "
        "moextend.unload them first.",
    )
