"""LoRA whose exponential moving average answers: copy this file to methods/ of a workspace, then --method ema.

After every step ``average = decay average + (1 - decay) weights``, from the weights before the stage on. The average is
what a stage ends with: it answers, is saved, and is where the next stage begins.
"""

import torch
from pydantic import Field

from moextend.bench.methods import OneAdapter


class Ema(OneAdapter):
    """LoRA whose exponential moving average over the steps answers."""

    class Config(OneAdapter.Config):
        """What can be set."""

        decay: float = Field(0.99, ge=0, lt=1)

    def step_hook(self, model, stage):
        """Averages the weights of all steps."""
        self.average = _Average(self.parameters(model), self.config.decay)
        return self.average

    @torch.no_grad()
    def after_stage(self, model, stage):
        """Puts the average in the place of the weights."""
        for name, weight in self.parameters(model).items():
            weight.copy_(self.average.values[name])
        return {}


class _Average:
    def __init__(self, weights, decay):
        self.weights, self.decay = weights, decay
        self.values = {name: weight.detach().float().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def after_step(self):
        for name, weight in self.weights.items():
            self.values[name].lerp_(weight, 1 - self.decay)

    def state_dict(self):
        return self.values

    def load_state_dict(self, state):
        for name, value in state.items():
            self.values[name].copy_(value)
