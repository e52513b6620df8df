"""Methods made comparable: the LoRA rank, or the number and width of new experts, that train as much as a reference.

Nothing is loaded: the parameters are counted on a model that has shapes and no memory. Steps, batches and the order of
the data are the same for all methods in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from moextend.bench import methods
from moextend.bench.sequence import Base
from moextend.errors import InputError
from moextend.spec import Spec

By = Literal["params", "flops"]
NEAR = 0.1
"""Parts by which two sizes may differ and still count as matched."""

Settings = Mapping[str, Mapping[str, Any]]
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

    method: str
    """With the setting that was chosen."""
    told: str
    """What was chosen and how near it comes, in words."""


def match(texts: Sequence[str], how: str, settings: Settings, make: Callable[[], Any]) -> list[Matched]:
    """Every method with the rank (or the number and width of new experts) that comes nearest to the reference.

    Args:
        texts: method specs; one that sets its rank, or number or width of experts, itself keeps it.
        how: `params` or `flops`, with `=METHOD` to name the reference; else it is the first moextend of `texts`.
        settings: the sequence's settings by method.
        make: gives a fresh language model without memory (see `skeleton`).

    Raises:
        InputError: there is no such quantity, no reference, or the reference trains nothing.
    """
    by, _, named = how.partition("=")
    if by not in get_args(By):
        raise InputError(
            f"cannot match '{by}'.",
            where="--match",
            mend="Match params, flops or steps; params=METHOD names one.",
        )
    reference = named or next((text for text in texts if text.partition(":")[0] == "moextend"), None)
    if reference is None:
        raise InputError(
            "there is no moextend among the methods to match the others with.",
            where="--match",
            mend=f"Name the reference: --match {by}=lora:rank=16.",
        )
    methods.parse(reference, settings, where="--match")
    wanted = _size(reference, by, settings, make)
    if not wanted:
        raise InputError(f"'{reference}' trains nothing.", where="--match", mend="Name another reference.")
    told = Matched(reference, f"{reference}: {wanted:,} {WORDS[by]}, which the others are matched with")
    return [told if text == reference else _matched(text, by, wanted, settings, make) for text in texts]


def _matched(text: str, by: str, wanted: int, settings: Settings, make: Callable[[], Any]) -> Matched:
    _, config = methods.parse(text, settings)
    knobs = _knobs(text, config)
    told = next((knob for knob in knobs if _sets(text, knob)), None)
    if told or not knobs:
        why = f"its {told} is set" if told else "it has no rank"
        return Matched(text, f"{text}: left as it is, {why}; {_compared(text, by, wanted, settings, make)}")
    chosen = text
    if "width" in knobs:
        half, whole = (_size(_with(text, "width", value), by, settings, make) for value in (0.5, 1))
        share = min(1.0, max(0.01, round(1 - (whole - wanted) / (whole - half) / 2, 2)))
        chosen = text if share == config.width else _with(text, "width", f"{share:g}")  # type: ignore[attr-defined]
    one, two = (_size(_with(chosen, knobs[0], value), by, settings, make) for value in (1, 2))
    value = nearest(one, two, wanted)
    chosen = chosen if value == getattr(config, knobs[0]) else _with(chosen, knobs[0], value)
    return Matched(chosen, f"{chosen}: {_compared(chosen, by, wanted, settings, make)}")


def _compared(text: str, by: str, wanted: int, settings: Settings, make: Callable[[], Any]) -> str:
    found = _size(text, by, settings, make)
    mark = "" if abs(found - wanted) <= NEAR * wanted else f", NOT matched within {NEAR:.0%}"
    return f"{found:,} {WORDS[by]}{mark}"


def _knobs(text: str, config: Spec) -> list[str]:
    """The settings that say how much a method trains; the first one is a whole number."""
    if getattr(config, "over", "lora") != "lora":
        return []
    if text.partition(":")[0] == "moextend":
        return ["experts", "width"] if config.routing == "exact" else ["experts"]  # type: ignore[attr-defined]
    return ["rank"] if hasattr(config, "rank") else []


def _sets(text: str, knob: str) -> bool:
    return any(pair.partition("=")[0].strip() == knob for pair in text.partition(":")[2].split(","))


def _with(text: str, knob: str, value: object) -> str:
    return f"{text}{',' if ':' in text else ':'}{knob}={value}"


def _size(text: str, by: str, settings: Settings, make: Callable[[], Any]) -> int:
    found = size(text, settings, make())
    return found.params if by == "params" else found.flops


def size(text: str, settings: Settings, lm: Any) -> Size:
    """How much a method trains in its first stage; `lm`, without memory or with, is changed by it."""
    from moextend.bench.methods import adapters, weights

    module, config = methods.parse(text, settings)
    model: Any = _Bare(lm)
    met = _met(lm, config)  # before anything stands in the way of finding the experts
    trained: Mapping[str, Any] = {}
    if text.partition(":")[0] == "moextend":
        trained = _extension(lm, config)
    elif isinstance(config, weights.Trained):
        module.start(model, config, 0)
        trained = weights.parameters(model, config)
    elif isinstance(config, adapters.Adapter):
        adapters.inject(model, config, 0)
        trained = adapters.parameters(model, adapters.ONE)
    return Size(
        sum(parameter.numel() for parameter in trained.values()),
        round(sum(2 * parameter.numel() * met(name) for name, parameter in trained.items())),
    )


def nearest(one: int, two: int, wanted: int) -> int:
    """The n >= 1 for which one + (n - 1)(two - one) is nearest to `wanted`."""
    return max(1, 1 + round((wanted - one) / (two - one))) if two > one else 1


def skeleton(base: Base, workspace: Path) -> Any:
    """The base's language model, upcycled if it is to be, with shapes and no memory."""
    from moextend import loading, upcycling

    lm = loading.skeleton(base.found(workspace), revision=base.revision)
    return upcycling.skeleton(lm, base.upcycle.experts, base.upcycle.top_k) if base.upcycle else lm


def _extension(lm: Any, config: Any) -> Mapping[str, Any]:
    """The parameters of a first extension; which layers get it does not change how many there are."""
    import moextend

    layers = len(moextend.moe.find_sites(lm))
    chosen = range(layers if config.layers == "all" else max(1, int(config.share * layers)))
    plan = {layer: [0] * config.experts for layer in chosen}
    moextend.attach(lm, "first", plan, mode=config.routing, calibrate=config.calibration, width=config.width)
    return {f"lm.{name}": parameter for name, parameter in moextend.new_parameters(lm, "first").items()}


def _met(lm: Any, config: Any) -> Callable[[str], float]:
    """The share of a parameter, by its name, that one token meets."""
    from moextend.heads import text_config
    from moextend.moe import count_experts, find_sites

    shares, new = {}, config.experts if getattr(config, "routing", "exact") != "exact" else 1
    for site in find_sites(lm):
        chosen = getattr(site.router, "top_k", None) or text_config(lm.config).num_experts_per_tok
        shares[f"lm.{site.name}.experts.ext_groups."] = min(1.0, chosen / new)
        shares[f"lm.{site.name}.experts."] = chosen / count_experts(site)
    return lambda name: next((share for part, share in shares.items() if name.startswith(part)), 1.0)


class _Bare:
    """As much of a MultimodalLM as a method asks for when it puts its parameters in."""

    def __init__(self, lm: Any) -> None:
        self.lm, self.device = lm, lm.device

    def named_parameters(self) -> Iterator[tuple[str, Any]]:
        return ((f"lm.{name}", parameter) for name, parameter in self.lm.named_parameters())

    def learn_only(self, names: Sequence[str]) -> None:
        """Nothing is trained."""
