"""A command that refuses empty values, and options that are given twice where one value counts."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from moextend.errors import InputError


class Command(TyperCommand):
    """The class of all commands here: in the shell an empty value is a variable that is not set, not a wish."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the arguments; InputError for an empty value, or one that a second one would silently replace."""
        values, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in order:
            name = _name(parameter)
            given = values.get(parameter.name)
            for value in given if isinstance(given, list | tuple) else (given,):
                if isinstance(value, str) and not value.strip():
                    raise InputError("the value is empty.", where=name, mend=_hint(parameter))
            once = parameter.param_type_name == "option" and not getattr(parameter, "multiple", False)
            if once and order.count(parameter) > 1:
                raise InputError("is given twice.", where=name, mend="Give it once.")
        return super().parse_args(ctx, args)


def _name(parameter: Any) -> str:
    """As the help writes it: --seed, NAME."""
    if parameter.param_type_name == "option":
        return str(max(parameter.opts, key=len))
    return str(parameter.metavar or parameter.name.upper()).rstrip(".")


def _hint(parameter: Any) -> str:
    return "Give a value." if parameter.required else "Give a value, or leave it out."
