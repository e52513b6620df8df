"""Expert-specialized fine-tuning (ESFT, Wang et al., 2024, arXiv 2407.01906): each stage trains the base's experts that
its task uses most, and nothing else; nothing is added.

In every MoE layer the experts are taken in descending order of their score until the scores sum to the threshold p
(`generate_expert_config.py` of the authors' code, github.com/deepseek-ai/ESFT). The score of an expert is the mean over
tokens of its gate value (`select=gate`), or of the share of a token's k choices that it gets (`select=token`).
Attention, routers, shared experts and the other experts stay as they are, bit for bit.

Experts are slices of stacked tensors here: the gradient of a stack is computed as a whole, and zeroed outside of the
chosen slices. A step therefore takes the operations and the memory of training all experts. DES-MoE (arXiv 2509.16882)
extends ESFT to several domains that are trained at once, with a domain label for each batch; in a sequence of tasks it
would be ESFT with a router that learns at first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from moextend.bench.methods.method import Parameters, Stage
from moextend.bench.methods.weights import TrainedWeights
from moextend.util.lookup import MOST_STEPS
from moextend.util.search_space import LogRange

if TYPE_CHECKING:
    from torch import Tensor

    from moextend import Conversation, MultimodalLM
    from moextend.moe.sites import Site
    from moextend.training.trainer import StepHook

Chosen = Mapping[str, Sequence[int]]
"""Name of a MoE block in the LM -> experts."""
EXPERTS = "experts"
"""Key of a card, and of the facts of a stage, with the experts that were trained."""


class Esft(TrainedWeights):
    """The experts that a task uses most are trained in its stage."""

    look = ("maroon", "H")

    class Config(TrainedWeights.Config):
        """What can be set."""

        select: Literal["gate", "token"] = "token"
        """gate: by the average gate value. token: by the token selection ratio."""
        threshold: Annotated[float, LogRange(0.1, 1)] = Field(default=0.2, gt=0, le=1)
        """p: the scores of the chosen experts of a layer sum to at least so much; 1: all experts that are used."""
        items: int = Field(default=128, ge=1, le=MOST_STEPS)
        """Number of training items that the scores are computed on."""

    config: Config
    _tuned: dict[str, list[int]]
    """The experts that the stages so far have trained."""
    _chosen: Chosen
    """Those of the stage."""

    def start(self, model: MultimodalLM, seed: int) -> None:
        """Freezes everything until the first training."""
        super().start(model, seed)
        self._tuned = {}

    def parameters(self, model: MultimodalLM) -> Parameters:
        """All stacks of experts: name -> parameter."""
        return {name: stack for name, (stack, _) in _stacks(model).items()}

    def prepare(self, model: MultimodalLM, stage: Stage) -> Parameters:
        """Chooses experts; their stacks have gradients."""
        self._chosen = self._choose(model, stage)
        return super().prepare(model, stage)

    def step_hook(self, model: MultimodalLM, stage: Stage) -> StepHook | None:
        """Keeps the other experts as they are."""
        return _Others(model, self._chosen)

    def after_stage(self, model: MultimodalLM, stage: Stage) -> Mapping[str, Any]:
        """The experts, and their number of parameters."""
        chosen = self._chosen
        self._tuned = {name: sorted({*own, *self._tuned.get(name, ())}) for name, own in chosen.items()}
        trained = sum(stack[0].numel() * len(chosen[block]) for stack, block in _stacks(model).values())
        return {"trained_parameters": trained, EXPERTS: chosen}

    def _choose(self, model: MultimodalLM, stage: Stage) -> Chosen:
        import torch

        from moextend.extension.probe import selection_shares
        from moextend.moe.sites import find_sites

        drawn = torch.randperm(len(stage.data), generator=torch.Generator().manual_seed(stage.seed))
        sample = [stage.data[int(at)] for at in drawn[: self.config.items]]
        scores = {"gate": average_gates, "token": selection_shares}[self.config.select]
        found = scores(model, sample, batch_size=stage.batch_size)
        blocks = [site.name for site in find_sites(model.lm)]
        return {name: most(own, self.config.threshold) for name, own in zip(blocks, found, strict=True)}

    def save(self, model: MultimodalLM, stage: Stage) -> None:
        """Writes the experts that any stage so far has trained."""
        from moextend.extension import tensor_files

        card = {"task": stage.task, "base": model.base_fingerprint(), EXPERTS: self._tuned}
        slices = {name: stack[self._tuned[block]] for name, (stack, block) in _stacks(model).items()}
        tensor_files.save_tensors(stage.folder, slices, card)

    def restore(self, model: MultimodalLM, stage: Stage) -> None:
        """Restores these experts; the others are the base's."""
        import torch

        from moextend.extension import tensor_files

        slices, card = tensor_files.load_tensors(stage.folder)
        self._tuned = card[EXPERTS]
        with torch.no_grad():
            for name, (stack, block) in _stacks(model).items():
                stack[self._tuned[block]] = slices[name].to(stack.device)


