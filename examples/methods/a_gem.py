"""A-GEM (Chaudhry et al., 2019, arXiv 1812.00420): no step may raise the loss on kept items of earlier stages.

g is a step's gradient, g_ref that of the loss on a batch of kept items. Where they conflict (g . g_ref < 0), the step
uses ``g - (g . g_ref / g_ref . g_ref) g_ref`` (equation 11). Copy this file to methods/ of a
workspace, then --method a-gem.
"""

import torch
from pydantic import Field

from moextend.bench.methods import OneAdapter
from moextend.model.batches import Collator, on_device


class AGem(OneAdapter):
    """Gradients that conflict with those of kept items are projected; keeps raw data."""

    class Config(OneAdapter.Config):
        """What can be set."""

        items: int = Field(64, ge=1)
        """Kept items of each earlier stage."""

    def step_hook(self, model, stage):
        """Projects each gradient; nothing is kept before the first stage."""
        kept = [row for task, _ in stage.earlier for row in stage.earlier_data(task)[: self.config.items]]
        return _Projection(model, self.parameters(model), kept, stage) if kept else None

    def after_stage(self, model, stage):
        """Size of what later stages are given of this one."""
        kept = stage.data[: self.config.items]
        return {"raw_mb": sum(len(ref.read()) for row in kept for ref in row.media) / 1e6}


class _Projection:
    def __init__(self, model, weights, kept, stage):
        self.model, self.weights, self.kept, self.size = model, list(weights.values()), kept, stage.batch_size
        self.collate, self.generator = Collator.of(model), torch.Generator().manual_seed(stage.seed)

    def before_step(self):
        drawn = torch.randperm(len(self.kept), generator=self.generator)[: self.size].tolist()
        batch = on_device(self.collate([self.kept[place] for place in drawn]), self.model.device)
        loss, learning = self.model(**batch)["loss"], [w for w in self.weights if w.grad is not None]
        references = torch.autograd.grad(loss, learning, materialize_grads=True)
        dot = sum((w.grad * ref).sum() for w, ref in zip(learning, references, strict=True))
        if dot < 0:
            square = sum(ref.square().sum() for ref in references)
            for w, ref in zip(learning, references, strict=True):
                w.grad -= dot / square * ref

    def state_dict(self):
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state):
        self.generator.set_state(state["generator"])
