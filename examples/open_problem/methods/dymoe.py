"""Token assignment of LLaVA-DyMoE (Zhao et al., 2026, arXiv 2603.27481): in training only new tokens reach new experts.

With the largest logits c_old and c_new of the experts of earlier extensions and of the new one, a token is new if
``c_new > c_old`` and ``|c_new - c_old| / max(|c_new|, |c_old|) > threshold``. It then reaches the new experts alone;
ambiguous and old tokens reach the earlier ones alone. Two losses separate the groups: with weights w, the softmax of
all logits over `temperature`, and their sums g_old and g_new, ``g_old g_new``, and the cross-entropy of g_new with
``1 - max w_old`` as its target. Inference is as without, and so is the first stage, which has no earlier experts.

The paper has LoRA experts with cosine scores and a softmax; here the scores are the logits of gates in exact routing.
Its losses begin in the second half of a training, and here at once; its balance of the new experts is left out.
"""

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field

from moextend.moe.families import features
from moextend.moe.routing import reachable

from ._base import OpenProblem
from ._gates import Gates, parts_of
from ._losses import AddedLoss


class DyMoE(OpenProblem):
    """Guided token assignment and separated expert groups; nothing is kept of earlier tasks."""

    class Config(OpenProblem.Config):
        """What can be set."""

        kept: Any = "none"
        threshold: float = Field(0.2, ge=0)
        """tau; the paper's."""
        weight: float = Field(1e-3, ge=0)
        """alpha of the two losses; the paper's."""
        temperature: float = Field(0.1, gt=0)

    config: Config

    def around(self, model: Any, stage: Any, gates: Gates) -> dict[str, Any]:
        """Adds a hook to each router, which acts as long as the rows of this stage are trained, and the losses."""
        given = super().around(model, stage, gates)
        given["extra_loss"] = Separated(given.get("extra_loss"), stage.task, self.config)
        for site, _ in parts_of(model, stage.task):
            site.router.register_forward_hook(given["extra_loss"].assign)
        return given


class Separated(AddedLoss):
    """Assigns tokens in each forward pass, and adds the losses of this pass: means over tokens and blocks."""

    def __init__(self, other: Any, name: str, config: Any) -> None:
        super().__init__(other)
        self.name, self.config, self.terms = name, config, list[torch.Tensor]()

    def assign(self, router: Any, args: Any, out: Any) -> Any:
        """Output of a router with the gates, its last columns, of one group closed at each token."""
        parts, own = reachable(router), router.ext_parts[self.name]
        if len(parts) < 2 or not (torch.is_grad_enabled() and own.rows.requires_grad):
            return None
        x = features(router, args[0].reshape(-1, args[0].shape[-1]))
        logits = torch.cat([part(x) for part in parts], 1)
        self.terms.append(separation(logits, own.count, self.config.temperature))
        new = is_new(logits.detach(), own.count, self.config.threshold).unsqueeze(1)
        shut = torch.cat([new.expand(-1, logits.shape[1] - own.count), ~new.expand(-1, own.count)], 1)
        gates = out[1][:, -logits.shape[1] :].masked_fill(shut, 0)
        return (out[0], torch.cat([out[1][:, : -logits.shape[1]], gates], 1), *out[2:])

    def own(self, batch: Any, out: Any) -> torch.Tensor:
        """The losses of the last forward pass, without padding."""
        terms, self.terms = self.terms, []
        real = batch["attention_mask"].bool().flatten()
        return (
            self.config.weight
            * sum((term[real].mean() for term in terms), torch.zeros(()))
            / max(1, len(terms))
        )


def is_new(logits: torch.Tensor, count: int, threshold: float) -> torch.Tensor:
    """[T]: whether a token with these logits [T, n] reaches the new experts, the last `count`."""
    old, new = logits[:, :-count].amax(1), logits[:, -count:].amax(1)
    apart = (new - old).abs() / torch.maximum(new.abs(), old.abs()).clamp_min(1e-12)
    return (new > old) & (apart > threshold)


def separation(logits: torch.Tensor, count: int, temperature: float) -> torch.Tensor:
    """[T]: sum of the losses of exclusivity and of specialization."""
    weights = (logits / temperature).softmax(1)
    old, new = weights[:, :-count], weights[:, -count:].sum(1).clamp(1e-8, 1 - 1e-8)
    target = 1 - old.detach().amax(1)
    return old.sum(1) * new + F.binary_cross_entropy(new, target, reduction="none")
