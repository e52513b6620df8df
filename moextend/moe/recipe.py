"""How an extension is made: what a user or a sequence may choose."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from moextend.errors import InputError
from moextend.util import spec
from moextend.util.limits import MOST_STEPS
from moextend.util.spec import Spec

Mode = Literal["exact", "paper", "slot"]
"""How tokens reach new experts (moextend/moe/routing.py)."""
WORDS = ("all", "none", "auto")
"""What `moextend.activate` takes besides names; no extension may be called so."""
MOST_EXPERTS = 1024
"""New experts a layer."""
MOST_KEPT = 10**7


class Recipe(Spec):
    """The choices of the method (docs/method.md); what is trained on, and for how long, stands elsewhere."""

    routing: Mode = "exact"
    scope: Literal["own", "auto", "all"] = "own"
    """own: made alone on the base, for inputs that are known to be its own. auto: the same, and task
    statistics of the inputs are kept, so that the task can be inferred. all: made with the active extensions, for
    every input."""
    layers: Literal["probe", "all", "first", "last", "random"] | list[Annotated[int, Field(ge=0)]] = "probe"
    """How the MoE layers that get new experts are chosen, or their places, lowest 0."""
    share: float = Field(0.5, gt=0, le=1)
    """Share of the MoE layers that get new experts (the paper's p)."""
    experts: int = Field(1, ge=1, le=MOST_EXPERTS)
    """New experts a layer."""
    width: float = Field(0.25, gt=0, le=1)
    """Share of the parent's inner neurons that a new expert has; paper and slot routing copy all of them (1)."""
    parent: Literal["selection", "random"] = "selection"
    """selection: copies of the most chosen experts (Eq. 9)."""
    calibration: bool = True
    """paper routing only."""
    probe_steps: int = Field(30, ge=1, le=MOST_STEPS)
    """Steps of router tuning that layers=probe is decided by."""
    retention: Literal["none", "memory"] = "memory"
    """With scope all: memory keeps router inputs of the training data, on which later experts learn not to act."""
    memory_tokens: int = Field(4000, ge=1, le=MOST_KEPT)
    """Number of router inputs kept per layer and extension."""
    memory_sample: int = Field(1024, ge=1, le=MOST_KEPT)
    """Number of them that every step samples."""
    gate_rate: float = Field(10.0, gt=0)
    """Factor on the learning rate of router rows and biases if there is a router-input memory: gates start open and
    must close."""
    margin: float = Field(0.2, ge=0)
    """Margin of the retention loss, in logits."""
    memory_weight: float = Field(10.0, ge=0)
    """Weight of the retention loss."""

    @model_validator(mode="before")
    @classmethod
    def _by_routing(cls, given: Any) -> Any:
        """Defaults of the other routing modes."""
        routing = given.get("routing") if isinstance(given, dict) else None
        own: dict[str, Any] = {"width": 1.0} if routing in ("paper", "slot") else {}
        if routing == "paper":
            own["retention"] = "none"
        return own | given if own else given

    @model_validator(mode="after")
    def _full_copies(self) -> Self:
        if self.routing != "exact" and self.width < 1:
            raise ValueError(f"routing={self.routing} starts from full copies: width must be 1")
        return self

    @property
    def keeps_router_inputs(self) -> bool:
        """Whether new router inputs are kept, and a retention loss uses the earlier ones."""
        return self.scope == "all" and self.retention == "memory"


def recipe(
    where: str, *, layers: str | Sequence[int] = "probe", width: float | None = None, **given: Any
) -> Recipe:
    """The arguments of a call as a recipe; a width of None is the routing's own."""
    layers = layers if isinstance(layers, str) else [int(layer) for layer in layers]
    own = {} if width is None else {"width": width}
    return spec.parse(Recipe, {"layers": layers, **own, **given}, where=where)


def check_name(name: str) -> None:
    """InputError where no extension may be called so."""
    if name in WORDS or not re.fullmatch(r"[\w-]{1,100}", name):
        raise InputError(
            "is no name for an extension.",
            where=f"extension '{name}'",
            hint=f"Use letters, digits, '-' and '_' (100 at the most), and none of: {', '.join(WORDS)}.",
        )
