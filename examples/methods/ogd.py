"""OGD (Farajtabar et al., 2020, arXiv 1910.07104): gradients are orthogonal to those of outputs of earlier stages.

A stage ends with the gradients of the true answer's logits (OGD-GTL) for some of its items, made orthonormal to those
before (Gram-Schmidt): the directions v. A step of a later stage uses ``g - sum_v (g . v) v``. To first order, SGD then
leaves these outputs as they are; AdamW scales each coordinate and keeps that only roughly. Each direction has the size
of the adapter. Copy this file to methods/ of a workspace, then --method ogd.
"""

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file

from moextend.bench.methods import OneAdapter
from moextend.model.batches import Collator, on_device

FILE = "ogd.safetensors"


class Ogd(OneAdapter):
    """Gradients are orthogonal to those of the answers of earlier stages."""

    class Config(OneAdapter.Config):
        """What can be set."""

        items: int = Field(16, ge=1)
        """Items of each stage, with a direction each."""

    def step_hook(self, model, stage):
        """Projects each gradient; free in the first stage."""
        weights = list(self.parameters(model).values())
        return _Projection(weights, _before(stage).to(model.device)) if stage.earlier else None

    def after_stage(self, model, stage):
        """Adds this stage's directions to those before."""
        weights = self.parameters(model)
        model.learn_only(list(weights))
        collate, basis = Collator.of(model), list(_before(stage)) if stage.earlier else []
        for row in stage.data[: self.config.items]:
            batch = on_device(collate([row]), model.device)
            true = batch["labels"][:, 1:][batch["labels"][:, 1:] >= 0]
            logits = model(**batch)["logits"]
            found = torch.autograd.grad(logits.gather(-1, true.unsqueeze(-1)).mean(), list(weights.values()))
            v = torch.cat([part.flatten() for part in found]).float().cpu()
            length = v.norm()
            for _ in range(2):  # once more for what rounding left
                for u in basis:
                    v = v - (v @ u) * u
            if v.norm() > 1e-4 * length:
                basis.append(v / v.norm())
        model.learn_only([])
        save_file({"directions": torch.stack(basis)}, stage.folder / FILE)
        return {"directions": len(basis)}


def _before(stage):
    return load_file(stage.earlier[-1][1] / FILE)["directions"]


class _Projection:
    def __init__(self, weights, basis):
        self.weights, self.basis = weights, basis

    def before_step(self):
        g = torch.cat([w.grad.flatten() for w in self.weights])
        g -= self.basis.T @ (self.basis @ g)
        for w, part in zip(self.weights, g.split([w.numel() for w in self.weights]), strict=True):
            w.grad.copy_(part.view_as(w))
