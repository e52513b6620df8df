"""Strengths of extensions, 0..1: how much of an extension computes.

Definition. Let y(S) be the output of a block's experts with the extensions S active, and s the strengths. The output is
the mean of y(S_u) over u in (0, 1], where S_u are the extensions with a strength of at least u. So

- one extension: ``y = (1 - s) y() + s y({e})``, a straight line from the base to the extension;
- strengths of 0 and 1 only: the output with exactly those of strength 1;
- the output of a layer is continuous and piecewise linear in the strengths, for a given input.

In exact routing, where extensions add up, this scales the output of every new expert. In slot and paper routing the
block's experts are weighted for each S_u, and the weights are added (at most one S_u more than different strengths).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moextend.errors import InputError


def checked(strengths: Mapping[str, Any]) -> dict[str, float]:
    """The strengths as numbers; InputError for one that is no number from 0 to 1."""
    for name, strength in strengths.items():
        is_number = isinstance(strength, int | float) and not isinstance(strength, bool)
        if not is_number or not 0 <= strength <= 1:
            raise InputError(
                f"{strength!r} is not a strength.",
                where=f"extension '{name}'",
                hint="Give a number from 0 (the base) to 1 (the extension as it was made).",
            )
    return {name: float(strength) for name, strength in strengths.items()}


def levels(strengths: Mapping[str, float]) -> list[tuple[float, list[str]]]:
    """(share, extensions) for every set S_u, the largest set first; the shares sum to one.

    `strengths` are above 0. The last set is empty unless an extension has strength 1.
    """
    found: list[tuple[float, list[str]]] = []  # no call of a type: torch.compile does not trace it
    below = 0.0
    for level in sorted(set(strengths.values())):
        found.append((level - below, [name for name, own in strengths.items() if own >= level]))
        below = level
    return [*found, (1 - below, [])] if below < 1 else found


def named(digest: str, strength: float) -> str:
    """Fingerprint of weights at a strength; at full strength that of the weights."""
    return digest if strength == 1 else f"{digest}@{strength!r}"


def below_one(strengths: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """Those of the extensions `names` with a strength below 1."""
    return {name: strengths[name] for name in names if strengths.get(name, 1.0) < 1}


def check_full(strengths: Mapping[str, float], active: Sequence[str]) -> None:
    """Raises InputError if an active extension has a strength below 1: nothing is trained on such a model."""
    for name, strength in below_one(strengths, active).items():
        raise InputError(
            f"extension '{name}' has the strength {strength:g}, and a new extension would be trained with "
            "that strength.",
            hint="Activate it with full strength, or not at all: moextend.activate(model, [...]).",
        )


def too_strong(name: str, strength: float, other: str, weaker: float) -> InputError:
    """The error of an extension that is stronger than a co-active one."""
    return InputError(
        f"extension '{name}' was made with '{other}' active, which has the strength {weaker:g}.",
        where=f"extension '{name}' with strength {strength:g}",
        hint=f"Give '{name}' at most this strength.",
    )


def lacking(name: str, missing: Sequence[str], together: Sequence[str], known: Sequence[str]) -> InputError:
    """The error of an extension without its co-active ones: `together` are all that it needs, and itself."""
    gone = [other for other in missing if other not in known]
    first = f"Load {', '.join(gone)} before '{name}', and activate" if gone else "Activate"
    return InputError(
        f"extension '{name}' was made with {', '.join(repr(other) for other in missing)} active "
        f"and needs {'it' if len(missing) == 1 else 'them'}.",
        hint=f"{first} them together: {', '.join(together)}.",
    )
