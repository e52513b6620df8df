"""Lower bound of a training step: operations that every implementation needs.

A multiply-add is two operations; only matrix products and attention count. In the backward pass a product costs its
forward operations once for the gradient of its input, if parameters below it are trained, and once for the gradient of
its weights, if they are trained. Attention is causal: half of its square, and 2.5 times its forward operations in the
backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

ATTENTION_BACKWARD = 2.5


@dataclass(frozen=True)
class Layer:
    """Usage of one decoder layer by the tokens of a batch."""

    old: int
    """Number of pairs of a token and a base expert."""
    new: int = 0
    """Number of pairs of a token and a new expert."""
    rows: int = 0
    """Number of new router rows."""
    width: float = 1.0
    """Width of a new expert as a share of a base expert's."""


@dataclass(frozen=True)
class Model:
    """Forward operations of the parts of a Mixtral-like model for one batch, from its config."""

    hidden: int
    inner: int
    """Width of an expert."""
    queries: int
    """Total width of the queries; `keys`: of the keys."""
    keys: int
    experts: int
    vocabulary: int
    tokens: int
    length: int
    """Tokens per row."""
    labelled: int
    """Number of positions with logits of the LM head."""
    layers: Sequence[Layer] = field(default_factory=list)

    @classmethod
    def of(cls, config: Any, *, tokens: int, length: int, labelled: int, layers: Sequence[Layer]) -> Model:
        """Operations for the config of a Mixtral."""
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
        """Operations of the LM head."""
        return 2 * self.labelled * self.hidden * self.vocabulary

    @property
    def qkv(self) -> int:
        """Operations of the projections to queries, keys and values."""
        return 2 * self.tokens * self.hidden * (self.queries + 2 * self.keys)

    @property
    def out(self) -> int:
        """Operations of the output projection of attention."""
        return 2 * self.tokens * self.queries * self.hidden

    @property
    def scores(self) -> int:
        """Operations of causal attention, without projections."""
        return 2 * self.tokens * (self.length + 1) * self.queries

    @property
    def router(self) -> int:
        """Operations of the base's router."""
        return 2 * self.tokens * self.hidden * self.experts

    def expert(self, pairs: int) -> int:
        """Operations of base experts for pairs of a token and an expert."""
        return 6 * pairs * self.hidden * self.inner

    def fresh(self, layer: Layer) -> int:
        """Operations of new experts."""
        return round(layer.width * self.expert(layer.new))

    def rows(self, layer: Layer) -> int:
        """Operations of new router rows."""
        return 2 * self.tokens * self.hidden * layer.rows

    def forward(self, first: int = 0) -> int:
        """Operations of a forward pass from layer `first`."""
        each = (self.projections + self.scores + self.mixture(layer) for layer in self.layers[first:])
        return sum(each) + self.head

    @property
    def projections(self) -> int:
        """Operations of all attention projections."""
        return self.qkv + self.out

    def mixture(self, layer: Layer) -> int:
        """Operations of router and experts."""
        return self.router + self.rows(layer) + self.expert(layer.old) + self.fresh(layer)

    def inputs(self, layer: Layer) -> int:
        """Operations of the gradients of the inputs of all products of a layer."""
        return self.projections + int(ATTENTION_BACKWARD * self.scores) + self.mixture(layer)


def full(model: Model) -> int:
    """Operations of a step that trains all weights."""
    weights = sum(model.projections + model.mixture(layer) for layer in model.layers) + model.head
    inputs = sum(model.inputs(layer) for layer in model.layers) + model.head
    return model.forward() + inputs + weights


def lora(model: Model, rank: int, *, experts: bool) -> int:
    """Operations of a step that trains LoRA on all attention projections, and with `experts` also on the experts.

    Low-rank products are applied to the tokens. Below the projections of the first layer nothing is trained.
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
    """Operations of a step that trains the new parts of layers from `first`; `cached`: the input of `first` is cached.

    In layer `first` nothing below the new parts is trained, so that gradients pass only through their last product.
    """
    inputs = model.head + sum(model.inputs(layer) for layer in model.layers[first + 1 :])
    inputs += model.fresh(model.layers[first]) // 3
    weights = sum(model.rows(layer) + model.fresh(layer) for layer in model.layers[first:])
    return model.forward(first if cached else 0) + inputs + weights