def most(scores: Sequence[float], threshold: float) -> list[int]:
    """Experts with the highest scores, as few as sum to `threshold` or more; all if no sum is that high."""
    found, total = list[int](), 0.0
    for expert in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if total >= threshold:
            break
        found.append(expert)
        total += scores[expert]
    return sorted(found)


def average_gates(
    model: MultimodalLM, data: Sequence[Conversation], *, batch_size: int = 64
) -> list[list[float]]:
    """Mean gate value of each expert in each MoE block over the tokens of `data` without padding; 0 where a token does
    not choose the expert."""
    import torch

    from moextend.extension.probe import watched
    from moextend.moe.families import chosen_experts
    from moextend.moe.sites import count_experts, find_sites

    sites = find_sites(model.lm)
    sums: dict[int, Tensor] = {}
    real, tokens = torch.empty(0), 0

    def add(site: Site, x: Tensor, out: Any) -> None:
        index, total = chosen_experts(site.router, out).long(), count_experts(site)
        weights = (out[1] if len(out) > 2 else out[1].gather(-1, index)).reshape(len(real), -1).double()
        places = index.reshape(len(real), -1).clamp(max=total)  # beyond the experts with weights
        gates = weights.new_zeros(len(real), total + 1).scatter(1, places, weights)
        sums[site.layer] = sums.get(site.layer, 0) + gates[real.to(gates.device), :total].sum(0)

    for mask in watched(model, data, sites, add, batch_size=batch_size):
        real = mask.flatten()
        tokens += int(real.sum())
    return [(sums[site.layer] / tokens).tolist() for site in sites]


def _stacks(model: MultimodalLM) -> dict[str, tuple[Any, str]]:
    """Name -> stack of the base's experts, a parameter [experts, ...], and the name of its MoE block."""
    from moextend.moe.sites import find_sites

    blocks = {id(site.experts): site.name for site in find_sites(model.lm)}
    return {
        f"lm.{name}.{key}": (stack, blocks[id(module)])
        for name, module in model.lm.named_modules()
        if id(module) in blocks
        for key, stack in module.named_parameters(recurse=False)
    }


class _Others:
    """Step hook that leaves the experts that are not chosen as they are: they get no gradient, and none decays."""

    def __init__(self, model: MultimodalLM, chosen: Chosen) -> None:
        self.rest = [
            (stack, sorted({*range(len(stack))} - {*chosen[block]}))
            for stack, block in _stacks(model).values()
        ]
        self.before = [stack.detach()[rest].clone() for stack, rest in self.rest]

    def before_step(self) -> None:
        """Zeroes their gradients."""
        for stack, rest in self.rest:
            if stack.grad is not None:
                stack.grad[rest] = 0

    def after_step(self) -> None:
        """Puts them back."""
        for (stack, rest), before in zip(self.rest, self.before, strict=True):
            stack.data[rest] = before.to(stack.dtype)
