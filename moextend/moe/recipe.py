"""The recipe of an extension: the settings of the method."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from moextend.errors import InputError
from moextend.util import spec
from moextend.util.lookup import MOST_STEPS
from moextend.util.search_space import LogRange
from moextend.util.spec import Spec

Mode = Literal["exact", "paper", "slot"]
"""Routing mode (moextend/moe/routing.py)."""
Scope = Literal["own", "auto", "all"]
LayerChoice = Literal["probe", "all", "first", "last", "random"]
WORDS = ("all", "none", "auto")
"""Keywords of `moextend.activate`, which cannot be names of extensions."""
MOST_EXPERTS = 1024
"""Most new experts per layer."""
MOST_KEPT = 10**7


def _places(layers: Any) -> Any:
    """Indices of one number, or of a text such as 0 or 0+3; a keyword, or anything but a text, as it is.

    A text has one form, because the name of a run holds it.
    """
    if type(layers) is int:
        return [layers]
    if not isinstance(layers, str) or layers in get_args(LayerChoice):
        return layers
    number = r"(?:0|[1-9]\d*)"
    known = re.fullmatch(rf"{number}(?:\+{number})*", layers)
    found = [int(layer) for layer in layers.split("+")] if known else []
    if not found or found != sorted(set(found)):
        raise ValueError(
            f"name {', '.join(get_args(LayerChoice))}, or indices of MoE layers, lowest first, such as 0 or 0+3"
        )
    return found


def _each_once(layers: Any) -> Any:
    """Raises ValueError for indices of which one occurs twice, or for none."""
    if isinstance(layers, list) and (not layers or len({*layers}) < len(layers)):
        raise ValueError("name one layer or more, each once")
    return layers


Layers = Annotated[
    LayerChoice | list[Annotated[int, Field(ge=0)]],
    BeforeValidator(_places),
    AfterValidator(_each_once),
]
"""probe, all, first, last or random; or indices of MoE layers, as text 0 or 0+3."""


class Recipe(Spec):
    """Settings of the method (docs/method.md), without data and training settings."""

    model_config = ConfigDict(title="recipe")

    routing: Mode = "exact"
    scope: Scope = "auto"
    """own: made alone on the base, for inputs that are known to be its own. auto: the same, and task
    statistics of the inputs are kept, so that the task can be inferred. all: made with the active extensions, for
    every input."""
    layers: Layers = "probe"
    """How to choose the MoE layers that get new experts, or their indices, lowest 0 (as text: 0+3)."""
    share: float = Field(default=0.5, gt=0, le=1)
    """Share of the MoE layers that get new experts (the paper's p)."""
    experts: int = Field(default=1, ge=1, le=MOST_EXPERTS)
    """New experts per layer."""
    width: float = Field(default=0.25, gt=0, le=1)
    """Share of the parent's inner neurons in a new expert; paper and slot routing copy all of them (1)."""
    parent: Literal["selection", "random"] = "selection"
    """selection: the most chosen experts (Eq. 9). random: drawn by the seed."""
    calibration: bool = True
    """Calibrations of the chosen weights; paper routing only."""
    probe_steps: int = Field(default=30, ge=1, le=MOST_STEPS)
    """Steps of router tuning for layers=probe."""
    retention: Literal["none", "memory", "output", "latent"] = "output"
    """With scope all: memory and output keep router inputs of the training data. memory: the gates of later experts
    learn to close on them; not in paper routing. output: what later experts add there is penalised; exact routing
    only. latent: keeps hidden states of whole inputs, and penalises what later experts add in passes from them; exact
    routing only. All are of held-out data, which the training does not use."""
    memory_tokens: int = Field(default=4000, ge=1, le=MOST_KEPT)
    """Number of router inputs kept per layer and extension. The layers are those with new experts, or all with
    layers=probe and random, which differ from extension to extension. With retention=latent: tokens of the inputs
    that are kept, in all."""
    memory_sample: int = Field(default=1024, ge=1, le=MOST_KEPT)
    """Number of them that every step samples; with retention=latent whole inputs with about so many tokens."""
    gate_rate: Annotated[float, LogRange(1, 100)] = Field(default=10.0, gt=0)
    """Factor on the learning rate of router rows and biases if there is a router-input memory: gates start open and
    must close."""
    margin: float = Field(default=0.2, ge=0)
    """Margin of the loss on gates (retention=memory), in logits."""
    memory_weight: Annotated[float, LogRange(1, 100)] = Field(default=10.0, ge=0)
    """Weight of the retention loss, a mean over layers; with retention=latent a sum."""

    @model_validator(mode="before")
    @classmethod
    def _by_routing(cls, given: Any) -> Any:
        """Defaults of the other routing modes."""
        routing = given.get("routing") if isinstance(given, dict) else None
        own: dict[str, Any] = {}
        if routing in ("paper", "slot"):
            own = {"width": 1.0, "retention": "none" if routing == "paper" else "memory"}
        return own | given if own else given

    @model_validator(mode="after")
    def _check_routing(self) -> Self:
        if self.routing != "exact" and self.width < 1:
            raise ValueError(f"routing={self.routing} starts from full copies: width must be 1")
        other = {"exact": "output", "slot": "memory", "paper": "none"}[self.routing]
        if self.routing != "exact" and self.retention not in (other, "none"):
            raise ValueError(
                f"routing={self.routing} cannot use retention={self.retention}: use retention={other}"
            )
        return self

    @property
    def same_layers(self) -> bool:
        """Whether every extension by this recipe has its new experts in the same layers."""
        return self.layers not in ("probe", "random")

    @property
    def keeps_memory(self) -> bool:
        """Whether router inputs or latents are kept, and a retention loss uses the earlier ones."""
        return self.scope == "all" and self.retention != "none"


def count_layers(layers: LayerChoice | list[int], share: float, total: int) -> int:
    """Number of layers that get new experts in a model with `total` MoE layers."""
    if isinstance(layers, list):
        return len(layers)
    return total if layers == "all" else max(1, math.floor(share * total + 1e-9))  # 0.58 x 50 is 28.999...


def fixed_layers(layers: LayerChoice | list[int], share: float, total: int) -> list[int] | None:
    """The layers that get new experts in a model with `total` MoE layers; None if a probe or a draw chooses them."""
    if isinstance(layers, list):
        return sorted(layers)
    count = count_layers(layers, share, total)
    known = {"all": range(total), "first": range(count), "last": range(total - count, total)}
    return list(known[layers]) if layers in known else None


def recipe(
    where: str, *, layers: str | int | Sequence[int] = "probe", width: float | None = None, **given: Any
) -> Recipe:
    """Recipe from the arguments of a call; width None: the default of the routing mode."""
    layers = layers if isinstance(layers, str | int) else [int(layer) for layer in layers]
    own = {} if width is None else {"width": width}
    return spec.parse(Recipe, {"layers": layers, **own, **given}, where=where)


def check_name(name: object) -> None:
    """Raises InputError if `name` cannot be the name of an extension."""
    if not isinstance(name, str) or name in WORDS or not re.fullmatch(r"[\w-]{1,100}", name):
        raise InputError(
            "cannot be the name of an extension.",
            where=f"extension '{name}'",
            hint=f"Use at most 100 letters, digits, '-' and '_', and none of: {', '.join(WORDS)}.",
        )
