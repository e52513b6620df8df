"""The class of all commands, and dataclasses as groups of options."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from inspect import Parameter, Signature, signature
from typing import Any, get_type_hints

from typer.core import TyperCommand

from moextend.errors import InputError, short

TEXTS = ("prompt", "template")
"""Parameters with a text; all others are numbers, names, paths or lists of them."""
LONGEST = 255
"""Bytes of the name of a file."""


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command for typer: in the place of a parameter that is a dataclass it takes the fields of that."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    flat: list[Parameter] = []
    for name, parameter in signature(command).parameters.items():
        if kind := groups.get(name):
            own = get_type_hints(kind, include_extras=True)
            flat += [
                Parameter(
                    each.name, Parameter.KEYWORD_ONLY, annotation=own[each.name],
                    default=Parameter.empty if each.default is MISSING else each.default,
                )
                for each in fields(kind)
            ]  # fmt: skip
        else:
            flat.append(parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[name]))

    def call(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{each.name: values.pop(each.name) for each in fields(kind)})
        command(**values)

    call.__doc__, call.__signature__ = command.__doc__, Signature(flat)  # type: ignore[attr-defined]
    return call


class Command(TyperCommand):
    """Class of all commands: refuses empty values (in a shell usually an unset variable), and options given twice."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the arguments; InputError for an empty or too long value, or an option that is given twice."""
        values, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in order:
            option = parameter.param_type_name == "option"
            where = (
                max(parameter.opts, key=len)
                if option
                else str(parameter.metavar or parameter.name.upper()).rstrip(".")
            )
            given = values.get(parameter.name)
            for value in given if isinstance(given, list | tuple) else (given,):
                if isinstance(value, str):
                    _check(value, where, is_text=parameter.name in TEXTS)
            if option and not getattr(parameter, "multiple", False) and order.count(parameter) > 1:
                raise InputError("is given twice.", where=where, hint="Give it once.")
        return super().parse_args(ctx, args)


def _check(value: str, where: str, *, is_text: bool) -> None:
    """Raises InputError for an empty value, and for a name that no file can have."""
    if not value.strip():
        raise InputError("the value is empty.", where=where, hint="Give a value, or leave it out.")
    long = [part for part in re.split("[/,]", value) if len(part.encode()) > LONGEST and not is_text]
    if long:
        what = f"'{short(long[0], 40)}' has {len(long[0]):,} characters."
        raise InputError(what, where=where, hint=f"A name has at most {LONGEST}.")
