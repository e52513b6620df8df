"""Scoring rules: how the routers of the MoE families of transformers turn logits into experts and weights."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Scoring:
    """How a router turns logits into a choice of k experts and their weights.

    The scores are p = softmax(logits) or p = score(logits). The router chooses the k largest p + bias. The weight of a
    chosen expert is p, divided by the sum over the k chosen ones if normalised, times scale and gain.
    """

    normalise: bool
    """The k chosen weights sum to one."""
    score: Callable[[Tensor], Tensor] | None = None
    """Element-wise score of an expert (a sigmoid); None: softmax over all experts."""
    bias: Tensor | None = None
    """[m]: added to the scores for the choice, not for the weights."""
    bias_on_logits: bool = False
    """The choice uses logits (plus the bias if there is one) instead of scores."""
    limited: bool = False
    """The router chooses from some groups of its experts only."""
    scale: float = 1.0
    """Factor on all weights."""
    gain: Tensor | None = None
    """[m]: factor on the weight of each expert."""
    eps: float = 0.0
    """Added to the sum that divides the weights."""
    floor: float = 0.0
    """Minimum of that sum."""
    choose: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    """The family's own function, logits [T, n] -> (weights, index), if the fields above cannot describe it."""

    @property
    def keeps_order(self) -> bool:
        """Whether new experts preserve the order of the old ones; a bias on softmax scores, which shrink, breaks it."""
        return self.bias is None or self.score is not None or self.bias_on_logits


@dataclass(frozen=True)
class Family:
    """One router class of transformers."""

    router: str
    """Name of the router's class."""
    model: str
    """The `model_type` that uses it."""
    says: str
    """The scoring in words."""
    scoring: Callable[[Any, Sequence[Any]], Scoring] | None = None
    """(router, the other arguments that its block passes to it besides the hidden states) -> its scoring."""
    refused: str = ""
    """Why `paper` routing cannot extend it."""
    rows: str = "weight"
    """Attribute path of the router's row matrix [m, H]."""
    features: Callable[[Any, Tensor], Tensor] | None = None
    """Router inputs [T, H] -> the features that the rows are multiplied with; None: the inputs themselves."""
    logits: Callable[[Any, Tensor], Tensor] | None = None
    """Features -> logits of the base; None: the router returns the logits as its first value."""
    bend: Callable[[Any, Tensor], Tensor] | None = None
    """Products of rows and features -> logits; None: they are equal."""


def softmax(normalise: bool | str, **more: Any) -> Callable[[Any, Sequence[Any]], Scoring]:
    """`rule` with a softmax over all experts."""
    return rule(None, normalise, **more)


def sigmoid(normalise: bool | str, **more: Any) -> Callable[[Any, Sequence[Any]], Scoring]:
    """`rule` with a sigmoid of each logit."""
    return rule("sigmoid", normalise, **more)


def rule(
    score: str | None,
    normalise: bool | str,
    *,
    scale: str = "",
    bias: str = "",
    gain: str = "",
    floor: str = "",
    **fixed: Any,
) -> Callable[[Any, Sequence[Any]], Scoring]:
    """Function that reads a scoring from the router attributes with these names.

    The bias "given" is the argument that the block passes to the router.
    """

    def read(router: Any, given: Sequence[Any]) -> Scoring:
        shift = (
            (given[0] if given else None) if bias == "given" else attribute_at(router, bias) if bias else None
        )
        return Scoring(
            normalise=bool(getattr(router, normalise)) if isinstance(normalise, str) else normalise,
            score=_score(router, score),
            scale=float(getattr(router, scale)) if scale else 1.0,
            bias=None if shift is None else shift.detach().flatten(),
            gain=attribute_at(router, gain).detach() if gain else None,
            floor=float(getattr(router, floor)) if floor else 0.0,
            **fixed,
        )

    return read


def _score(router: Any, name: str | None) -> Callable[[Tensor], Tensor] | None:
    if name is None:
        return None
    return Tensor.sigmoid if name == "sigmoid" else cast(Callable[[Tensor], Tensor], getattr(router, name))


def attribute_at(module: Any, path: str) -> Any:
    """Value of a dotted attribute path."""
    return reduce(getattr, path.split("."), module)


def cohere(router: Any, given: Sequence[Any]) -> Scoring:
    """Scoring of Cohere2 MoE: softmax or sigmoid, as its config sets."""
    if router.expert_selection_fn == "softmax":
        return Scoring(normalise=True)
    return Scoring(normalise=bool(router.norm_topk_prob), score=Tensor.sigmoid)


def privacy_filter(router: Any, given: Sequence[Any]) -> Scoring:
    """Scoring of OpenAI's privacy filter: normalised weights, divided by k."""
    return Scoring(normalise=True, scale=1 / router.top_k)


def phimoe(router: Any, given: Sequence[Any]) -> Scoring:
    """Scoring of Phi-MoE: the family's own sparsemixer chooses one expert after the other."""
    home = next(kind for kind in type(router).__mro__ if kind.__name__ == "PhimoeTopKRouter").__module__
    mixer = cast(Any, sys.modules[home]).sparsemixer

    def choose(logits: Tensor) -> tuple[Tensor, Tensor]:
        noise = router.router_jitter_noise
        return cast(
            tuple[Tensor, Tensor],
            mixer(logits, jitter_eps=noise, training=router.training, top_k=router.top_k),
        )

    return Scoring(normalise=False, choose=choose)


def gemma_features(router: Any, x: Tensor) -> Tensor:
    """Features of Gemma 4: normalised and scaled router inputs."""
    return cast(Tensor, router.norm(x) * router.scale * router.scalar_root_size)


def gemma_logits(router: Any, features: Tensor) -> Tensor:
    """Logits of Gemma 4, which its router does not return."""
    return F.linear(features, router.proj.weight)


def softcap(router: Any, product: Tensor) -> Tensor:
    """Logits with a soft cap (Laguna)."""
    cap = router.router_logit_softcapping
    return (product / cap).tanh() * cap if cap > 0 else product


def multiply(router: Any, product: Tensor) -> Tensor:
    """Logits times the router's output multiplier (Muse Spark)."""
    return product * cast(float, router.output_multiplier)
