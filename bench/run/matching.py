"""Matches methods: chooses settings (`Method.knobs`) with which each method trains as much as a reference.

No weights are loaded: parameters are counted on a model on device meta. Steps, batches and the data order are always
the same for all methods.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from moextend.bench import methods
from moextend.bench.methods import Knob, MethodSpec, Shapes
from moextend.bench.sequence import Base
from moextend.errors import InputError

By = Literal["params", "flops"]
NEAR = 0.1
"""Maximum relative difference of two matched sizes."""

WORDS = {"params": "trained parameters", "flops": "operations per token through what is trained"}


@dataclass(frozen=True)
class Size:
    """How much the first stage of a method trains."""

    params: int
    flops: int
    """Operations of a forward pass per token in trained weights: two for each parameter that the token uses.

    A token uses top-k of the base's experts, every new one in exact routing and at most top-k in the other modes.
    """


@dataclass(frozen=True)
class Matched:
    """A method after matching."""

    method: MethodSpec
    """The method with the chosen setting."""
    note: str
    """The chosen setting and its distance from the reference, in words."""


def match(
    specs: Sequence[MethodSpec],
    how: str,
    make: Callable[[], Any],
    read: Callable[[str], MethodSpec] = methods.parse,
) -> list[Matched]:
    """Every method with the setting that is nearest to the reference.

    Args:
        specs: the methods; one whose text sets a knob itself keeps it.
        how: `params` or `flops`, with `=METHOD` for the reference; else it is the first of `specs` with that role.
        make: returns a new language model on device meta (see `skeleton`).
        read: parses the METHOD of `how`.

    Raises:
        InputError: the quantity is unknown, there is no reference, or the reference trains nothing.
    """
    by, equals, named = how.partition("=")
    if equals and not named.strip():
        raise InputError("names no method.", where=f"--match {how}", hint=f"Write {by}, or {by}=METHOD.")
    if by not in get_args(By):
        raise InputError(
            f"cannot match '{by}'.",
            where="--match",
            hint="Match params, flops or steps; params=METHOD names the reference method.",
        )
    reference = read(named) if named else next((each for each in specs if each.role == "reference"), None)
    if reference is None:
        raise InputError(
            f"there is no {methods.named('reference')} among the methods to match the others with.",
            where="--match",
            hint=f"Name the reference: --match {by}=METHOD or {by}=METHOD:KEY=VALUE.",
        )
    text, wanted = reference.text, _size(reference, by, make)
    if not wanted:
        raise InputError(f"'{text}' trains nothing.", where="--match", hint="Name another reference.")
    note = Matched(reference, f"{text}: {wanted:,} {WORDS[by]}, which the others are matched to")
    return [note if each.text == text else _matched(each, by, wanted, make) for each in specs]


def _matched(spec: MethodSpec, by: str, wanted: int, make: Callable[[], Any]) -> Matched:
    knobs = spec.make().knobs
    given = next((knob.key for knob in knobs if spec.sets(knob.key)), None)
    if given or not knobs:
        why = f"its {given} is set" if given else "it has no rank"
        return Matched(spec, f"{spec.text}: left as it is, {why}; {_compared(spec, by, wanted, make)}")
    chosen = spec
    for knob in sorted(knobs, key=lambda knob: not knob.fraction):
        chosen = _turned(chosen, knob, by, wanted, make)
    return Matched(chosen, f"{chosen.text}: {_compared(chosen, by, wanted, make)}")


def _turned(spec: MethodSpec, knob: Knob, by: str, wanted: int, make: Callable[[], Any]) -> MethodSpec:
    """The method with the nearest value of one setting."""
    now = getattr(spec.config, knob.key)
    if knob.fraction:
        # Not by a straight line: widths are rounded up to a multiple of some neurons.
        sizes = cache(lambda percent: _size(spec.having(knob.key, percent / 100), by, make))
        if sizes(1) == sizes(100):
            return spec
        below = bisect_right(range(1, 101), wanted, key=sizes)
        above = bisect_right(range(1, 101), sizes(min(100, below + 1)), key=sizes)
        percent = min((max(1, below), above), key=lambda each: abs(sizes(each) - wanted))
        return spec if percent / 100 == now else spec.having(knob.key, f"{percent / 100:g}")
    one, two = (_size(spec.having(knob.key, value), by, make) for value in (1, 2))
    count = nearest(one, two, wanted)
    return spec if count == now else spec.having(knob.key, count)


def _compared(spec: MethodSpec, by: str, wanted: int, make: Callable[[], Any]) -> str:
    found = _size(spec, by, make)
    mark = "" if abs(found - wanted) <= NEAR * wanted else f", NOT matched within {NEAR:.0%}"
    return f"{found:,} {WORDS[by]}{mark}"


def _size(spec: MethodSpec, by: str, make: Callable[[], Any]) -> int:
    found = size(spec, make())
    return found.params if by == "params" else found.flops


def size(spec: MethodSpec, lm: Any) -> Size:
    """Size of a method's training in its first stage; changes `lm`, which may be on device meta."""
    from moextend.training.estimate import Estimator, numel_of

    method, base = spec.make(), Estimator(lm)  # before anything stands in the way of finding the experts
    trained = method.trainable(Shapes(lm))
    shares = {name: base.share(name.removeprefix("lm."), method.competing) for name in trained}
    return Size(
        numel_of(trained.values()),
        round(sum(2 * parameter.numel() * shares[name] for name, parameter in trained.items())),
    )


def nearest(one: int, two: int, wanted: int) -> int:
    """The n >= 1 with one + (n - 1)(two - one) nearest to `wanted`."""
    return max(1, 1 + round((wanted - one) / (two - one))) if two > one else 1


def skeleton(base: Base, workspace: Path) -> Any:
    """The base's language model on device meta, upcycled if the sequence says so."""
    from moextend.model import loading, upcycling

    lm = loading.skeleton(base.found(workspace), revision=base.revision)
    return upcycling.skeleton(lm, base.upcycle.experts, base.upcycle.top_k) if base.upcycle else lm


def skeletons(base: Base, workspace: Path) -> Callable[[], Any]:
    """A function that returns another such model at each call; the base's files are read once, at the first."""
    first = cache(lambda: skeleton(base, workspace))
    return lambda: deepcopy(first())
