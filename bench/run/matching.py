"""Methods made comparable: the settings (`Method.knobs`) with which each trains as much as a reference.

Nothing is loaded: the parameters are counted on a model that has shapes and no memory. Steps, batches and the order of
the data are the same for all methods in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from moextend.bench import methods
from moextend.bench.methods import Knob, MethodSpec, Shapes
from moextend.bench.sequence import Base
from moextend.errors import InputError

By = Literal["params", "flops"]
NEAR = 0.1
"""Parts by which two sizes may differ and still count as matched."""

WORDS = {"params": "trained parameters", "flops": "operations a token through what is trained"}


@dataclass(frozen=True)
class Size:
    """How much the first stage of a method trains."""

    params: int
    flops: int
    """Operations of a forward pass, a token, through what is trained: two for each parameter that the token meets.

    A token meets top-k of the base's experts, every new one in exact routing and at most top-k in the others.
    """


@dataclass(frozen=True)
class Matched:
    """A method after matching."""

    method: MethodSpec
    """With the setting that was chosen."""
    note: str
    """What was chosen and how near it comes, in words."""


def match(
    specs: Sequence[MethodSpec],
    how: str,
    make: Callable[[], Any],
    read: Callable[[str], MethodSpec] = methods.parse,
) -> list[Matched]:
    """Every method with the value of its knobs that comes nearest to the reference.

    Args:
        specs: the methods; one whose text sets a knob itself keeps it.
        how: `params` or `flops`, with `=METHOD` to name the reference; else it is the first of `specs` with that role.
        make: gives a fresh language model without memory (see `skeleton`).
        read: parses the METHOD of `how`.

    Raises:
        InputError: there is no such quantity, no reference, or the reference trains nothing.
    """
    by, _, named = how.partition("=")
    if by not in get_args(By):
        raise InputError(
            f"cannot match '{by}'.",
            where="--match",
            hint="Match params, flops or steps; params=METHOD names one.",
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
    note = Matched(reference, f"{text}: {wanted:,} {WORDS[by]}, which the others are matched with")
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
    """The method with the value of one knob that comes nearest."""
    now = getattr(spec.config, knob.key)
    if knob.fraction:
        half, full = (_size(spec.having(knob.key, value), by, make) for value in (0.5, 1))
        share = min(1.0, max(0.01, round(1 - (full - wanted) / (full - half) / 2, 2)))
        return spec if share == now else spec.having(knob.key, f"{share:g}")
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
    """How much a method trains in its first stage; `lm`, without memory or with, is changed by it."""
    method = spec.make()
    met = _met(lm, method.competing)  # before anything stands in the way of finding the experts
    trained = method.trainable(Shapes(lm))
    return Size(
        sum(parameter.numel() for parameter in trained.values()),
        round(sum(2 * parameter.numel() * met(name) for name, parameter in trained.items())),
    )


def nearest(one: int, two: int, wanted: int) -> int:
    """The n >= 1 for which one + (n - 1)(two - one) is nearest to `wanted`."""
    return max(1, 1 + round((wanted - one) / (two - one))) if two > one else 1


def skeleton(base: Base, workspace: Path) -> Any:
    """The base's language model, upcycled if it is to be, with shapes and no memory."""
    from moextend.model import loading, upcycling

    lm = loading.skeleton(base.found(workspace), revision=base.revision)
    return upcycling.skeleton(lm, base.upcycle.experts, base.upcycle.top_k) if base.upcycle else lm


def _met(lm: Any, new: int) -> Callable[[str], float]:
    """The share of a parameter, by its name, that one token meets, where `new` experts of a layer compete."""
    from moextend.model.lm_head import text_config
    from moextend.moe.sites import count_experts, find_sites

    shares = {}
    for site in find_sites(lm):
        chosen = getattr(site.router, "top_k", None) or text_config(lm.config).num_experts_per_tok
        shares[f"lm.{site.name}.experts.ext_groups."] = min(1.0, chosen / new)
        shares[f"lm.{site.name}.experts."] = chosen / count_experts(site)
    return lambda name: next((share for part, share in shares.items() if name.startswith(part)), 1.0)
