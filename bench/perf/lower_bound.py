"""The lower bound of a training step: operations that no implementation can leave out.

A multiply-add is two operations; only matrix products and attention count. A product costs its forward operations once
more for the gradient of what goes in, where something below it learns, and once more for the gradient of its weights,
where they learn. Attention is causal: half of its square, and 2.5 times its forward operations in the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

ATTENTION_BACKWARD = 2.5


@dataclass(frozen=True)
class Layer:
    """What the tokens of a batch use in one decoder layer."""

    old: int
    """Pairs of a token and an expert of the base."""
    new: int = 0
    """Pairs of a token and a new expert."""
    rows: int = 0
    """New router rows."""
    width: float = 1.0
    """Width of a new expert in that of an old one."""


@dataclass(frozen=True)
class Model:
    """Forward operations of the parts of a Mixtral-like model for one batch; the numbers are from its config."""

    hidden: int
    inner: int
    """Width of an expert."""
    queries: int
    """Width of all queries together, and `keys` of all keys."""
    keys: int
    experts: int
    vocabulary: int
    tokens: int
    length: int
    """Tokens a row."""
    labelled: int
    """Positions that the head is applied to."""
    layers: Sequence[Layer] = field(default_factory=list)

    @classmethod
    def of(cls, config: Any, *, tokens: int, length: int, labelled: int, layers: Sequence[Layer]) -> Model:
        """From the config of a Mixtral."""
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            hidden=config.hidden_size,
            inner=config.intermediate_size,
            queries=config.num_attention_heads * width,
            keys=config.num_key_value_heads * width,
            experts=config.num_local_experts,
            vocabulary=config.vocab_size,
            tokens=tokens,
            length=length,
            labelled=labelled,
            layers=layers,
        )

    @property
    def head(self) -> int:
        """The LM head."""
        return 2 * self.labelled * self.hidden * self.vocabulary

    @property
    def qkv(self) -> int:
        """Queries, keys and values."""
        return 2 * self.tokens * self.hidden * (self.queries + 2 * self.keys)

    @property
    def out(self) -> int:
        """The attention's last projection."""
        return 2 * self.tokens * self.queries * self.hidden

    @property
    def scores(self) -> int:
        """Causal attention between projections."""
        return 2 * self.tokens * (self.length + 1) * self.queries

    @property
    def router(self) -> int:
        """The base's router."""
        return 2 * self.tokens * self.hidden * self.experts

    def expert(self, pairs: int) -> int:
        """Experts, for pairs of a token and an expert."""
        return 6 * pairs * self.hidden * self.inner

    def fresh(self, layer: Layer) -> int:
        """New experts."""
        return round(layer.width * self.expert(layer.new))

    def rows(self, layer: Layer) -> int:
        """New router rows."""
        return 2 * self.tokens * self.hidden * layer.rows

    def forward(self, first: int = 0) -> int:
        """A forward pass that begins at layer `first`."""
        each = (self.projections + self.scores + self.mixture(layer) for layer in self.layers[first:])
        return sum(each) + self.head

    @property
    def projections(self) -> int:
        """All projections of the attention."""
        return self.qkv + self.out

    def mixture(self, layer: Layer) -> int:
        """Router and experts."""
        return self.router + self.rows(layer) + self.expert(layer.old) + self.fresh(layer)

    def inputs(self, layer: Layer) -> int:
        """Gradients of what goes into all products of a layer."""
        return self.projections + int(ATTENTION_BACKWARD * self.scores) + self.mixture(layer)


def full(model: Model) -> int:
    """A step in which every weight learns."""
    weights = sum(model.projections + model.mixture(layer) for layer in model.layers) + model.head
    inputs = sum(model.inputs(layer) for layer in model.layers) + model.head
    return model.forward() + inputs + weights


def lora(model: Model, rank: int, *, experts: bool) -> int:
    """A step in which LoRA on all attention projections learns, and on the experts' products too.

    Low-rank products are applied to the tokens. Below the first layer's projections nothing learns.
    """
    narrow = 2 * rank * model.tokens * (4 * model.hidden + 2 * model.queries + 2 * model.keys)
    inputs, products = model.head - model.qkv, 0
    for layer in model.layers:
        inputs += model.inputs(layer)
        products += narrow
        if experts:
            products += 2 * rank * layer.old * (2 * model.hidden + 3 * model.inner)
    return model.forward() + inputs + 3 * products


def extension(model: Model, first: int, *, cached: bool) -> int:
    """A step in which the new parts of layers `first` and above learn; `cached`: what enters `first` is known.

    In layer `first` nothing below the new parts learns, so that gradients go through their last product alone.
    """
    inputs = model.head + sum(model.inputs(layer) for layer in model.layers[first + 1 :])
    inputs += model.fresh(model.layers[first]) // 3
    weights = sum(model.rows(layer) + model.fresh(layer) for layer in model.layers[first:])
    return model.forward(first if cached else 0) + inputs + weights
