"""Prevents that an extended model is saved as if it were a base, or pickled."""

from __future__ import annotations

import copyreg
from typing import Any, NoReturn

from torch import nn

from moextend.errors import InputError


class Unpicklable(type):
    """Type of the classes of extended modules, which pickle would not find when it reads the file.

    A copy (deepcopy) does not ask for the class, and works.
    """


def _refuse_pickle(kind: Unpicklable) -> NoReturn:
    raise InputError(
        "an extended model cannot be pickled.",
        where="torch.save",
        hint="Save the model with moextend.save_model, each extension with moextend.save_extension, or the tensors "
        "alone: torch.save(model.state_dict(), ...).",
    )


copyreg.pickle(Unpicklable, _refuse_pickle)


def forbid_saving(model: nn.Module) -> None:
    """Makes `save_pretrained` of `model` and its modules raise InputError.

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
        hint="Save it with moextend.save_model, or each extension with moextend.save_extension; to save the base, "
        "moextend.unload them first.",
    )
